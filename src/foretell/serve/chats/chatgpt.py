"""ChatGPT's conversations.json: each conversation a mapping of nodes, with the one that was shown last.

Of the nodes those are kept that a person saw: what the user and the assistant said, and code that the assistant ran.
Tools' output, hidden notes and nodes without a message are left out, and what followed them moves up. Messages of one
role in a row become one, since a turn is what a model reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foretell.serve.chats.conversations import LONGEST_SYSTEM, LONGEST_TITLE
from foretell.serve.chats.imported import Imported, Message, Unreadable
from foretell.serve.chats.markdown import clean_text

_IMAGE = "[image, which is not part of the export]"
_FILE = "[file, which is not part of the export]"


_MOST = 60_000_000  # characters of a conversation, once messages have become one


@dataclass(frozen=True)
class _Said:
    """What is kept of a node. before: the message of the same role that it goes on. above: what it answers."""

    role: str
    text: str
    model: str | None
    created: int | None
    before: str | None = None
    above: str | None = None


def read(entry: Mapping[str, Any]) -> Imported:
    """Raises Unreadable."""
    mapping = entry["mapping"]
    if not isinstance(mapping, dict) or not mapping:
        raise Unreadable("It has no messages.")
    system, kept = "", dict[str, _Said]()
    stands_for: dict[str | None, str | None] = {None: None}  # the message that a node became, or that is above it
    for id, parent in _in_order(mapping):
        above = stands_for[id] = stands_for[parent]
        message = mapping[id].get("message")
        if not isinstance(message, dict):
            continue
        if _role(message) == "system":
            system = system or _text_of(message.get("content"))
        elif (said := _said(message)) is not None:
            before = kept.get(above or "")
            if before is not None and before.role == said.role:
                kept[id] = replace(said, before=above, above=before.above)
            else:
                kept[id] = replace(said, above=above)
            stands_for[id] = id
    # What went on in others of its role stands in them, unless it was answered too.
    gone = {said.before for said in kept.values()} - {said.above for said in kept.values()}
    found = [id for id in kept if id not in gone]
    if not found:
        raise Unreadable("Nobody says anything in it.")
    title = entry.get("title")
    return Imported(
        " ".join(clean_text(title).split())[:LONGEST_TITLE] if isinstance(title, str) else "",
        list(_messages(kept, found)),
        stands_for.get(str(entry.get("current_node"))),
        system[:LONGEST_SYSTEM],
        source=_source(entry),
        created=_time(entry.get("create_time")),
        updated=_time(entry.get("update_time")),
    )


def _messages(kept: Mapping[str, _Said], found: Sequence[str]) -> Iterator[Message]:
    size = 0
    for id in found:
        said, parts = kept[id], list[str]()
        one: _Said | None = said
        while one is not None:
            parts.append(one.text)
            if (size := size + len(one.text)) > _MOST:
                raise Unreadable(f"Its branches have more than {_MOST:,} characters together.")
            one = kept[one.before] if one.before is not None else None
        yield Message(id, said.above, said.role, "\n\n".join(reversed(parts)), model=said.model, created=said.created)


def _in_order(mapping: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Every node with its parent, parents first, siblings as listed. Nodes in a ring are never reached."""
    children: dict[str | None, list[str]] = {}
    for id, node in mapping.items():
        if isinstance(node, dict):
            parent = node.get("parent")
            children.setdefault(parent if isinstance(parent, str) and parent in mapping else None, []).append(id)
    waiting: list[tuple[str, str | None]] = [(id, None) for id in reversed(children.get(None, ()))]
    while waiting:
        id, parent = waiting.pop()
        yield id, parent
        listed = mapping[id].get("children")
        place = {child: i for i, child in enumerate(listed)} if isinstance(listed, list) else {}
        below = sorted(children.get(id, ()), key=lambda child: place.get(child, len(place)))
        waiting += [(child, id) for child in reversed(below)]


def _role(message: Mapping[str, Any]) -> str:
    author = message.get("author")
    return str(author.get("role")) if isinstance(author, dict) else ""


def _said(message: Mapping[str, Any]) -> _Said | None:
    """None for what a person did not see as something said."""
    role, content = _role(message), message.get("content")
    details = message.get("metadata")
    details = details if isinstance(details, dict) else {}
    if role not in ("user", "assistant") or details.get("is_visually_hidden_from_conversation"):
        return None
    text = _text_of(content)
    if not text:
        return None
    model = details.get("model_slug")
    return _Said(
        role, text, model[:256] if isinstance(model, str) and model else None, _time(message.get("create_time"))
    )


def _text_of(content: Any) -> str:
    if not isinstance(content, dict):
        return ""
    kind = content.get("content_type")
    if kind in ("text", "multimodal_text"):
        parts = content.get("parts")
        found = [_part(part) for part in parts] if isinstance(parts, list) else []
        return clean_text("\n\n".join(part for part in found if part)).strip()
    if kind == "code" and isinstance(content.get("text"), str) and content["text"].strip():
        language = content.get("language")
        name = language if isinstance(language, str) and language.isalnum() and language != "unknown" else ""
        fence = "```"
        while fence in content["text"]:
            fence += "`"
        return clean_text(f"{fence}{name}\n{content['text']}\n{fence}")
    return ""


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        if part.get("content_type") == "image_asset_pointer":
            return _IMAGE
        return str(part["text"]) if isinstance(part.get("text"), str) else _FILE
    return ""


def _source(entry: Mapping[str, Any]) -> str | None:
    id = entry.get("conversation_id") or entry.get("id")
    return id[:80] if isinstance(id, str) and id else None


def _time(seconds: Any) -> int | None:
    """Milliseconds of a time in seconds."""
    known = type(seconds) in (int, float) and 0 < seconds < 2**40
    return int(seconds * 1000) if known else None
