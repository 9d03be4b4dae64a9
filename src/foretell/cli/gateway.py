"""The database of a gateway, as commands open it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foretell.serve.store import Store

ACTOR = "shell"  # in the audit log, of whoever may use this command line
Database = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        envvar="FORETELL_DATABASE",
        help="SQLite file, or PostgreSQL by URL; default gateway.db in the user's data folder.",
    ),
]


def default_database(name: str = "gateway.db") -> str:
    """Where a gateway's database lies if nothing is said; chats.db is that of a chat page without accounts."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return str(Path(base).expanduser() / "foretell" / name)


@contextmanager
def open_database(database: str | None, up_to_date: bool = True) -> Iterator[Store]:
    """The database, made where there is none."""
    from foretell.errors import MissingExtraError

    try:
        from foretell.serve.migrations import prepare
        from foretell.serve.store import Store
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("foretell"):
            raise
        raise MissingExtraError("The accounts of a server", "serve") from error
    store = Store(database or default_database())
    try:
        if up_to_date:
            prepare(store)
        yield store
    finally:
        store.close()
