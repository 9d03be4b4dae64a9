"""The whole server with its chat page, on a port of this machine, with models that are scripted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from servekit import Live

from foretell.loading import Model
from foretell.serve.setup import Accounts, build


@contextmanager
def chatting(models: Mapping[str, Any], folder: Path, accounts: Accounts | None = None) -> Iterator[Live]:
    """For the one user of this machine, with the conversations in `folder`; or with accounts."""
    ready, urls = threading.Event(), list[str]()

    def started(url: str) -> None:
        urls.append(url)
        ready.set()

    process = build(
        {name: name for name in models},
        lambda ref: Model(models[ref], Path(ref)),
        aliases={}, adapters={}, key=None, upstream=None, upstream_key=None, max_waiting=64, host="127.0.0.1", port=0,
        drain_seconds=2.0, started=started, accounts=accounts, chats=None if accounts else str(folder / "chats.db"),
    )  # fmt: skip
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        assert ready.wait(30), "the server did not start"
        with httpx.Client(base_url=urls[0], verify=False, timeout=30) as http:
            yield Live(urls[0], process.server, process, http)
    finally:
        process.handle_exit(15, None)
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"
