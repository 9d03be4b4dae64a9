"""What a model is asked: a branch of a conversation as the body of a call."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.serve.chats import conversations, pictures
from foretell.serve.chats.messages import Asked
from foretell.serve.chats.pictures import Picture
from foretell.serve.chats.tables import image_uses, messages
from foretell.serve.store import Store

_MOST_IMAGES, _MOST_BYTES = 16, 24_000_000  # of one call, the newest ones
_LEFT_OUT = "[an earlier image, which is not sent again]"


@dataclass(frozen=True)
class Turn:
    """A message that a model reads. An image without bytes is one that is not sent again."""

    role: str
    text: str
    images: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Context:
    """A conversation up to what is to be answered, its last turn."""

    system: str
    temperature: float | None
    turns: tuple[Turn, ...]

    def body(self, model: str, last: int | None = None, images: bool = True) -> dict[str, Any]:
        """The body of a call. last: how many of the last turns are sent; None: all. images: whether the model reads
        any."""
        turns = self.turns[-last:] if last is not None else self.turns
        while len(turns) > 1 and turns[0].role == "assistant":  # templates want a person to begin
            turns = turns[1:]
        system = [{"role": "system", "content": self.system}] if self.system else []
        said = [
            {"role": turn.role, "content": content}
            for turn, content in zip(turns, _contents(turns, images), strict=True)
        ]
        body: dict[str, Any] = {"model": model, "messages": [*system, *said]}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body if self.temperature is None else body | {"temperature": self.temperature}


def _contents(turns: Sequence[Turn], images: bool) -> list[Any]:
    """Of each turn its text, or its parts where there are images: of these the newest that there is room for."""
    room, count = _MOST_BYTES, _MOST_IMAGES if images else 0
    found: list[Any] = []
    for turn in reversed(turns):
        parts: list[dict[str, Any]] = []
        for image in reversed(turn.images):
            if image.data and count and len(image.data) <= room:
                room, count = room - len(image.data), count - 1
                url = f"data:{image.kind};base64,{base64.b64encode(image.data).decode()}"
                parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
            else:
                room = 0  # no older one either, or a model would read them out of order
                parts.insert(0, {"type": "text", "text": _LEFT_OUT})
        text = [{"type": "text", "text": turn.text}] if turn.text else []
        found.append([*parts, *text] if parts else turn.text)
    return found[::-1]


def context(
    store: Store, owner: str, conversation: str, tip: str | None, side: int, asked: Asked | None = None
) -> Context:
    """What a side's model reads for a reply below `tip`, with what is said just now behind it. Raises RequestError."""
    with store.read() as db:
        row = conversations.found(db, owner, conversation)
        ids = [node.id for node in conversations.tree(db, conversation).read(tip, side)]
        turns = _turns(db, ids)
        if asked is not None:
            pictures.check_own(db, owner, asked.images)
            shown = pictures.data_of(db, asked.images)
            turns.append(Turn("user", asked.text, tuple(shown[id] for id in asked.images)))
    return Context(row.system, row.temperature, tuple(turns))


def _turns(db: sa.Connection, ids: Sequence[str]) -> list[Turn]:
    rows, uses = dict[str, Any](), dict[str, list[str]]()
    for i in range(0, len(ids), 500):
        some = ids[i : i + 500]
        c, u = messages.c, image_uses.c
        rows |= {row.id: row for row in db.execute(sa.select(c.id, c.role, c.text).where(c.id.in_(some)))}
        for row in db.execute(sa.select(u.message, u.image).where(u.message.in_(some)).order_by(u.message, u.place)):
            uses.setdefault(row.message, []).append(row.image)
    wanted = [image for id in ids for image in uses.get(id, ())][-_MOST_IMAGES:]
    shown = pictures.data_of(db, set(wanted))
    gone = Picture("", b"")  # older than any that is sent
    return [
        Turn(rows[id].role, rows[id].text, tuple(shown.get(image, gone) for image in uses.get(id, ()))) for id in ids
    ]
