"""What all steps share: their settings' base, a document's text, and texts put back in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from foretell.data.curate.steps import Removed, Step
from foretell.data.document import Document, Segment
from foretell.sections import Section

T = TypeVar("T")
BETWEEN = "\n\n"
PIECE = 1000
"""Characters a classifier reads at a time: in a longer text, a bad passage would drown among the rest."""


class StepSection(Section):
    """Base of every step's settings, which most steps are themselves.

    languages, kinds: the step lets other documents pass as they are; None means it is for all. A language stands for
    its regions too ("pt" for "pt-BR"), and a kind for its parts ("python" for "python.docs").
    """

    languages: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return str(vars(self)["step"])

    def __call__(self, document: Document) -> Document | Removed:
        raise NotImplementedError

    def make(self) -> Step:
        """The step, for every document."""
        return self

    def build(self) -> Step:
        """The step, for the documents it is for."""
        step = self.make()
        if self.languages is None and self.kinds is None:
            return step
        return Only(step.name, step, self.languages, self.kinds)


@dataclass(frozen=True)
class Only:
    """A step for documents of some languages and kinds."""

    name: str
    step: Step
    languages: tuple[str, ...] | None
    kinds: tuple[str, ...] | None

    def __call__(self, document: Document) -> Document | Removed:
        language = self.languages is None or _within(document.language, self.languages, "-")
        kind = self.kinds is None or _within(document.kind, self.kinds, ".")
        return self.step(document) if language and kind else document


def _within(value: str, names: Iterable[str], joint: str) -> bool:
    return any(value == name or value.startswith(name + joint) for name in names)


def text_of(document: Document) -> str:
    """Its text segments, a blank line between two of them; images are left out."""
    return BETWEEN.join(segment.text for segment in document.segments if segment.text)


def map_texts(document: Document, change: Callable[[str], str]) -> Document:
    """Every text, alt text and caption changed alike; the same document where nothing does.

    A text segment of which nothing is left goes, unless it is a turn of a conversation.
    """

    def changed(segment: Segment) -> Segment:
        fields: dict[str, Any] = {
            name: new
            for name, old in (("text", segment.text), ("alt", segment.alt), ("caption", segment.caption))
            if old and (new := change(old)) != old
        }
        return replace(segment, **fields) if fields else segment

    segments = tuple(map(changed, document.segments))
    if all(new is old for new, old in zip(segments, document.segments, strict=True)):
        return document
    kept = tuple(segment for segment in segments if segment.image is not None or segment.role or segment.text)
    return replace(document, segments=kept)


def labelled(document: Document, **labels: str) -> Document:
    """With labels beside those it has."""
    return replace(document, labels={**document.labels, **labels})


def removed(document: Document, reason: str, detail: str = "") -> Removed:
    """Why a document goes, with where it came from."""
    return Removed(document.id, reason, detail, document.labels.get("locator", ""))


def pieces(text: str, size: int = PIECE) -> list[str]:
    """Pieces of at most `size` characters, cut at white space where there is some; one for an empty text."""
    found, start = list[str](), 0
    while len(text) - start > size:
        gap = text.rfind(" ", start + size // 2, start + size)
        end = gap if gap > 0 else start + size
        found.append(text[start:end])
        start = end
    return [*found, text[start:]]


def spread(items: list[T], most: int) -> list[T]:
    """At most `most` of them, evenly from the first to the last: what stands for a long document."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]
