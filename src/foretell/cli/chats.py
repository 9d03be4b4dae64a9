"""What the chat page needs of the command line: where conversations are kept, and a browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path

from foretell.errors import GenerationError


def place_of_chats(chats: Path | None, *, accounts: bool, off: bool, may: bool, opens: bool) -> str | None:
    """The database of a server's conversations; None where there is no chat page.

    chats: as it was asked for. accounts: conversations are in the accounts' database. off: no page is wanted. may:
    whether there may be one: with accounts, or on this machine alone. opens: it is to be opened. Raises GenerationError
    for what contradicts itself.
    """
    from foretell.cli.gateway import default_database

    if off and (opens or chats is not None):
        raise GenerationError(
            f"--no-chat leaves no page for {'--open' if opens else '--chats'}: leave one of them out."
        )
    if accounts and chats is not None:
        raise GenerationError("With accounts conversations are in their database: leave out --chats.")
    if not may and (opens or chats is not None):
        raise GenerationError(
            "Without accounts there is a chat page only on this machine, and without --api-key. Give --accounts, or "
            f"leave out {'--open' if opens else '--chats'}, or serve at --host 127.0.0.1 without a key."
        )
    if off or not may:
        return None
    if accounts:
        return ""
    if chats is not None and chats.expanduser().is_dir():
        raise GenerationError(f"--chats {chats} is a folder. Give a file, such as {chats / 'chats.db'}.")
    return str(chats.expanduser()) if chats is not None else default_database("chats.db")


def open_in_browser(url: str) -> None:
    """Open a page without waiting for the browser. Where there is no screen, say where it is."""
    has_screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen:  # a browser in this terminal would take it away from the server
        print(f"There is no screen here to open a browser on. Open {url} yourself.", flush=True)
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
