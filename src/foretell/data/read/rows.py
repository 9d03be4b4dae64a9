"""A row of a table or a line of JSON as a document: plain text, or a conversation in one of the known forms."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from foretell.chat import Conversation
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment, turns
from foretell.data.read.sections import Chat, Fields
from foretell.errors import ConversationError

COLUMN = re.compile(r"\{(\w+)\}")
ISO_DAY = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?(?!\d)")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


@dataclass(frozen=True)
class Place:
    """Where a record stands. id: its locator, and the document's id if it brings none of its own."""

    id: str
    path: str = ""

    def removed(self, reason: str, detail: object = "", id: str = "") -> Removed:
        return Removed(id or self.id, reason, " ".join(str(detail).split())[:300], self.id)


@dataclass(frozen=True)
class Defaults:
    """What holds where a record does not say."""

    source: str
    license: str
    language: str
    date: str | None


def document(
    row: Mapping[str, Any], segments: tuple[Segment, ...], place: Place, fields: Fields, fill: Defaults
) -> Document:
    """The provenance of a row around its segments. Its own licence, language and date go before the source's."""
    labels = {"locator": place.id}
    if path := first(row, fields.path) or place.path:
        labels["path"] = path
    if url := first(row, fields.url):
        labels["url"] = url
    for name in fields.labels:
        if (value := row.get(name)) is not None:
            labels[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    license = license_of(row, fields.license) or fill.license
    if origin := first(row, fields.origin):
        labels["origin"] = origin
    if credit := ", ".join(part for part in (origin, first(row, fields.author)) if part):
        labels["attribution"] = f"{credit} ({license})"
    return Document(
        id=first(row, fields.id) or place.id,
        segments=segments,
        source=fill.source,
        license=license,
        language=first(row, fields.language) or fill.language,
        date=next((day for name in fields.date if (day := day_of(row.get(name)))), None) or fill.date,
        kind=fill.source,
        labels=labels,
    )


def first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these columns that holds a text or a number, as text; empty without one."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


def license_of(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """A licence as a text or a list: of several, all hold."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and (told := sorted({one for one in value if isinstance(one, str) and one})):
            return " AND ".join(told)
    return ""


def day_of(value: Any) -> str | None:
    """An ISO date or time, a year, or seconds or milliseconds since 1970, as ISO day, month or year."""
    if isinstance(value, str) and (match := ISO_DAY.match(value)):
        return match.group()
    if isinstance(value, date):  # as Parquet has it; a datetime is one too
        return value.isoformat()[:10]
    if isinstance(value, int) and 1000 <= value < 3000:
        return str(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1e8 < value < 1e14:
        seconds = value / 1000 if value > 1e11 else value
        try:
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
        except (OverflowError, ValueError, OSError):
            return None
    return None


def filled(row: Mapping[str, Any], template: str) -> str | None:
    """The template with its columns' texts in place; None unless each of them holds one."""
    values = {name: row.get(name) for name in COLUMN.findall(template)}
    if not values or not all(isinstance(value, str) and value.strip() for value in values.values()):
        return None
    return COLUMN.sub(lambda match: str(values[match.group(1)]), template)


def read_row(row: Mapping[str, Any], place: Place, fields: Fields, chat: Chat, fill: Defaults) -> Document | Removed:
    """A document from a row with text in one of the fields, or with a conversation in form `chat`."""
    text = filled(row, fields.template) if fields.template else None
    if text is None:
        text = next((value for name in fields.text if isinstance(value := row.get(name), str)), None)
    if text is not None:
        if not text.strip():
            return place.removed("read.empty")
        return document(row, (Segment(text=text),), place, fields, fill)
    try:
        messages = _messages(row, chat)
        if messages is None:
            found = ", ".join(sorted(row)[:12])
            return place.removed("read.no-text", f"no text in {', '.join(fields.text) or 'any field'}; found: {found}")
        segments = turns(Conversation.from_openai(messages))
    except ConversationError as error:
        return place.removed("read.conversation", error)
    if not any(segment.image is not None or (segment.text or "").strip() for segment in segments):
        return place.removed("read.empty")
    return document(row, segments, place, fields, fill)


def _messages(row: Mapping[str, Any], chat: Chat) -> Any:
    """Messages in OpenAI form, or None where the row has no such columns. Raises ConversationError."""
    if chat in ("auto", "openai") and row.get("messages") is not None:
        return row["messages"]
    if chat in ("auto", "sharegpt") and row.get("conversations") is not None:
        return _sharegpt(row)
    if chat in ("auto", "alpaca") and "instruction" in row and "output" in row:
        return _alpaca(row)
    return None


def _sharegpt(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = row["conversations"]
    if not isinstance(listed, list):
        raise ConversationError(f"conversations must be a list; found {type(listed).__name__}.")
    messages = [{"role": "system", "content": row["system"]}] if isinstance(row.get("system"), str) else []
    messages = [message for message in messages if message["content"]]
    for number, turn in enumerate(listed):
        if not isinstance(turn, Mapping):
            raise ConversationError(f"Turn {number} must be an object with 'from' and 'value'.")
        who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        role = SHAREGPT_ROLES.get(who.lower()) if isinstance(who, str) else None
        if role is None or not isinstance(text, str):
            raise ConversationError(f"Turn {number} is from {who!r}; allowed are {', '.join(SHAREGPT_ROLES)}.")
        messages.append({"role": role, "content": text})
    return messages


def _alpaca(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    asked, given, reply = row["instruction"], row.get("input") or "", row["output"]
    if not all(isinstance(part, str) for part in (asked, given, reply)):
        raise ConversationError("instruction, input and output must be strings.")
    if not asked.strip() or not reply.strip():
        return []
    messages = [{"role": "system", "content": row["system"]}] if isinstance(row.get("system"), str) else []
    for pair in row.get("history") or ():
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ConversationError("history must be a list of [instruction, output].")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    question = f"{asked}\n\n{given}" if given.strip() else asked
    return [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": reply}]
