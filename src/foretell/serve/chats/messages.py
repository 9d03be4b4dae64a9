"""Messages: written, read as a branch, rated, preferred; and replies as they grow in the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.serve.accounts.account import new_id
from foretell.serve.chats import conversations, pictures
from foretell.serve.chats.conversations import missing, title_of
from foretell.serve.chats.markdown import blocks_of, plain_blocks, restored, stored
from foretell.serve.chats.pictures import Costs
from foretell.serve.chats.tables import conversations as conversations_table
from foretell.serve.chats.tables import image_uses, messages, preferences
from foretell.serve.chats.tree import Node, Tree
from foretell.serve.limits import leases
from foretell.serve.refusals import refuse
from foretell.serve.store import Store, insert_once

LONGEST, MOST_IMAGES = 100_000, 16  # characters and images of a message
LONGEST_NOTE = 2_000
_SILENCE = 15_000  # milliseconds after which a process that writes a reply is taken for dead
_MOST_MESSAGES = 20_000  # of a conversation
STREAMING, CUT = "streaming", "cut"


@dataclass(frozen=True)
class Asked:
    """What a person says. parent: None for the first message."""

    parent: str | None
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """Who replies: 0 or 1, and the model."""

    side: int
    model: str


@dataclass(frozen=True)
class Written:
    """A reply so far. tokens None: not told."""

    text: str
    blocks: Sequence[str] | None = None
    tokens: int | None = None
    status: str = STREAMING
    error: str | None = None
    code: str | None = None
    model: str | None = None


def say(store: Store, owner: str, conversation: str, asked: Asked, sides: Sequence[Side]) -> tuple[str, list[str]]:
    """Store a message and a reply to come for each side. Returns their ids. Raises RequestError."""
    with store.write() as db:
        row = conversations.found(db, owner, conversation, lock=True)
        tree = conversations.tree(db, conversation)
        check_parent(tree, asked.parent, "assistant")
        pictures.check_own(db, owner, asked.images)
        now, number = store.clock(), _next(db, conversation)
        id = new_id("msg")
        db.execute(
            messages.insert().values(
                id=id, conversation=conversation, number=number, parent=asked.parent, role="user", side=0,
                text=asked.text, status="done", rating=0, created=now,
            )
        )  # fmt: skip
        for place, image in enumerate(asked.images):
            db.execute(image_uses.insert().values(message=id, place=place, image=image))
        replies = _open(db, conversation, id, number + 1, sides, now)
        values = {"tip": replies[0], "updated": now}
        if not row.title:
            values["title"] = title_of(asked.text) or "Image"
        db.execute(conversations_table.update().where(conversations_table.c.id == conversation).values(**values))
    return id, replies


def again(store: Store, owner: str, id: str, sides: Sequence[Side]) -> list[str]:
    """Store further replies to come: beside a reply, or to a person's message. Raises RequestError."""
    with store.write() as db:
        row = of_owner(db, owner, id)
        conversation = conversations.found(db, owner, row.conversation, lock=True)
        tree = conversations.tree(db, row.conversation)
        parent = row.id if row.role == "user" else row.parent
        now = store.clock()
        replies = _open(db, row.conversation, parent, _next(db, row.conversation), sides, now)
        shown = {node.id for node in tree.path(conversation.tip)}
        beside = sides[0].side and row.id not in shown and row.role != "user"
        values: dict[str, Any] = {"updated": now} if beside else {"updated": now, "tip": replies[0]}
        db.execute(conversations_table.update().where(conversations_table.c.id == row.conversation).values(**values))
    return replies


def check_parent(tree: Tree, parent: str | None, role: str) -> None:
    """Raises RequestError where nothing of `role` stands there to go on from."""
    if parent is None:
        return
    if parent not in tree.nodes:
        raise missing("message")
    if tree.nodes[parent].role != role:
        raise refuse("A message follows a reply.", 400, param="parent", code="invalid_value")
    if tree.nodes[parent].is_open:
        raise refuse("The reply is still being written. Stop it, or wait.", 409, param="parent", code="still_writing")


def _next(db: sa.Connection, conversation: str) -> int:
    last = db.scalar(sa.select(sa.func.max(messages.c.number)).where(messages.c.conversation == conversation))
    number = 0 if last is None else last + 1
    if number >= _MOST_MESSAGES:
        raise refuse(
            f"This conversation has {number:,} messages, and takes no more. Begin another.", 400, code="too_long"
        )
    return number


