"""Boilerplate: lines that say nothing (cookie notices, buttons), and lines that come back on many pages of a source.

The first is a step with rules; the second needs to see all documents, so it is a pass: count, merge, cut out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.steps import Removed
from foretell.data.curate.texts import StepSection, map_texts, removed
from foretell.data.document import Document
from foretell.files import atomic_path
from foretell.sections import Section

LONGEST = 200  # characters: a longer line is content, however often it comes
LineTest = Callable[[str], bool]
_RULE = re.compile(
    r"(?:(?:we|this (?:web)?site|our (?:web)?site)\b.{0,60}\bcookies\b.*"
    r"|(?:accept|reject|manage|allow)(?: all)?(?: cookies?| preferences)|(?:cookie|privacy) (?:policy|settings|notice)"
    r"|terms (?:of (?:use|service)|and conditions)(?: ?[|·•] ?privacy policy)?"
    r"|by (?:using|continuing to (?:use|browse)) (?:this|our) (?:web)?site.*"
    r"|(?:share|tweet|pin|like|follow us)(?: this)?"
    r"(?: (?:on|via) (?:facebook|twitter|x|linkedin|pinterest|instagram|e-?mail))?"
    r"|(?:skip|jump|back) to (?:(?:the )?(?:main )?(?:content|navigation|top|search|main))"
    r"|(?:read|learn|show|load|see) more\W*"
    r"|(?:sign|log)[ -]?(?:in|up|out)(?: (?:or|/) (?:sign|log)[ -]?(?:in|up))?"
    r"|subscribe(?: (?:now|to our newsletter))?|click here\W*"
    r"|(?:©|\(c\)|copyright)\s*(?:©|\(c\))?\s*\d{4}.{0,60}|all rights reserved\W*|(?:please )?enable javascript.*"
    r"|(?:this page requires|you need(?: to enable)?) javascript.*|advertisement|sponsored(?: content)?|print this page"
    r"|(?:previous|next)(?: (?:page|post|article|chapter))?|menu|search|home|close|powered by \w+"
    r"|(?:usamos|utilizamos) cookies.*|aceptar(?: todas?)?(?: las)? cookies|leer más|todos los derechos reservados\W*"
    r"|compartir(?: en (?:facebook|twitter))?|iniciar sesión|czytaj (?:więcej|dalej)|wszelkie prawa zastrzeżone\W*"
    r"|(?:ta|nasza) strona (?:używa|wykorzystuje) .{0,20}cookies.*|zaloguj(?: się)?|udostępnij"
    r"|(?:wir|diese (?:web)?seite) (?:verwende[nt]|nutz(?:en|t)) cookies.*|weiterlesen|alle rechte vorbehalten\W*"
    r"|(?:nous utilisons|ce site utilise) des cookies.*|lire la suite|tous droits réservés\W*)\s*[.»›>→]*",
    re.IGNORECASE,
)


class BoilerplateStep(StepSection):
    """Takes out lines that are nothing but a cookie notice, a button, a copyright line or the like; the whole line must
    match, so that a sentence about cookies stays. patterns: more such regular expressions of one's own. A document of
    which nothing is left goes."""

    step: Literal["boilerplate"] = "boilerplate"
    patterns: tuple[str, ...] = ()

    def __call__(self, document: Document) -> Document | Removed:
        own = re.compile("|".join(f"(?:{pattern})" for pattern in self.patterns)) if self.patterns else None

        def bad(line: str) -> bool:
            line = line.strip(" \t*-•|#")
            if not line or len(line) > LONGEST:
                return False
            return bool(_RULE.fullmatch(line) or (own and own.fullmatch(line)))

        return _without(document, bad, self.name)


def _without(document: Document, bad: LineTest, name: str) -> Document | Removed:
    """A document without its bad lines; conversations stay as they are."""
    if document.is_conversation:
        return document
    left = map_texts(document, partial(_filtered, bad=bad))
    return left if left.segments else removed(document, f"{name}.nothing_left")


def _filtered(text: str, bad: LineTest) -> str:
    lines = text.split("\n")
    kept = [line for line in lines if not bad(line)]
    return text if len(kept) == len(lines) else "\n".join(kept).strip("\n")


class RepeatedLinesPass(Section):
    """Lines that stand in many documents of a source (or, where addresses are known, of a host): keys of lines are
    counted a shard and added up, and what is frequent is cut out.

    least: documents a line must stand in, and share: of the source's documents. entries: different lines that are
    counted at once; where there are more, those seen once are forgotten (a line of 10^7 documents may then be missed,
    none is cut out wrongly).
    """

    name: ClassVar[str] = "repeated_lines"
    least: int = Field(10, gt=1)
    share: float = Field(0.1, gt=0, le=1)
    entries: int = Field(4_000_000, gt=0)
    kind: Literal["repeated_lines"] = "repeated_lines"

    def build(self) -> Self:
        return self

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        counted, fresh = _Counts.empty(), list[npt.NDArray[np.uint64]]()
        waiting = 0
        for document in documents:
            keys = np.array(
                sorted({_key(document, None), *(_key(document, line) for line in _lines(document))}), np.uint64
            )
            fresh.append(keys)
            waiting += len(keys)
            if waiting > self.entries // 2:
                counted, fresh, waiting = counted.plus(_Counts.of(fresh)).within(self.entries), [], 0
        counted.plus(_Counts.of(fresh)).save(scratch / f"lines-{shard:05d}.npz")

    def merge(self, shards: int, scratch: Path) -> None:
        total = _Counts.empty()
        for shard in range(shards):
            total = total.plus(_Counts.load(scratch / f"lines-{shard:05d}.npz")).within(self.entries * 4)
        frequent = total.counts >= self.least
        _Counts(total.keys[frequent], total.counts[frequent]).save(scratch / "lines.npz")

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        frequent = _Counts.load(scratch / "lines.npz")
        count = dict(zip(frequent.keys.tolist(), frequent.counts.tolist(), strict=True))
        for document in documents:
            most = max(self.least, self.share * count.get(_key(document, None), 0))

            def bad(line: str, document: Document = document, most: float = most) -> bool:
                line = line.strip()
                return 0 < len(line) <= LONGEST and count.get(_key(document, line), 0) >= most

            yield _without(document, bad, self.name)


@dataclass(frozen=True)
class _Counts:
    """keys: uint64, ascending. counts: of each."""

    keys: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> _Counts:
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @classmethod
    def of(cls, keys: list[npt.NDArray[np.uint64]]) -> _Counts:
        return cls(*np.unique(np.concatenate(keys), return_counts=True)) if keys else cls.empty()

    def plus(self, other: _Counts) -> _Counts:
        keys, at = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.bincount(at, np.concatenate([self.counts, other.counts]), len(keys))
        return _Counts(keys, counts.astype(np.int64))

    def within(self, entries: int) -> _Counts:
        if len(self.keys) <= entries:
            return self
        kept = self.counts > 1
        return _Counts(self.keys[kept], self.counts[kept])

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, keys=self.keys, counts=self.counts)

    @classmethod
    def load(cls, path: Path) -> _Counts:
        with np.load(path, allow_pickle=False) as saved:
            return cls(saved["keys"], saved["counts"])


def _lines(document: Document) -> Iterator[str]:
    if document.is_conversation:
        return
    for segment in document.segments:
        for line in (segment.text or "").split("\n"):
            if 0 < len(found := line.strip()) <= LONGEST:
                yield found


def _key(document: Document, line: str | None) -> int:
    """Of a line of a source or host; of the source or host itself where line is None."""
    try:
        host = urlsplit(document.labels.get("url", "")).hostname or ""
    except ValueError:
        host = ""
    where = f"{document.source}\0{host}\0" if line is None else f"{document.source}\0{host}\0{line}\n"
    return int.from_bytes(blake2b(where.encode("utf-8", "replace"), digest_size=8).digest(), "big")
