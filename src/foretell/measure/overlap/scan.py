"""Needles too short to hold a sampled gram: one pass over the text, in pieces, by a rare word of each needle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from foretell.measure.overlap.grams import SPAN, WORD, Bytes, Needles, Places, expand, words
from foretell.run import Report, silent

_AT_ONCE = 1 << 23  # bytes
_WIDTHS = (8, 4, 2, 1)  # of words
_TABLE = 16  # bits


class _Anchors:
    """Needles of some width or more, each by one word of it: that which the fewest other needles have.

    A word that is frequent among needles is frequent in texts ("Which of the following"), and would be tried in vain.
    value: sorted. offset, needle: of each value, where it stands in which needle.
    """

    def __init__(self, needles: Needles, which: Places, width: int) -> None:
        self.width = width
        of = words(needles.data, width=width)
        counts = needles.length[which] - width + 1
        rows = np.repeat(np.arange(len(which)), counts)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        values = of[needles.start[which][rows] + offsets]
        _, inverse, seen = np.unique(values, return_inverse=True, return_counts=True)
        order = np.lexsort((offsets, seen[inverse.ravel()], rows))
        best = order[np.concatenate(([True], rows[order][1:] != rows[order][:-1]))]
        best = best[np.argsort(values[best], kind="stable")]
        self.value, self.offset, self.needle = values[best], offsets[best], which[rows[best]]
        self._table = np.zeros(1 << _TABLE, np.bool_)
        self._table[self._hash(self.value)] = True

    def _hash(self, value: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
        if self.width <= 2:
            return value
        multiplier = np.array(0x9E3779B97F4A7C15 >> (64 - 8 * self.width) | 1, value.dtype)
        return (value * multiplier) >> np.array(8 * self.width - _TABLE, value.dtype)

    def search(self, text: Bytes, base: int, needles: Needles) -> None:
        for shift in range(self.width):
            value = words(text, shift, self.width, width=self.width)
            likely = np.flatnonzero(self._table[self._hash(value)])
            here = value[likely]
            low, high = np.searchsorted(self.value, here, "left"), np.searchsorted(self.value, here, "right")
            some = high > low
            begin, low, high = likely[some] * self.width + shift, low[some], high[some]
            for row, k in expand(low, high):
                needles.verify(text, begin[row] - self.offset[k], self.needle[k], base)


def scan(path: Path, needles: Needles, report: Report = silent) -> None:
    """Find where needles stand first in a file of normalised text, which ends in WORD bytes that are in no needle."""
    left = path.stat().st_size
    classes = np.zeros(len(needles), np.int64)
    for width in _WIDTHS:
        classes[(classes == 0) & (needles.length >= width)] = width
    anchors = [_Anchors(needles, np.flatnonzero(classes == w), w) for w in _WIDTHS if (classes == w).any()]
    before, base = b"", 0
    with path.open("rb") as stream:
        while held := stream.read(_AT_ONCE):
            left -= len(held)
            text: Bytes = np.frombuffer(before + held + (bytes(WORD) if left else b""), np.uint8)
            for anchor in anchors:
                anchor.search(text, base, needles)
            report("read through", base + len(text), base + len(text) + left)
            if (needles.found >= 0).all():
                return
            before = (before + held)[-(SPAN + WORD) :]
            base += len(text) - (WORD if left else 0) - len(before)
