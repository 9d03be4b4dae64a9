"""Conversations: made, listed, searched, changed and removed, each by its owner alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic import Field

from foretell.errors import RequestError
from foretell.serve.accounts.account import new_id
from foretell.serve.asked import Body
from foretell.serve.chats.markdown import clean_text
from foretell.serve.chats.tables import conversations, image_uses, images, messages
from foretell.serve.chats.tree import Node, Tree
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

LONGEST_TITLE, LONGEST_SYSTEM = 200, 20_000
_FIRST_WORDS = 60  # characters of a message that become a title
MOST_LISTED = 200
EMPTY = ("failed", "refused")  # statuses of replies that say nothing to go on from


class Settings(Body):
    """What a conversation may be given. tip: any message of it; the newest branch below is shown."""

    title: str | None = Field(None, max_length=LONGEST_TITLE)
    model: str | None = Field(None, min_length=1, max_length=256)
    second: str | None = Field(None, min_length=1, max_length=256)
    persona: str | None = Field(None, max_length=40)
    system: str | None = Field(None, max_length=LONGEST_SYSTEM)
    temperature: float | None = Field(None, ge=0, le=2)
    tip: str | None = Field(None, max_length=40)


def missing(what: str) -> RequestError:
    """Also of what is somebody else's: which of both is not told."""
    return refuse(f"There is no such {what}.", 404, code="not_found")


def title_of(text: str) -> str:
    """A title from the first words of a message."""
    line = " ".join(text.split())
    if len(line) <= _FIRST_WORDS:
        return line
    cut = line[:_FIRST_WORDS].rpartition(" ")[0]
    return f"{cut or line[:_FIRST_WORDS]}…"


def create(store: Store, owner: str, given: Settings, model: str) -> str:
    """The id of a new conversation. model: where none is given."""
    now, id = store.clock(), new_id("conv")
    row = {
        "id": id, "owner": owner, "title": _title(given.title), "model": given.model or model, "second": given.second,
        "persona": given.persona, "system": clean_text(given.system or ""), "temperature": given.temperature,
        "tip": None, "created": now, "updated": now,
    }  # fmt: skip
    with store.write() as db:
        db.execute(conversations.insert().values(**row))
    return id


def _title(text: str | None) -> str:
    return " ".join(clean_text(text or "").split())[:LONGEST_TITLE]


def found(db: sa.Connection, owner: str, id: str, lock: bool = False) -> sa.Row[Any]:
    """lock: nobody else changes it until the transaction ends. Raises RequestError, 404."""
    asked = sa.select(conversations).where(conversations.c.id == id, conversations.c.owner == owner)
    row = db.execute(asked.with_for_update() if lock else asked).first()
    if row is None:
        raise missing("conversation")
    return row


def tree(db: sa.Connection, conversation: str) -> Tree:
    """All its messages, without their texts."""
    c = messages.c
    rows = db.execute(
        sa.select(c.id, c.parent, c.role, c.side, c.number, c.status, (c.text == "").label("silent")).where(
            c.conversation == conversation
        )
    )
    return Tree.of(
        Node(
            row.id,
            row.parent,
            row.role,
            row.side,
            row.number,
            is_empty=row.status in EMPTY or bool(row.silent),
            is_open=row.status == "streaming",
        )
        for row in rows
    )


def change(store: Store, owner: str, id: str, given: Settings) -> None:
    """Set what is given, and null what is given as null. Raises RequestError."""
    values: dict[str, Any] = {name: getattr(given, name) for name in given.model_fields_set}
    if "title" in values:
        values["title"] = _title(given.title)
    if "system" in values:
        values["system"] = clean_text(given.system or "")
    for name in ("model", "tip"):
        if values.get(name, "") is None:
            raise refuse(f"Invalid '{name}': it cannot be null.", 400, param=name, code="invalid_value")
    with store.write() as db:
        found(db, owner, id, lock=True)
        if given.tip is not None:
            known = tree(db, id)
            if given.tip not in known.nodes:
                raise missing("message")
            values["tip"] = known.leaf(given.tip)
        if values:
            db.execute(conversations.update().where(conversations.c.id == id).values(**values))


def remove(store: Store, owner: str, id: str) -> None:
    """With all messages, and the images that are in no other conversation. Raises RequestError, 404."""
    with store.write() as db:
        found(db, owner, id, lock=True)
        own = sa.select(messages.c.id).where(messages.c.conversation == id)
        used = list(db.scalars(sa.select(image_uses.c.image).where(image_uses.c.message.in_(own)).distinct()))
        db.execute(conversations.delete().where(conversations.c.id == id))
        still = sa.select(image_uses.c.image)
        for i in range(0, len(used), 500):
            unused = images.c.id.in_(used[i : i + 500]) & images.c.id.not_in(still)
            db.execute(images.delete().where(unused))


def listing(store: Store, owner: str, search: str, before: str | None, limit: int) -> tuple[list[sa.Row[Any]], bool]:
    """The newest first, and whether there are more. search: in titles and texts. before: the last one that was listed.

    Raises RequestError, 404, for a `before` that is gone.
    """
    c = conversations.c
    asked = sa.select(c.id, c.title, c.updated, c.model).where(c.owner == owner)
    if search:
        words = f"%{_escaped(clean_text(search))}%"
        within = sa.exists().where(messages.c.conversation == c.id, messages.c.text.ilike(words, escape="\\"))
        asked = asked.where(c.title.ilike(words, escape="\\") | within)
    with store.read() as db:
        if before is not None:
            last = found(db, owner, before)
            asked = asked.where((c.updated < last.updated) | ((c.updated == last.updated) & (c.id < last.id)))
        rows: list[sa.Row[Any]] = list(db.execute(asked.order_by(c.updated.desc(), c.id.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def _escaped(text: str) -> str:
    for mark in "\\%_":
        text = text.replace(mark, f"\\{mark}")
    return text


def told(row: sa.Row[Any] | Mapping[str, Any], shown: Sequence[Mapping[str, Any]], earlier: bool) -> dict[str, Any]:
    """A conversation as the page is told it."""
    fields = row if isinstance(row, Mapping) else row._mapping
    names = ("id", "title", "model", "second", "persona", "system", "temperature", "tip", "created", "updated")
    return {name: fields[name] for name in names} | {"messages": list(shown), "earlier": earlier}
