"""Items that are looked for: random substrings of each, and a flag where any of them stands in the corpus."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from foretell.measure.overlap.index import Index, Place
from foretell.measure.overlap.normal import normalize
from foretell.run import Report, silent

LENGTH, COUNT = 50, 3  # characters; substrings of an item: the report's


@dataclass(frozen=True)
class Flag:
    """What was found of an item.

    characters: letters and digits it has; 0 cannot be looked for, and is never flagged. hit: the substring that
    stands in the corpus, and where: the document. None where none does.
    """

    id: str
    characters: int
    hit: str | None = None
    where: Place | None = None

    @property
    def contaminated(self) -> bool:
        return self.hit is not None


def substrings(text: str, id: str, count: int = COUNT, length: int = LENGTH, seed: int = 0) -> tuple[str, ...]:
    """Random substrings of a text that holds letters and digits only; all of it where it is no longer than `length`.

    Drawn without replacement, by seed and id alone, so that an item has the same ones among any others.
    """
    starts = len(text) - length + 1
    if starts <= 1:
        return (text,) if text else ()
    drawn = random.Random(f"{seed}/{id}").sample(range(starts), min(count, starts))
    return tuple(text[start : start + length] for start in drawn)


def check(
    index: Index,
    items: Mapping[str, str],
    *,
    count: int = COUNT,
    length: int = LENGTH,
    seed: int = 0,
    report: Report = silent,
) -> list[Flag]:
    """Flag the items of which any substring stands in a document of the corpus. items: text by id.

    count, length: of the substrings. Raises ValueError unless both are positive.
    Source: GPT-4 report (arXiv 2303.08774), appendix C.
    """
    if count < 1 or length < 1:
        raise ValueError(f"{count} substrings of {length} characters; expected at least one of one")
    texts = {id: normalize(text, index.ignore_case).decode() for id, text in items.items()}
    drawn = {id: substrings(text, id, count, length, seed) for id, text in texts.items()}
    needles = sorted({part.encode() for parts in drawn.values() for part in parts})
    found = dict(zip(needles, index.find(needles, report), strict=True))
    flags = []
    for id, parts in drawn.items():
        places = [(place, part) for part in parts if (place := found[part.encode()]) is not None]
        if places:
            place, part = min(places)
            flags.append(Flag(id, len(texts[id]), part, index.place(place)))
        else:
            flags.append(Flag(id, len(texts[id])))
    return flags
