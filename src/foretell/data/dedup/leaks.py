"""An index of benchmark items, and where a text holds part of one: by n-grams of words, and by runs of letters.

Two rules. Of words: n in a row that stand in an item too (13 in GPT-3, appendix C). Of letters and digits: 50 in a row,
or the whole of an item that has fewer (GPT-4 report, appendix C). The report draws three stretches of an item; any
stretch counts here, so that `foretell contamination` finds none of the items in what is left, whatever its seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.data.dedup.benchmarks import Item
from foretell.data.dedup.words import Hashes, Places, finish, grams, words
from foretell.files import write_json
from foretell.measure.overlap import normalize
from foretell.measure.overlap.grams import GRAM, SPAN, STRIDE

COMMON = 50  # items that share a stretch: it is what is said around questions, and no question
_BASE = 0x9E3779B97F4A7C15  # odd
_AT_ONCE = 1 << 20  # bytes whose grams are looked up at once
_ENTRY = np.dtype([("hash", "<u8"), ("item", "<u4"), ("place", "<u4")])


@dataclass(frozen=True)
class Match:
    """What of an item stands in a text. rule: "words" or "letters". begin, end: its words, or bytes of the normal form
    (`foretell.measure.overlap.normalize`), in the text."""

    item: str
    rule: str
    begin: int
    end: int


def build(
    items: Iterable[Item], folder: Path, words_in_row: int, ignore_case: bool = False, shortest: int = SPAN
) -> dict[str, int]:
    """Write an index. shortest: letters of an item that is looked for by them.

    Returns counts: items, and those too short to be looked for by either rule.
    """
    ids, letters, starts = [], bytearray(), [0]
    by_words, by_letters = [], []
    short = 0
    for number, item in enumerate(items):
        normal = normalize(item.text, ignore_case)
        hashes = words(item.text)[0]
        ids.append(item.id.encode("utf-8", "replace").decode())
        found = grams(hashes, words_in_row) if words_in_row and len(hashes) >= words_in_row else hashes[:0]
        by_words.append(_entries(np.unique(found), number, 0))
        data = np.frombuffer(normal, np.uint8)
        places = np.arange(0, max(0, len(normal) - GRAM + 1) if _characters(data) >= shortest else 0, STRIDE)
        by_letters.append(_entries(byte_grams(data)[places], number, places))
        short += not len(found) and not len(places)
        letters += normal
        starts.append(len(letters))
    for name, entries in (("words", by_words), ("letters", by_letters)):
        held = np.concatenate(entries) if entries else np.zeros(0, _ENTRY)
        held = held[np.lexsort((held["place"], held["item"], held["hash"]))]
        _, group, many = np.unique(held["hash"], return_inverse=True, return_counts=True)
        held = held[many[group] <= COMMON] if len(held) else held
        _write(folder, name, held)
    (folder / "items.bin").write_bytes(bytes(letters))
    np.save(folder / "starts.npy", np.array(starts, np.uint64))
    counts = {"items": len(ids), "too_short": short}
    write_json(folder / "items.json", {**counts, "words": words_in_row, "ignore_case": ignore_case, "ids": ids})
    return counts


def _entries(hashes: Hashes, item: int, place: Any) -> npt.NDArray[Any]:
    made = np.empty(len(hashes), _ENTRY)
    made["hash"], made["item"], made["place"] = hashes, item, place
    return made


def _write(folder: Path, name: str, entries: npt.NDArray[Any]) -> None:
    """Columns of their own, so that each is mapped as it is used; and a table of bits that says no to nearly all."""
    bits = max(16, int(np.ceil(np.log2(16 * len(entries) + 1))))
    table = np.zeros(1 << (bits - 3), np.uint8)
    top = entries["hash"] >> np.uint64(64 - bits)
    np.bitwise_or.at(
        table, (top >> np.uint64(3)).astype(np.int64), np.uint8(1) << (top & np.uint64(7)).astype(np.uint8)
    )
    np.save(folder / f"{name}-table.npy", table)
    for column in _ENTRY.names or ():
        np.save(folder / f"{name}-{column}.npy", entries[column])


class Leaks:
    """An index, opened; its arrays are mapped, so that workers on one machine share them."""

    def __init__(self, folder: Path) -> None:
        import json

        about = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        self.ids: list[str] = about["ids"]
        self._words: int = about["words"]
        self._ignore_case: bool = about["ignore_case"]
        self._folder = folder
        self._by_words, self._by_letters = _Lookup(folder, "words"), _Lookup(folder, "letters")
        self._items = np.fromfile(folder / "items.bin", np.uint8)
        self._starts = np.load(folder / "starts.npy").astype(np.int64)

    def find(self, texts: list[str], *, first: bool = False) -> list[Match]:
        """Matches in a document given as its texts, which count as one; in the order of the rules and the text.

        first: stop at the first one.
        """
        found = self._find_words(texts)
        return found[:1] if first and found else [*found, *self._find_letters(texts, first)]

    def _find_words(self, texts: list[str]) -> list[Match]:
        if not self._words or not len(self._by_words.hashes):
            return []
        hashes = [words(text)[0] for text in texts]
        every = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        if len(every) < self._words:
            return []
        place, entry = self._by_words.look_up(grams(every, self._words))
        spans: dict[int, list[list[int]]] = {}
        for begin, item in zip(place.tolist(), self._by_words.item[entry].tolist(), strict=True):
            of = spans.setdefault(item, [])
            if of and begin <= of[-1][1]:
                of[-1][1] = begin + self._words
            else:
                of.append([begin, begin + self._words])
        told = sorted((begin, end, item) for item, of in spans.items() for begin, end in of)
        return [Match(self.ids[item], "words", begin, end) for begin, end, item in told]

    def _find_letters(self, texts: list[str], first: bool) -> list[Match]:
        text = np.frombuffer(b"".join(normalize(each, self._ignore_case) for each in texts), np.uint8)
        found: list[Match] = []
        past: dict[int, int] = {}  # of an item, the end of the last run that was found
        for base in range(0, max(0, len(text) - GRAM + 1), _AT_ONCE):
            places, entries = self._by_letters.look_up(byte_grams(text[base : base + _AT_ONCE + GRAM - 1]))
            items, offsets = self._by_letters.item[entries].tolist(), self._by_letters.place[entries].tolist()
            for place, item, offset in zip((places + base).tolist(), items, offsets, strict=True):
                if place < past.get(item, 0):
                    continue
                low, high = self._starts[item], self._starts[item + 1]
                back, on = _common(text, place, self._items[low:high], offset)
                if on - back >= GRAM and _characters(text[place + back : place + on]) >= min(
                    SPAN, _characters(self._items[low:high])
                ):
                    past[item] = place + on
                    found.append(Match(self.ids[item], "letters", place + back, place + on))
                    if first:
                        return found
        return found


def byte_grams(data: npt.NDArray[np.uint8]) -> Hashes:
    """Hashes of the GRAM bytes at every place."""
    if len(data) < GRAM:
        return np.zeros(0, np.uint64)
    if len(data) > _AT_ONCE + GRAM:
        cuts = range(0, len(data) - GRAM + 1, _AT_ONCE)
        return np.concatenate([byte_grams(data[cut : cut + _AT_ONCE + GRAM - 1]) for cut in cuts])
    values, powers, inverses = _byte_tables()
    summed = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(values[data] * powers[: len(data)], out=summed[1:])
    count = len(data) - GRAM + 1
    return finish((summed[GRAM:] - summed[:count]) * inverses[:count])


@lru_cache(1)
def _byte_tables() -> tuple[Hashes, Hashes, Hashes]:
    size = _AT_ONCE + GRAM
    rows = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        row = np.full(size, base, np.uint64)
        row[0] = 1
        rows.append(np.cumprod(row, dtype=np.uint64))
    return finish(np.arange(1, 257, dtype=np.uint64)), rows[0], rows[1]


class _Lookup:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def _column(self, name: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.load(self._folder / f"{self._name}-{name}.npy")
        return found if not len(found) else np.load(self._folder / f"{self._name}-{name}.npy", mmap_mode="r")

    @cached_property
    def table(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self._column("table"))

    @cached_property
    def hashes(self) -> Hashes:
        return self._column("hash")

    @cached_property
    def item(self) -> npt.NDArray[np.uint32]:
        return self._column("item")

    @cached_property
    def place(self) -> npt.NDArray[np.uint32]:
        return self._column("place")

    def look_up(self, asked: Hashes) -> tuple[Places, Places]:
        """(which of those asked, which entry) for every pair of equal hashes, in the order of those asked."""
        top = asked >> np.uint64(64 - (len(self.table).bit_length() - 1 + 3))
        bit = (self.table[(top >> np.uint64(3)).astype(np.int64)] >> (top & np.uint64(7)).astype(np.uint8)) & 1
        likely = np.flatnonzero(bit)
        low = np.searchsorted(self.hashes, asked[likely], "left")
        count = np.searchsorted(self.hashes, asked[likely], "right") - low
        which = np.repeat(np.arange(len(likely)), count)
        entry = low[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        return likely[which], entry


def _common(text: npt.NDArray[np.uint8], at: int, item: npt.NDArray[np.uint8], offset: int) -> tuple[int, int]:
    """How far the bytes before (a number below 0) and from these two places on are the same."""
    before, after = min(at, offset), min(len(text) - at, len(item) - offset)
    differ = np.flatnonzero(text[at : at + after] != item[offset : offset + after])
    on = int(differ[0]) if len(differ) else after
    differ = np.flatnonzero(text[at - before : at] != item[offset - before : offset])
    back = int(differ[-1]) + 1 - before if len(differ) else -before
    return back, on


def _characters(data: npt.NDArray[np.uint8]) -> int:
    return int(np.count_nonzero((data & 0xC0) != 0x80))
