"""Fingerprints of a text at every STRIDE-th byte, and the comparison that makes a likely place a certain one.

A stretch of SPAN bytes or more holds one whole sampled gram, wherever it begins. So what shares no sampled gram with
the corpus is not in it, and what shares one is compared byte by byte there: hashes narrow the search, no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

GRAM, STRIDE = 24, 27  # bytes
SPAN = GRAM + STRIDE - 1  # 50, the length that the report looks for
WORD = 8
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD)  # odd, of no meaning

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]


def words(data: Bytes, first: int = 0, step: int = 1, count: int | None = None, width: int = WORD) -> npt.NDArray[Any]:
    """A view of the little-endian words of `width` bytes that begin at first, first + step, …; nothing is copied."""
    most = max(0, (len(data) - first - width) // step + 1)
    count = most if count is None else min(count, most)
    if not count:
        return np.zeros(0, f"<u{width}")
    return np.ndarray((count,), f"<u{width}", data, first, (step,))


def fingerprints(data: Bytes) -> Hashes:
    """Of the grams at bytes 0, STRIDE, 2 · STRIDE, … that lie within the data."""
    count = max(0, (len(data) - GRAM) // STRIDE + 1)
    return mix(*(words(data, WORD * i, STRIDE, count) for i in range(GRAM // WORD)))


def mix(*parts: npt.NDArray[np.uint64]) -> Hashes:
    """A hash of 32 bits of grams given as their words."""
    h = np.zeros(len(parts[0]), np.uint64)
    for part, multiplier in zip(parts, _MULTIPLIERS, strict=False):
        h += part * np.uint64(multiplier)
    h ^= h >> np.uint64(32)
    h *= np.uint64(_MULTIPLIERS[-1])
    return (h >> np.uint64(32)).astype(np.uint32)


class Needles:
    """Distinct byte strings that are looked for, end to end in one array, WORD bytes of zeros behind them.

    start, length: of each, int64. found: where it stands first in what was looked through; -1 as long as nowhere.
    """

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts
        self.length = np.fromiter(map(len, texts), np.int64, len(texts))
        self.start = np.cumsum(self.length) - self.length
        self.data: Bytes = np.frombuffer(b"".join(texts) + bytes(WORD), np.uint8)
        self.found: Places = np.full(len(texts), -1, np.int64)

    def __len__(self) -> int:
        return len(self.texts)

    def verify(self, text: Bytes, place: Places, needle: Places, base: int = 0) -> None:
        """Note of each needle the least place at which it really stands.

        text: WORD bytes longer than what is looked through. place: where in it each may begin, which may be outside.
        base: added to the places that are noted.
        """
        known = self.found[needle]
        useful = (known < 0) | (place + base < known)
        useful &= (place >= 0) & (place + self.length[needle] <= len(text) - WORD)
        place, needle = place[useful], needle[useful]
        theirs, ours = words(text), words(self.data)
        done = 0
        while len(place):
            left = self.length[needle] - done
            differ = theirs[place + done] ^ ours[self.start[needle] + done]
            partial = left < WORD
            differ[partial] &= (np.uint64(1) << (8 * left[partial]).astype(np.uint64)) - np.uint64(1)
            same = differ == 0
            over = same & (left <= WORD)
            if over.any():
                order = np.argsort(-place[over], kind="stable")  # of several values the last one stays
                self.found[needle[over][order]] = place[over][order] + base
            same &= left > WORD
            place, needle, done = place[same], needle[same], done + WORD


def expand(first: Places, last: Places, most: int = 1 << 20) -> Iterator[tuple[Places, Places]]:
    """Pairs (row, k) for every k in first[row] … last[row] − 1, in the order of rows, about `most` at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, "right")))
        rows = np.repeat(np.arange(begin, end), counts[begin:end])
        within = np.arange(len(rows)) - np.repeat(ends[begin:end] - counts[begin:end] - before, counts[begin:end])
        yield rows, first[rows] + within
        begin = end
