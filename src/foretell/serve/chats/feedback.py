"""What people said of replies, as data for post-training, in TRL's conversational forms.

A preference is said by `prefer`, or by a thumb up beside a thumb down among the replies to one message. A thumb alone
is a rating, of KTO's form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from foretell.files import write_text
from foretell.serve.chats import conversations as chats
from foretell.serve.chats import pictures
from foretell.serve.chats.tables import conversations, messages, preferences
from foretell.serve.chats.tree import Tree
from foretell.serve.store import Store


def export(store: Store, out: Path) -> tuple[Path, int, Path, int]:
    """Write preferences to `out`, and ratings to a file beside it; a row a line. Returns both files and their rows.

    Rows: {"prompt", "chosen", "rejected"} and {"prompt", "completion", "label"}, each a list of messages in OpenAI's
    form, images as data: URLs. Raises RunError for a place that cannot be written.
    """
    ratings = out.with_name(f"{out.stem}-ratings{out.suffix or '.jsonl'}")
    rows: tuple[list[str], list[str]] = ([], [])
    for conversation in _told(store):
        found = of_conversation(store, conversation)
        for lines, some in zip(rows, found, strict=True):
            lines += [json.dumps(row, ensure_ascii=False) for row in some]
    for path, lines in zip((out, ratings), rows, strict=True):
        write_text(path, "".join(f"{line}\n" for line in lines))
    return out, len(rows[0]), ratings, len(rows[1])


def _told(store: Store) -> list[str]:
    """Conversations of which anything was said, the oldest first."""
    m, c = messages.c, conversations.c
    rated = sa.select(m.conversation).where(m.rating != 0)
    compared = sa.select(m.conversation).join(preferences, preferences.c.chosen == m.id)
    with store.read() as db:
        asked = sa.select(c.id).where(c.id.in_(rated) | c.id.in_(compared)).order_by(c.created, c.id)
        return list(db.scalars(asked))


def of_conversation(store: Store, id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Preferences and ratings of one conversation."""
    with store.read() as db:
        row = db.execute(sa.select(conversations).where(conversations.c.id == id)).one()
        tree = chats.tree(db, id)
        said = {one.id: one for one in db.execute(sa.select(messages).where(messages.c.conversation == id))}
        own = sa.select(messages.c.id).where(messages.c.conversation == id)
        named = db.execute(sa.select(preferences).where(preferences.c.chosen.in_(own)).order_by(preferences.c.created))
        pairs = list(dict.fromkeys([(pair.chosen, pair.rejected) for pair in named] + list(_thumbs(tree, said))))

        def prompt(reply: str) -> list[dict[str, Any]]:
            node = tree.nodes[reply]
            read = tree.read(node.parent, node.side)
            shown = pictures.of_messages(db, [one.id for one in read])
            data = pictures.data_of(db, {image.id for uses in shown.values() for image in uses})
            turns = [_turn(said[one.id], [data[image.id] for image in shown.get(one.id, ())]) for one in read]
            return [{"role": "system", "content": row.system}, *turns] if row.system else turns

        preferred = [
            {"prompt": prompt(one), "chosen": [_turn(said[one])], "rejected": [_turn(said[other])]}
            for one, other in pairs
            if said[one].text.strip() and said[other].text.strip() and said[one].text != said[other].text
        ]
        rated = [
            {"prompt": prompt(one.id), "completion": [_turn(one)], "label": one.rating > 0}
            for one in sorted(said.values(), key=lambda one: one.number)
            if one.rating and one.text.strip()
        ]
    usable = [row for row in preferred if row["prompt"]]
    return usable, [row for row in rated if row["prompt"]]


def _thumbs(tree: Tree, said: Mapping[str, sa.Row[Any]]) -> Iterator[tuple[str, str]]:
    for siblings in tree.children.values():
        up = [one.id for one in siblings if said[one.id].rating > 0]
        down = [one.id for one in siblings if said[one.id].rating < 0]
        yield from product(up, down)


def _turn(row: sa.Row[Any], images: Sequence[pictures.Picture] = ()) -> dict[str, Any]:
    if not images:
        return {"role": row.role, "content": row.text}
    parts: list[dict[str, Any]] = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:{image.kind};base64,{base64.b64encode(image.data).decode()}"},
        }
        for image in images
    ]
    return {"role": row.role, "content": [*parts, *([{"type": "text", "text": row.text}] if row.text else [])]}