def _open(
    db: sa.Connection, conversation: str, parent: str | None, number: int, sides: Sequence[Side], now: int
) -> list[str]:
    ids = [new_id("msg") for _ in sides]
    place = leases.own_place()
    for i, (id, side) in enumerate(zip(ids, sides, strict=True)):
        db.execute(
            messages.insert().values(
                id=id, conversation=conversation, number=number + i, parent=parent, role="assistant", side=side.side,
                text="", status=STREAMING, model=side.model, rating=0, place=place, beat=now, created=now,
            )
        )  # fmt: skip
    return ids


def of_owner(db: sa.Connection, owner: str, id: str) -> sa.Row[Any]:
    """Raises RequestError, 404."""
    c = conversations_table.c
    asked = sa.select(messages).join(conversations_table, c.id == messages.c.conversation)
    row = db.execute(asked.where(messages.c.id == id, c.owner == owner)).first()
    if row is None:
        raise missing("message")
    return row


def reply_of(db: sa.Connection, owner: str, id: str) -> sa.Row[Any]:
    """Raises RequestError: 404, and 400 for what a person said."""
    row = of_owner(db, owner, id)
    if row.role != "assistant":
        raise refuse("This is a message of a person, not a reply.", 400, code="invalid_value")
    return row


def write(store: Store, id: str, written: Written) -> bool:
    """Store a reply so far. False where it is not to go on: it was stopped elsewhere, or its conversation removed."""
    values = {"text": written.text, "tokens": written.tokens, "status": written.status, "beat": store.clock()}
    if written.status != STREAMING:
        values |= {"error": written.error, "code": written.code}
        values |= {"blocks": None if written.blocks is None else stored(written.blocks)}
        values |= {} if written.model is None else {"model": written.model}
    open_one = (messages.c.id == id) & (messages.c.status == STREAMING)
    with store.write() as db:
        if db.execute(messages.update().where(open_one).values(**values)).rowcount:
            return True
        if written.status != STREAMING:  # stopped by another process, which does not know the whole text
            kept = (messages.c.id == id) & (messages.c.status.in_(("stopped", CUT)))
            db.execute(messages.update().where(kept).values(**values, place=None))
    return False


def stop(store: Store, owner: str, id: str) -> None:
    """End a reply that another process writes; nothing is done to one that has ended. Raises RequestError."""
    with store.write() as db:
        reply_of(db, owner, id)
        open_one = (messages.c.id == id) & (messages.c.status == STREAMING)
        db.execute(messages.update().where(open_one).values(status="stopped"))


def cut_dead(store: Store) -> int:
    """Mark as cut what processes left open that are no more. Returns how many."""
    with store.read() as db:
        open_ones = list(db.execute(sa.select(messages).where(messages.c.status == STREAMING)))
    return _cut(store, [row.id for row in open_ones if _is_dead(row, store.clock())])


def _cut(store: Store, ids: Collection[str]) -> int:
    if not ids:
        return 0
    dead = messages.c.id.in_(ids) & (messages.c.status == STREAMING)
    with store.write() as db:
        return db.execute(messages.update().where(dead).values(status=CUT)).rowcount


def _is_dead(row: sa.Row[Any], now: int) -> bool:
    return leases.is_gone(row.place or "") or abs(now - (row.beat or 0)) > _SILENCE


def rate(store: Store, owner: str, id: str, rating: int, note: str | None) -> None:
    with store.write() as db:
        row = reply_of(db, owner, id)
        db.execute(messages.update().where(messages.c.id == row.id).values(rating=rating, note=note))


def prefer(store: Store, owner: str, chosen: str, rejected: str) -> None:
    """One reply over another to the same message; the opposite, if it was said before, is taken back."""
    with store.write() as db:
        one, other = reply_of(db, owner, chosen), reply_of(db, owner, rejected)
        if one.id == other.id or (one.conversation, one.parent) != (other.conversation, other.parent):
            raise refuse(
                "Only two replies to the same message can be compared.", 400, param="over", code="invalid_value"
            )
        reverse = (preferences.c.chosen == rejected) & (preferences.c.rejected == chosen)
        db.execute(preferences.delete().where(reverse))
        insert_once(db, preferences, chosen=chosen, rejected=rejected, created=store.clock())


