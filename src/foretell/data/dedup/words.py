"""Words of a text as 64-bit hashes, and n-grams of them, without a Python loop over either.

A word is a run of letters and digits, lower-cased; marks on a letter go, and each character of a script that is written
without spaces (Han, kana, Thai, Lao, Khmer, Burmese) is a word. What stands between words says nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
_BLOCK = 1 << 19  # characters, each of which takes some 30 bytes here
_OTHER, _MARK, _WORD, _ALONE = 0, 1, 2, 3
_ALONE_RANGES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_GRAM_BASE = 0xC2B2AE3D27D4EB4F


def finish(values: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the value (the finalizer of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


def words(text: str) -> tuple[Hashes, Places, Places]:
    """Hashes of the words of a text, and the characters at which each begins and ends."""
    blocks = [_words(text[begin:end], begin) for begin, end in _blocks(text)]
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    hashes, starts, ends = zip(*blocks, strict=True)
    return np.concatenate(hashes), np.concatenate(starts), np.concatenate(ends)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Cut at spaces where there are some, by the text alone."""
    begin = 0
    while begin < len(text):
        end = min(len(text), begin + _BLOCK)
        if end < len(text):
            space = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
            end = space + 1 if space > begin else end
        yield begin, end
        begin = end


def _words(text: str, first: int) -> tuple[Hashes, Places, Places]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    kinds, folded = _tables()
    if text.isascii():
        kind, value = kinds[:128][codes], folded[:128][codes]
    else:
        kind, value = kinds[codes], folded[codes]
    inside = kind != _OTHER
    begins, ends = inside.copy(), inside.copy()
    begins[1:] &= ~inside[:-1]
    ends[:-1] &= ~inside[1:]
    alone = kind == _ALONE
    if alone.any():
        begins |= alone
        begins[1:] |= alone[:-1] & inside[1:] & (kind[1:] != _MARK)
        ends = inside.copy()
        ends[:-1] &= ~inside[1:] | begins[1:]
    starts, stops = np.flatnonzero(begins), np.flatnonzero(ends) + 1
    powers, inverses = _powers()
    value *= powers[: len(value)]
    summed = np.zeros(len(value) + 1, np.uint64)
    np.cumsum(value, out=summed[1:])
    hashes = finish((summed[stops] - summed[starts]) * inverses[starts])
    return hashes, starts + first, stops + first


@lru_cache(1)
def _powers() -> tuple[Hashes, Hashes]:
    """Powers of the base, and of its inverse, for the characters of a block."""
    inverse = pow(_BASE, -1, 1 << 64)
    made = []
    for base in (_BASE, inverse):
        row = np.full(_BLOCK, base, np.uint64)
        row[0] = 1
        made.append(np.cumprod(row, dtype=np.uint64))
    return made[0], made[1]


@lru_cache(1)
def _tables() -> tuple[npt.NDArray[np.uint8], Hashes]:
    """By code point: what it is, and a value that is the same for both cases and for a letter with marks.

    A letter that lower-cases or decomposes to several keeps the first; so a mark that was composed equals one that
    was not, whose own value is 0.
    """
    kinds = np.zeros(0x110000, np.uint8)
    values = np.arange(0x110000, dtype=np.uint64)
    for code in chain(range(0x3400), range(0x9FFF, 0x20000), range(0x2F800, 0x2FA20)):
        char = chr(code)
        if char.isalnum():
            kinds[code] = _WORD
            folded = unicodedata.normalize("NFKD", char.lower())[:1].lower() or char
            values[code] = ord(folded[0])
        elif unicodedata.category(char) == "Mn":
            kinds[code] = _MARK
    for low, high in _ALONE_RANGES:
        span = kinds[low : high + 1]
        # Ideographs, which no case or decomposition changes but where they are there for compatibility.
        span[:] = _ALONE if low in (0x3400, 0x4E00, 0x20000) else np.where(span == _WORD, _ALONE, span)
    mixed = finish(values + np.uint64(1))
    mixed[kinds == _MARK] = 0
    return kinds, mixed


def grams(hashes: Hashes, size: int) -> Hashes:
    """Hashes of every `size` words in a row; of all of them where there are fewer; none of none."""
    if not len(hashes):
        return hashes
    size = min(size, len(hashes))
    count = len(hashes) - size + 1
    total = np.zeros(count, np.uint64)
    for i in range(size):
        total *= np.uint64(_GRAM_BASE)
        total += hashes[i : i + count]
    return finish(total)


def document_grams(texts: Iterable[str], size: int) -> Hashes:
    """N-grams over the texts of a document, one after the other."""
    found = [words(text)[0] for text in texts]
    return grams(np.concatenate(found) if found else np.zeros(0, np.uint64), size)
