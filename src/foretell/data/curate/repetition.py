"""Which of Gopher's rules against repeated n-grams a text may break: a bound on each count, all words at once.

datatrove's filter builds every n-gram as a string, nine times over. Most texts are far from every limit, and sorted
hashes show it: what all n-grams take that stood before, overlapping or not, is never less than what datatrove counts.
It then counts what is left, which decides; so the verdict and its reason are always its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Limits = tuple[tuple[int, float], ...]
"""(n, the share of a text's characters above which a rule removes it)"""
_BASE = 0x9E3779B97F4A7C15  # odd, and nothing else
_MASK = (1 << 64) - 1
_LONGEST = 200  # characters of a word; a text with a longer one is left to datatrove
_LENGTH = 20  # bits of a key that hold the n-gram's characters; the others hold its hash


def in_doubt(words: Sequence[str], characters: int, top: Limits, duplicated: Limits) -> tuple[Limits, Limits]:
    """The limits that a text of these words and so many characters may break, of those on its commonest n-gram (`top`)
    and on n-grams that stand twice.

    Equal n-grams have equal hashes, so that a bound can be too high by chance, but not too low. datatrove joins the
    words of the commonest n-gram by spaces; where a word holds one itself, nothing is said of those.
    """
    sizes = lengths = np.fromiter(map(len, words), np.int64, len(words))
    most = max((n for n, _ in (*top, *duplicated)), default=0)
    if not len(words) or lengths.max() > _LONGEST or most * _LONGEST >> _LENGTH:
        return top, duplicated
    hashes = each = np.fromiter(map(_hash, words), np.uint64, len(words))
    powers = _powers()[lengths]
    commonest, repeated = dict[int, float](), dict[int, float]()
    for n in range(1, min(most, len(words)) + 1):
        if n > 1:
            hashes = hashes[:-1] * powers[n - 1 :] + each[n - 1 :]
            sizes = sizes[:-1] + lengths[n - 1 :]
        asked = any(n == m for m, _ in top), any(n == m for m, _ in duplicated)
        if not any(asked):
            continue
        keys = hashes >> np.uint64(_LENGTH) << np.uint64(_LENGTH) | sizes.astype(np.uint64)
        ordered = np.sort(keys)
        again = ordered[1:] == ordered[:-1]
        if asked[0]:
            ends = np.concatenate((np.flatnonzero(~again), [len(keys) - 1]))
            count = ends - np.concatenate(([-1], ends[:-1]))
            commonest[n] = int((count * (_size(ordered[ends]) + n - 1)).max()) / characters
        if asked[1]:
            repeated[n] = int(_size(ordered[1:][again]).sum()) / characters
            if any(n == m and repeated[n] > share for m, share in duplicated):
                repeated[n] = _covered(keys, ordered[1:][again], n, lengths) / characters
    spaced = " " in "".join(words)
    return (
        tuple((n, share) for n, share in top if spaced or commonest.get(n, 0) > share),
        tuple((n, share) for n, share in duplicated if repeated.get(n, 0) > share),
    )


def _covered(keys: Keys, twice: Keys, n: int, lengths: npt.NDArray[np.int64]) -> int:
    """Characters of the words in n-grams that stood before: what overlaps counts once, so that it is a closer bound.

    twice: sorted, the keys that come more than once.
    """
    at = np.flatnonzero(twice[np.minimum(np.searchsorted(twice, keys), len(twice) - 1)] == keys)
    order = at[np.argsort(keys[at])]
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    edges = np.zeros(len(lengths) + 1, np.int64)
    edges[at] += 1
    edges[np.minimum.reduceat(order, first)] -= 1
    later = np.flatnonzero(edges)
    edges[later + n] -= 1
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())


def _size(keys: Keys) -> npt.NDArray[np.int64]:
    return (keys & np.uint64((1 << _LENGTH) - 1)).astype(np.int64)


@lru_cache(1 << 16)
def _hash(word: str) -> int:
    """A polynomial in the base, so that the hash of words joined follows from theirs and their lengths."""
    value = 0
    for char in word:
        value = (value * _BASE + ord(char) + 1) & _MASK
    return value


@lru_cache(1)
def _powers() -> npt.NDArray[np.uint64]:
    row = np.full(_LONGEST + 1, _BASE, np.uint64)
    row[0] = 1
    return np.cumprod(row, dtype=np.uint64)
