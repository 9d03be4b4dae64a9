"""Conversations from elsewhere: ChatGPT's conversations.json, and what `exports` writes.

Nothing of a file is trusted. What cannot be read is left out and told; the rest is kept.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from foretell.errors import RequestError
from foretell.serve.accounts.account import new_id
from foretell.serve.chats import chatgpt, pictures
from foretell.serve.chats.conversations import LONGEST_SYSTEM, LONGEST_TITLE, title_of
from foretell.serve.chats.exports import FORM, VERSION
from foretell.serve.chats.imported import Imported, Message, Unreadable
from foretell.serve.chats.markdown import clean_text
from foretell.serve.chats.tables import conversations, image_uses, messages, preferences
from foretell.serve.chats.tree import Node, Tree
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

MOST_BYTES = 50_000_000
_MOST_MESSAGES, _LONGEST = 20_000, 1_000_000  # of a conversation; characters of a message
_TOLD = 1_000  # of what was left out
_STATUSES = ("done", "stopped", "cut", "refused", "failed")


def import_file(store: Store, owner: str, body: bytes, model: str) -> dict[str, Any]:
    """Keep what a file holds. model: of conversations that name none. Returns how many, and what was left out, why.

    Raises RequestError for a file that holds no conversations at all.
    """
    known = _sources(store, owner)
    count, skipped = 0, list[dict[str, str]]()
    for entry in _entries(body):
        title = _title(entry)
        try:
            found = _read(entry)
            if found.source is not None and found.source in known:
                raise Unreadable("It was imported before.")
            _keep(store, owner, found, model)
        except (Unreadable, RequestError) as error:
            skipped.append({"title": title, "why": str(error)})
            continue
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            skipped.append({"title": title, "why": "It is not in the form of an exported conversation."})
            continue
        count += 1
        if found.source is not None:
            known.add(found.source)
    left = len(skipped) - _TOLD
    more = [{"title": f"{left} more", "why": "They are not listed."}] if left > 0 else []
    return {"imported": count, "skipped": [*skipped[:_TOLD], *more]}


def _sources(store: Store, owner: str) -> set[str]:
    c = conversations.c
    with store.read() as db:
        return set(db.scalars(sa.select(c.source).where(c.owner == owner, c.source.is_not(None))))


def _entries(body: bytes) -> list[Any]:
    if body.startswith(b"PK\x03\x04"):
        raise refuse("This is a ZIP file. Open it, and choose the file conversations.json that is in it.", 400,
                     code="invalid_file")  # fmt: skip
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise refuse(f"The file is not JSON ({str(error)[:200]}). Choose conversations.json of ChatGPT's export, or an "
                     "export of this page.", 400, code="invalid_file") from None  # fmt: skip
    if isinstance(found, dict) and isinstance(found.get("conversations"), list):
        found = found["conversations"]
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not any(isinstance(one, dict) for one in found):
        raise refuse("The file holds no conversations. Choose conversations.json of ChatGPT's export, or an export of "
                     "this page.", 400, code="invalid_file")  # fmt: skip
    return found


def _title(entry: Any) -> str:
    title = entry.get("title") if isinstance(entry, dict) else None
    return " ".join(clean_text(title).split())[:LONGEST_TITLE] if isinstance(title, str) and title else "Untitled"


def _read(entry: Any) -> Imported:
    if not isinstance(entry, dict):
        raise Unreadable("It is no object.")
    if "mapping" in entry:
        return chatgpt.read(entry)
    if entry.get("form") == FORM:
        return _own(entry)
    raise Unreadable("It is neither of ChatGPT's form nor of this page's.")


def _own(entry: Mapping[str, Any]) -> Imported:
    if entry.get("version") != VERSION:
        raise Unreadable(f"It is of version {entry.get('version')!r}; this server reads {VERSION}.")
    found = [_message(one) for one in entry["messages"]]
    pairs = [(str(chosen), str(rejected)) for chosen, rejected in entry.get("preferences") or ()]
    temperature = entry.get("temperature")
    if temperature is not None and not 0 <= float(temperature) <= 2:
        raise Unreadable(f"Its temperature is {temperature!r}.")
    return Imported(
        _text(entry, "title", LONGEST_TITLE), found, entry.get("tip"), _text(entry, "system", LONGEST_SYSTEM),
        _text(entry, "model", 256), _text(entry, "second", 256) or None, _text(entry, "persona", 40) or None,
        None if temperature is None else float(temperature), None, _time(entry.get("created")),
        _time(entry.get("updated")), pairs,
    )  # fmt: skip


def _message(one: Mapping[str, Any]) -> Message:
    tokens, rating = one.get("tokens"), one.get("rating", 0)
    images = tuple(
        (str(image.get("name")), base64.b64decode(image["data"], validate=True)) for image in one.get("images") or ()
    )
    return Message(
        str(one["id"]), None if one.get("parent") is None else str(one["parent"]), str(one["role"]),
        _text(one, "text", None), 1 if one.get("side") == 1 else 0,
        one["status"] if one.get("status") in _STATUSES else "cut", _text(one, "error", 2_000) or None,
        _text(one, "model", 256) or None, tokens if type(tokens) is int and 0 <= tokens < 2**31 else None,
        rating if rating in (-1, 1) else 0, _text(one, "note", 2_000) or None, _time(one.get("created")), images,
    )  # fmt: skip


def _text(entry: Mapping[str, Any], name: str, most: int | None) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"Its {name} is no text.")
    return clean_text(value)[:most]


def _time(value: Any) -> int | None:
    return int(value) if type(value) in (int, float) and 0 < value < 2**52 else None


def _keep(store: Store, owner: str, found: Imported, model: str) -> None:
    """Store a conversation, whole or not at all. Raises Unreadable."""
    if not found.messages:
        raise Unreadable("It has no messages.")
    if len(found.messages) > _MOST_MESSAGES:
        raise Unreadable(f"It has {len(found.messages):,} messages; at most {_MOST_MESSAGES:,} are kept.")
    now, conversation = store.clock(), new_id("conv")
    ids: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for number, message in enumerate(found.messages):
        if message.role not in ("user", "assistant") or message.id in ids:
            raise Unreadable("Its messages are of other roles than user and assistant, or two have one id.")
        if message.parent is not None and message.parent not in ids:
            raise Unreadable("A message's parent is missing, or comes after it.")
        if len(message.text) > _LONGEST:
            raise Unreadable(f"A message has {len(message.text):,} characters; at most {_LONGEST:,} are kept.")
        ids[message.id] = new_id("msg")
        rows.append(
            {
                "id": ids[message.id], "conversation": conversation, "number": number,
                "parent": None if message.parent is None else ids[message.parent], "role": message.role,
                "side": message.side if message.role == "assistant" else 0, "text": message.text,
                "status": message.status if message.role == "assistant" else "done", "error": message.error,
                "model": message.model if message.role == "assistant" else None, "tokens": message.tokens,
                "rating": message.rating, "note": message.note, "created": _within(message.created, now),
            }
        )  # fmt: skip
    tree = Tree.of(Node(row["id"], row["parent"], row["role"], row["side"], row["number"]) for row in rows)
    tip = tree.leaf(ids.get(found.tip or "", rows[-1]["id"]))
    attached = list(_attached(store, owner, found.messages, ids))
    first = next((message.text for message in found.messages if message.text), "")
    with store.write() as db:
        db.execute(
            conversations.insert().values(
                id=conversation, owner=owner, title=found.title or title_of(first) or "Untitled",
                model=found.model or model, second=found.second, persona=found.persona, system=found.system,
                temperature=found.temperature, tip=tip, source=found.source, created=_within(found.created, now),
                updated=_within(found.updated or found.created, now),
            )
        )  # fmt: skip
        db.execute(messages.insert(), rows)
        if attached:
            db.execute(image_uses.insert(), attached)
        pairs = {(ids[one], ids[other]) for one, other in found.preferences if {one, other} <= ids.keys()}
        by_id = {row["id"]: row for row in rows}
        for one, other in sorted(pairs):
            if one != other and by_id[one]["parent"] == by_id[other]["parent"] and (other, one) not in pairs:
                db.execute(preferences.insert().values(chosen=one, rejected=other, created=now))


def _within(time: int | None, now: int) -> int:
    return now if time is None else min(time, now)


def _attached(store: Store, owner: str, found: Sequence[Message], ids: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for message in found:
        for place, (name, data) in enumerate(message.images):
            try:
                row = pictures.keep(store, owner, name, data)
            except RequestError as error:
                raise Unreadable(f"Its image {pictures.named(name)} cannot be read: {error}") from error
            yield {"message": ids[message.id], "place": place, "image": row.id}
