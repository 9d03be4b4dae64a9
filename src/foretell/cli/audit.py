"""admin audit: the log of what was done to accounts."""

from __future__ import annotations

from typing import Annotated

import typer

from foretell.cli import draw
from foretell.cli import moments as when
from foretell.cli.gateway import ACTOR, Database, open_database

app = typer.Typer(help="The log of what was done.", no_args_is_help=True)


@app.command("list")
def list_(
    subject: Annotated[str | None, typer.Option(help="Only what was done to, or by, this id.")] = None,
    action: Annotated[str | None, typer.Option(help="Only actions that begin with this, such as user.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    before: Annotated[int | None, typer.Option(help="Only rows with lower numbers.")] = None,
    database: Database = None,
) -> None:
    """The newest rows of the log."""
    import json

    from foretell.serve.accounts import audit

    with open_database(database) as store, store.read() as db:
        found = audit.events(db, subject=subject, action=action, limit=limit, before=before)
    rows = [
        (e.seq, when.second(e.time), e.actor, e.action, e.subject, "redacted" if e.details is None
         else json.dumps(dict(e.details), ensure_ascii=False))
        for e in found
    ]  # fmt: skip
    draw.table(("row", "time (UTC)", "by", "action", "to", "details"), rows, right=(0,))


@app.command("verify")
def verify(
    hash: Annotated[
        str | None, typer.Option(metavar="HASH", help="Of a row, noted elsewhere before: it must still be there.")
    ] = None,
    database: Database = None,
) -> None:
    """Check the log's chain of hashes; exit code 1 if it was tampered with."""
    from foretell.serve.accounts import audit

    with open_database(database) as store:
        verdict = audit.verify(store, hash)
    if verdict.fault is not None:
        print(f"The audit log is NOT intact: {verdict.fault}. {verdict.rows} rows before that are in order.")
        raise typer.Exit(1)
    redacted = f", {verdict.redacted} of them redacted" if verdict.redacted else ""
    print(f"The audit log is intact: {verdict.rows} rows{redacted}. Its last hash, to be noted elsewhere:")
    print(verdict.last_hash)


@app.command("redact")
def redact(
    subject: Annotated[str | None, typer.Option(help="Of what was done to, or by, this id.")] = None,
    older: Annotated[str | None, typer.Option(metavar="AGE", help="Of rows older than that, such as 365d.")] = None,
    database: Database = None,
) -> None:
    """Remove the details of rows; the chain can still be checked."""
    from foretell.serve.accounts import audit

    if subject is None and older is None:
        raise typer.BadParameter("give --subject, --older, or both.")
    with open_database(database) as store, store.write() as db:
        now = store.clock()
        before = None if older is None else now - when.duration(older)
        count = audit.redact(db, ACTOR, now=now, subject=subject, before=before)
    print(f"{count} rows redacted")


@app.command("expire")
def expire(
    older: Annotated[str, typer.Option(metavar="AGE", help="Rows older than that, such as 730d.")],
    database: Database = None,
) -> None:
    """Remove old rows from the front of the log, which then says so."""
    from foretell.serve.accounts import audit

    with open_database(database) as store, store.write() as db:
        now = store.clock()
        count = audit.expire(db, ACTOR, now - when.duration(older), now=now)
    print(f"{count} rows removed")
