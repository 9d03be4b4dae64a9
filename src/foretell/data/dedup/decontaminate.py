"""Decontamination: documents that hold benchmark items go, or lose the passage, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from foretell.data.curate.steps import Removed
from foretell.data.dedup import leaks
from foretell.data.dedup.base import Base
from foretell.data.dedup.benchmarks import benchmark_files, read_items
from foretell.data.dedup.leaks import Leaks, Match
from foretell.data.dedup.order import text_segments
from foretell.data.dedup.words import Places, words
from foretell.data.document import Document
from foretell.errors import DataError
from foretell.files import digest
from foretell.measure.overlap import normalize
from foretell.measure.overlap.questions import Part

# Of GPT-3, appendix C: a document in more pieces than this goes as a whole, as does a piece of fewer characters.
_PIECES, _SHORTEST = 10, 200
_SHOWN = 80  # characters of a passage


class DecontaminatePass(Base):
    """Documents that hold items of benchmarks.

    benchmarks: files, folders and evals registries. words: in a row that count (0: not looked for). part: of an
    item. shortest: letters of an item that is looked for as a whole, having fewer than 50; the report has no such
    bound, and most of its short hits are chance. action "cut": the passage goes, with `margin` characters on either
    side; conversations always go as a whole.
    """

    name: ClassVar[str] = "decontaminate"
    kind: Literal["decontaminate"] = "decontaminate"
    benchmarks: Annotated[tuple[str, ...], Field(min_length=1)]
    words: Annotated[int, Field(ge=0)] = 13
    part: Part = "question"
    shortest: Annotated[int, Field(ge=24)] = 50
    ignore_case: bool = False
    action: Literal["remove", "cut"] = "remove"
    margin: Annotated[int, Field(ge=0)] = 200

    def folder(self, scratch: Path) -> Path:
        """Of these benchmarks as they are now: others are indexed anew."""
        states = [
            (name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in benchmark_files(self.benchmarks)
        ]
        settings = [str(value) for value in vars(self).values()]
        return scratch / f"{self.name}-{digest([settings, states])[:8]}"

    def merged(self, scratch: Path) -> Path:
        try:
            return super().merged(scratch)
        except DataError as error:
            raise DataError(
                f"The benchmarks {', '.join(self.benchmarks)} have changed since this was begun, so that its documents "
                "would be held against different ones. Bring them back as they were (their times too), or build anew "
                "in another folder."
            ) from error

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        """Nothing has to be known of other documents."""

    def merge(self, shards: int, scratch: Path) -> None:
        with self.merging(scratch) as folder:
            if folder is not None:
                leaks.build(read_items(self.benchmarks, self.part), folder, self.words, self.ignore_case, self.shortest)

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        index = Leaks(self.merged(scratch))
        for document in documents:
            texts = text_segments(document)
            whole = self.action == "remove" or document.is_conversation
            found = index.find(texts, first=whole)
            if not found:
                yield document
            elif whole:
                yield _removed(
                    document, f"{_why(found[0])} {found[0].item}: {_passage(texts, found[0], self.ignore_case)}"
                )
            else:
                yield self._cut(document, found)

    def _cut(self, document: Document, found: list[Match]) -> Document | Removed:
        texts = text_segments(document)
        spans = sorted(span for match in found for span in _spans(texts, match, self.ignore_case))
        items = "; ".join(dict.fromkeys(match.item for match in found))
        pieces: list[list[str]] = []
        for number, text in enumerate(texts):
            kept, end = [], 0
            for low, high in [(low, high) for at, low, high in spans if at == number]:
                if low - self.margin > end:
                    kept.append(text[end : low - self.margin])
                end = max(end, high + self.margin)
            kept.append(text[end:])
            pieces.append([piece for piece in kept if len(piece) >= _SHORTEST] if end else kept)
        left = sum(len(piece) for each in pieces for piece in each)
        if left < _SHORTEST or sum(map(len, pieces)) - len(texts) >= _PIECES:
            return _removed(
                document, f"cut in more than {_PIECES} pieces, or to less than {_SHORTEST} characters: {items}"
            )
        told = iter(["\n\n".join(each) for each in pieces])
        segments = [replace(s, text=next(told)) if s.text else s for s in document.segments]
        gone = sum(map(len, texts)) - left
        return replace(
            document,
            segments=tuple(s for s in segments if s.text or s.image is not None),
            labels={**document.labels, "decontaminate": f"{gone} characters cut, as in {items}"},
        )


def _removed(document: Document, detail: str) -> Removed:
    return Removed(document.id, "decontaminate.leak", detail, document.labels.get("locator", ""))


def _why(match: Match) -> str:
    return f"{match.end - match.begin} {'words' if match.rule == 'words' else 'letters'} in a row of"


def _passage(texts: list[str], match: Match, ignore_case: bool) -> str:
    at, low, high = _spans(texts, match, ignore_case)[0]
    told = " ".join(texts[at][low:high].split())
    return repr(told if len(told) <= _SHOWN else told[: _SHOWN - 1] + "…")


def _spans(texts: list[str], match: Match, ignore_case: bool) -> list[tuple[int, int, int]]:
    """(text, first character, past the last one) of a match, which may reach over several texts."""
    spans, base = [], 0
    for number, text in enumerate(texts):
        starts, ends = _bounds(text, match.rule, ignore_case)
        low, high = max(match.begin - base, 0), min(match.end - base, len(starts))
        if low < high:
            spans.append((number, int(starts[low]), int(ends[high - 1])))
        base += len(starts)
    return spans


def _bounds(text: str, rule: str, ignore_case: bool) -> tuple[Places, Places]:
    """The characters of each word; or of each byte of the normal form."""
    if rule == "words":
        _, starts, ends = words(text)
        return starts, ends
    sizes = np.fromiter((len(normalize(char, ignore_case)) for char in text), np.int64, len(text))
    at = np.repeat(np.arange(len(text)), sizes)
    return at, at + 1