class Reader:
    """Messages as the page is told them. live: replies that this process writes, as they are now. costs: how the model
    of a name reads images."""

    def __init__(
        self, store: Store, live: Callable[[str], Written | None], costs: Callable[[str | None], Costs]
    ) -> None:
        self.store, self._live, self._costs = store, live, costs

    def conversation(self, owner: str, id: str, limit: int = 60, before: str | None = None) -> dict[str, Any]:
        """The last `limit` messages of the branch that is shown, or of those before one. Raises RequestError, 404."""
        with self.store.read() as db:
            row = conversations.found(db, owner, id)
            tree = conversations.tree(db, id)
            shown = tree.shown(row.tip)
            end = len(shown)
            if before is not None:
                end = next((i for i, node in enumerate(shown) if node.id == before), -1)
                if end < 0:
                    raise missing("message on the branch that is shown")
            begin = max(end - limit, 0)
            begin -= bool(begin and shown[begin].side and shown[begin - 1].parent == shown[begin].parent)
            found = self._read(db, tree, shown[begin:end], row.model)
        return conversations.told(row, self._ready(found), begin > 0)

    def messages(self, owner: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Some messages of one conversation. Raises RequestError, 404."""
        with self.store.read() as db:
            rows = [of_owner(db, owner, id) for id in ids]
            tree = conversations.tree(db, rows[0].conversation)
            model = conversations.found(db, owner, rows[0].conversation).model
            found = self._read(db, tree, [tree.nodes[id] for id in ids], model)
        return self._ready(found)

    def _read(self, db: sa.Connection, tree: Tree, nodes: Sequence[Node], model: str) -> list[_Found]:
        ids = [node.id for node in nodes]
        rows = {row.id: row for row in db.execute(sa.select(messages).where(messages.c.id.in_(ids)))}
        shown = pictures.of_messages(db, ids)
        preferred = set(db.scalars(sa.select(preferences.c.chosen).where(preferences.c.chosen.in_(ids))))
        costs = self._costs(model)
        return [
            _Found(
                rows[node.id],
                [one.id for one in tree.siblings(node)],
                [pictures.told(image, costs) for image in shown.get(node.id, ())],
                node.id in preferred,
            )
            for node in nodes
        ]

    def _ready(self, found: Sequence[_Found]) -> list[dict[str, Any]]:
        """With what is written now, and blocks made that were not kept."""
        now, dead, made, told = self.store.clock(), set[str](), dict[str, list[str]](), []
        for one in found:
            row = one.row
            written = self._live(row.id)
            if written is None and row.status == STREAMING and _is_dead(row, now):
                dead.add(row.id)
            if written is None:
                status = CUT if row.id in dead else row.status
                blocks = restored(row.blocks) if row.role == "assistant" else plain_blocks(row.text)
                if blocks is None:
                    blocks = blocks_of(row.text)
                    if status != STREAMING:
                        made[row.id] = blocks
                written = Written(row.text, blocks, row.tokens, status, row.error, row.code)
            told.append(one.told(written))
        _cut(self.store, dead)
        if made:
            self._keep(made)
        return told

    def _keep(self, made: Mapping[str, list[str]]) -> None:
        keep = messages.update().where(messages.c.id == sa.bindparam("which")).values(blocks=sa.bindparam("html"))
        with self.store.write() as db:
            db.execute(keep, [{"which": id, "html": stored(blocks)} for id, blocks in made.items()])


@dataclass(frozen=True)
class _Found:
    """A message as it is stored, and what stands around it."""

    row: sa.Row[Any]
    siblings: list[str]
    images: list[dict[str, Any]]
    preferred: bool

    def told(self, written: Written) -> dict[str, Any]:
        row = self.row
        return {
            "id": row.id, "parent": row.parent, "role": row.role, "side": row.side,
            "blocks": list(written.blocks or ()), "text": written.text, "images": self.images,
            "status": written.status, "error": written.error, "code": written.code, "model": row.model,
            "tokens": written.tokens, "siblings": self.siblings, "rating": row.rating, "preferred": self.preferred,
            "created": row.created,
        }  # fmt: skip
