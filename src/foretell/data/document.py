"""The document: ordered text and image segments with their provenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from foretell.chat import Conversation, ImagePart, Message, Part, Role, TextPart


@dataclass(frozen=True)
class Segment:
    """Text, or an encoded image; never both. `role` marks a turn of a conversation."""

    text: str | None = None
    image: bytes | None = None
    alt: str | None = None
    caption: str | None = None
    role: Role | None = None


@dataclass(frozen=True)
class Document:
    """What a model reads as one piece.

    id is unique within its source. license is an SPDX expression or "unknown". date is ISO 8601 (day or year)
    or None. language is a BCP 47 tag ("und" if unknown). kind names what is reported as one curve in the log.
    """

    id: str
    segments: tuple[Segment, ...]
    source: str
    license: str
    language: str = "und"
    date: str | None = None
    kind: str = "text"
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def is_conversation(self) -> bool:
        return any(segment.role is not None for segment in self.segments)

    def conversation(self) -> Conversation:
        """The turns as a Conversation; neighbouring segments of one role are one message."""
        messages: list[tuple[Role, list[Part]]] = []
        for segment in self.segments:
            role = segment.role or "user"
            if not messages or messages[-1][0] != role:
                messages.append((role, []))
            part = ImagePart(segment.image) if segment.image is not None else TextPart(segment.text or "")
            messages[-1][1].append(part)
        return Conversation(tuple(Message(role, tuple(parts)) for role, parts in messages))


@dataclass(frozen=True)
class SkipCount:
    """How many documents were left out, by reason; one bad document never ends a run."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str) -> None:
        self.counts[reason] += 1


def turns(conversation: Conversation) -> tuple[Segment, ...]:
    """Segments of a conversation, the inverse of `Document.conversation`.

    Tool calls become the text they are learned as; names, and the ids that tool results answer, are not kept.
    """
    segments: list[Segment] = []
    for message in conversation.messages:
        for part in message.parts:
            text, image = (part.text, None) if isinstance(part, TextPart) else (None, part.data)
            segments.append(Segment(text, image, role=message.role))
        segments += [Segment(call.text, role=message.role) for call in message.tool_calls]
    return tuple(segments)
