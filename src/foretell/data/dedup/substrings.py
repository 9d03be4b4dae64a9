"""Repeated substrings: runs of words that stand earlier in the corpus are cut out of every later document.

Of each document hashes of some runs of words are kept, chosen by winnowing, so that any two equal runs of `words` words
share one of them wherever they begin; from there both are compared word by word, in files of the shards' words, as far
as they agree. What is cut stands word for word at an earlier place, and what stands first is never cut.

Sources: Lee et al. 2022 (Deduplicating training data makes language models better: exact substrings of 50 tokens);
Schleimer, Wilkerson & Aiken 2003 (winnowing).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.steps import Removed
from foretell.data.dedup.base import Keeping, applied, read_removals, write_removals
from foretell.data.dedup.order import Name, Ranks, numbered, rank_of, row_of, shard_of
from foretell.data.dedup.records import Records, Runs, groups, make, partitions
from foretell.data.dedup.words import Hashes, Places, finish, grams, words
from foretell.data.document import Document, Segment
from foretell.sections import Share

_RECORD = np.dtype([("key", "<u8"), ("rank", "<u8"), ("place", "<u4")])
_CUT = np.dtype([("key", "<u8"), ("kept", "<u8"), ("begin", "<u4"), ("end", "<u4")])
_PAIRS = 1 << 17  # compared at once
_MAPPED = 1000  # shards; a process may have some 65,000 files mapped
_STEP = 32  # words compared in a row


class SubstringsPass(Keeping):
    """Runs of words that stand earlier in the corpus.

    words: a run of so many words or more is cut. A document that loses `share` of its words or more goes as a
    whole, as does one without images that keeps fewer than `shortest` words. Conversations are left whole.
    """

    name: ClassVar[str] = "substrings"
    kind: Literal["substrings"] = "substrings"
    words: Annotated[int, Field(ge=10)] = 50
    share: Share = 0.8
    shortest: int = Field(20, ge=0)

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        with self.sketching(scratch, shard) as place:
            if place is None:
                return
            folder, names = place
            runs, starts = Runs(folder, "grams"), [0]
            with (folder / "words.u4").open("wb") as stream:
                for row, document in numbered(documents, names):
                    hashes = _document_words(document)
                    stream.write((hashes >> np.uint64(32)).astype("<u4").tobytes())
                    starts.append(starts[-1] + len(hashes))
                    if len(hashes) >= self.words:
                        size = self.words // 2
                        keys = grams(hashes, size)
                        chosen = winnow(keys, self.words - size + 1)
                        rank = rank_of(document.source, shard, row, self.keep)
                        runs.add(make(_RECORD, key=keys[chosen], rank=rank, place=chosen))
            np.array(starts, np.uint64).tofile(folder / "words.idx")
            runs.flush()

    def merge(self, shards: int, scratch: Path) -> None:
        with self.merging(scratch) as folder:
            if folder is None:
                return
            held = _Words(self.sketches(scratch), self.words)
            for records in partitions(self.runs(scratch, shards, "grams"), _RECORD):
                first, group = groups(records, "key")
                later = np.flatnonzero(first[group] != np.arange(len(records)))
                for begin in range(0, len(later), _PAIRS):
                    part = later[begin : begin + _PAIRS]
                    write_removals(folder, held.agreeing(records[part], records[first[group[part]]]))

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        cuts = read_removals(self.merged(scratch), shard, _CUT)
        return applied(documents, self.sketches(scratch), shard, cuts, self._cut)

    def _cut(self, document: Document, cuts: Records, names: dict[int, Name]) -> Document | Removed:
        begins, ends = cuts["begin"].astype(np.int64), cuts["end"].astype(np.int64)
        spans = merged_spans(begins, ends)
        longest = cuts["kept"][np.lexsort((cuts["kept"], begins - ends))][0]
        total = int(np.count_nonzero(_document_words(document)))
        gone = sum(end - begin for begin, end in spans)
        detail = f"{gone} of {total} words stand earlier, most of them in {names[int(longest)]}"
        pictured = any(segment.image is not None for segment in document.segments)
        if gone >= self.share * total or (total - gone < self.shortest and not pictured):
            return Removed(document.id, "dedup.substrings", detail, document.labels.get("locator", ""))
        segments, base = list[Segment](), 0
        for segment in document.segments:
            if not segment.text:
                segments.append(segment)
                continue
            _, starts, ends = words(segment.text)
            pieces, at = [], 0
            for begin, end in spans:
                low, high = max(begin - base, 0), min(end - base, len(starts))
                if low < high:
                    pieces.append(segment.text[at : starts[low]])
                    at = int(ends[high - 1])
            base += len(starts) + 1
            text = "".join([*pieces, segment.text[at:]]) if at else segment.text
            if text.strip():
                segments.append(replace(segment, text=text))
        labels = {**document.labels, "dedup.substrings": detail}
        return replace(document, segments=tuple(segments), labels=labels)


def _document_words(document: Document) -> Hashes:
    """Word hashes of all texts, with a barrier of 0 behind each, which equals nothing; none of a conversation."""
    if document.is_conversation:
        return np.zeros(0, np.uint64)
    found = [np.append(words(s.text)[0], np.uint64(0)) for s in document.segments if s.text]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def winnow(keys: Hashes, window: int) -> Places:
    """Of every `window` keys in a row the place of the least, the last of equals; each place once, in order."""
    if len(keys) < window:
        return np.zeros(0, np.int64)
    # Hashed anew, since what is least should not be a matter of the keys by which records are sorted.
    least = finish(keys + np.uint64(1))
    view = np.lib.stride_tricks.sliding_window_view(least[::-1], window)
    chosen = view.argmin(1) + np.arange(len(view))
    return np.unique(len(keys) - 1 - chosen)


def merged_spans(begins: Places, ends: Places) -> list[tuple[int, int]]:
    """Spans that meet or overlap as one, in order."""
    spans: list[list[int]] = []
    for begin, end in sorted(zip(begins.tolist(), ends.tolist(), strict=True)):
        if spans and begin <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([begin, end])
    return [(begin, end) for begin, end in spans]


class _Words:
    """The words of documents by rank, read from the shards' files."""

    def __init__(self, sketches: Path, least: int) -> None:
        self._sketches, self._least = sketches, least
        self._mapped: dict[int, tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]] = {}

    def agreeing(self, later: Records, earlier: Records) -> Records:
        """How far the words around a shared run agree; runs shorter than `least` are left out. Each cut once."""
        of_later, of_earlier = shard_of(later["rank"]), shard_of(earlier["rank"])
        order = np.lexsort((of_earlier, of_later))
        pairs = np.stack([of_later, of_earlier], 1)[order]
        begins = np.flatnonzero((pairs[1:] != pairs[:-1]).any(1)) + 1
        found = [
            self._agreeing(later[here], earlier[here], int(of_later[here[0]]), int(of_earlier[here[0]]))
            for here in np.split(order, begins)
        ]
        return np.unique(np.concatenate(found))

    def _agreeing(self, later: Records, earlier: Records, of_later: int, of_earlier: int) -> Records:
        theirs, starts, limits = self._open(of_earlier, earlier["rank"])
        ours, begins, ends = self._open(of_later, later["rank"])
        a, b = begins + later["place"], starts + earlier["place"]
        on = _extend(ours, a, ends, theirs, b, limits, 1)
        back = _extend(ours, a - 1, begins - 1, theirs, b - 1, starts - 1, -1)
        # In a text that repeats itself the earlier run may reach into the later one; what stands first stays.
        same = later["rank"] == earlier["rank"]
        long = (on + back >= self._least) & (~same | (a > b))
        begin, end = (a - back - begins)[long], (a + on - begins)[long]
        return make(_CUT, key=later["rank"][long], kept=earlier["rank"][long], begin=begin, end=end)

    def _open(self, shard: int, ranks: Ranks) -> tuple[npt.NDArray[np.uint32], Places, Places]:
        if shard not in self._mapped:
            if len(self._mapped) == _MAPPED:
                self._mapped.clear()
            folder = self._sketches / f"{shard:05d}"
            self._mapped[shard] = (
                np.memmap(folder / "words.u4", "<u4", "r"),
                np.memmap(folder / "words.idx", "<u8", "r"),
            )
        held, starts = self._mapped[shard]
        rows = row_of(ranks)
        return held, starts[rows].astype(np.int64), starts[rows + 1].astype(np.int64)


def _extend(
    ours: npt.NDArray[np.uint32], a: Places, a_end: Places, theirs: npt.NDArray[np.uint32], b: Places, b_end: Places,
    way: int,
) -> Places:  # fmt: skip
    """How many words agree from places a and b on, in the direction `way`, before the ends (which are outside)."""
    room = np.minimum((a_end - a) * way, (b_end - b) * way)
    found = np.zeros(len(a), np.int64)
    left = np.flatnonzero(room > 0)
    step = np.arange(_STEP)
    while len(left):
        inside = step[None, :] < (room[left] - found[left])[:, None]
        reach = np.where(inside, found[left][:, None] + step[None, :], 0) * way
        mine = ours[a[left][:, None] + reach]
        agree = inside & (mine == theirs[b[left][:, None] + reach]) & (mine != 0)
        count = np.where(agree.all(1), _STEP, agree.argmin(1))
        found[left] += count
        left = left[(count == _STEP) & (room[left] > found[left])]
    return found
