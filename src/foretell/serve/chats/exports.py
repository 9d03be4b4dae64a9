"""Conversations to take away: whole as JSON, which is read again by `imports`, or as Markdown, the branch shown."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from foretell.errors import RequestError
from foretell.serve.chats import conversations, pictures
from foretell.serve.chats.tables import conversations as conversations_table
from foretell.serve.chats.tables import messages, preferences
from foretell.serve.limits.windows import stamp
from foretell.serve.store import Store

FORM, VERSION = "foretell-conversation", 1
_SETTINGS = ("id", "title", "model", "second", "persona", "system", "temperature", "tip", "created", "updated")
_MESSAGE = ("id", "parent", "role", "side", "text", "status", "error", "model", "tokens", "rating", "note", "created")
_SAID = {"stopped": "stopped", "cut": "cut off", "refused": "refused", "failed": "failed"}


def as_json(store: Store, owner: str, id: str) -> dict[str, Any]:
    """All of a conversation, every branch, with its images. Raises RequestError, 404."""
    with store.read() as db:
        row = conversations.found(db, owner, id)
        rows = list(db.execute(sa.select(messages).where(messages.c.conversation == id).order_by(messages.c.number)))
        shown: dict[str, list[dict[str, Any]]] = {}
        for i in range(0, len(rows), 500):
            ids = [one.id for one in rows[i : i + 500]]
            for message, uses in pictures.of_messages(db, ids).items():
                data = pictures.data_of(db, {use.id for use in uses})
                shown[message] = [
                    {"name": use.name, "type": use.kind, "data": base64.b64encode(data[use.id].data).decode()}
                    for use in uses
                ]
        own = sa.select(messages.c.id).where(messages.c.conversation == id)
        pairs = sa.select(preferences.c.chosen, preferences.c.rejected).where(preferences.c.chosen.in_(own))
        preferred = [list(pair) for pair in db.execute(pairs.order_by(preferences.c.created, preferences.c.chosen))]
    return {
        "form": FORM,
        "version": VERSION,
        **{name: getattr(row, name) for name in _SETTINGS},
        "messages": [
            {**{name: getattr(one, name) for name in _MESSAGE}, "images": shown.get(one.id, [])} for one in rows
        ],
        "preferences": preferred,
    }


def everything(store: Store, owner: str) -> Iterator[bytes]:
    """All conversations of an owner as one JSON list, the newest first, in pieces."""
    c = conversations_table.c
    with store.read() as db:
        ids = list(db.scalars(sa.select(c.id).where(c.owner == owner).order_by(c.updated.desc(), c.id.desc())))
    between = b"["
    for id in ids:
        with suppress(RequestError):  # one that was removed since
            yield between + b"\n" + written(store, owner, id)
            between = b","
    yield (between if between == b"[" else b"") + b"\n]\n"


def written(store: Store, owner: str, id: str) -> bytes:
    """`as_json` as it is sent."""
    return json.dumps(as_json(store, owner, id), ensure_ascii=False, separators=(",", ":")).encode()


def as_markdown(store: Store, owner: str, id: str) -> str:
    """The branch that is shown. Raises RequestError, 404."""
    with store.read() as db:
        row = conversations.found(db, owner, id)
        nodes = conversations.tree(db, id).shown(row.tip)
        parts = [f"# {row.title or 'Untitled'}", f"_{row.model}, {stamp(row.created)}_"]
        parts += [f"> {line}" for line in row.system.split("\n")] if row.system else []
        for i in range(0, len(nodes), 500):
            ids = [node.id for node in nodes[i : i + 500]]
            found = {one.id: one for one in db.execute(sa.select(messages).where(messages.c.id.in_(ids)))}
            shown = pictures.of_messages(db, ids)
            for one in (found[id] for id in ids):
                name = "You" if one.role == "user" else one.model or "Assistant"
                said = f" ({_SAID[one.status]})" if one.status in _SAID else ""
                images = "".join(f"[image: {image.name}]\n" for image in shown.get(one.id, ()))
                parts += [f"## {name}{said}", (images + one.text).strip() or one.error or ""]
    return "\n\n".join(parts) + "\n"


def disposition(title: str, ending: str) -> str:
    """A Content-Disposition header for a file that is named after a conversation."""
    name = " ".join(re.sub(r'[\\/:*?"<>|\x00-\x1f]', " ", title).split())[:80] or "conversation"
    plain = re.sub(r"[^\w .,-]", "_", name, flags=re.ASCII)
    return f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{quote(name, safe='')}.{ending}"
