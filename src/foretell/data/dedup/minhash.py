"""MinHash signatures of a document's word n-grams, and the bands of them that near duplicates share.

Two documents agree in each hash with a chance that is the Jaccard similarity s of their sets of n-grams; so they share
one of b bands of r hashes with the chance 1 − (1 − s^r)^b.

Sources: Broder 1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.3-3.4 (bands); Li & König 2010 (a
byte of each hash in place of all of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from foretell.data.dedup.words import Hashes, finish

Signature = npt.NDArray[np.uint32]
_AT_ONCE = 2048  # n-grams, so that their products stay in a processor's cache
_BAND_BASE = np.uint64(0x165667B19E3779F9)
_CHANCE = 1 / 256  # that two bytes are the same though their hashes are not


@dataclass(frozen=True)
class MinHash:
    """words: of an n-gram. bands of rows hashes each. seed: of the hash functions."""

    words: int = 5
    bands: int = 32
    rows: int = 4
    seed: int = 1

    @property
    def hashes(self) -> int:
        return self.bands * self.rows

    def chance(self, similarity: float) -> float:
        """That two documents of this Jaccard similarity share a band, and so are compared."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def signature(self, grams: Hashes) -> Signature:
        """(hashes,) the least of each hash function over the n-grams. Raises ValueError for none of them."""
        if not len(grams):
            raise ValueError("no n-grams; a document without words has no signature")
        factors = _factors(self.hashes, self.seed)
        short = (grams >> np.uint64(32)).astype(np.uint32)
        least = np.full(self.hashes, 0xFFFFFFFF, np.uint32)
        for begin in range(0, len(short), _AT_ONCE):
            np.minimum(least, (factors * short[begin : begin + _AT_ONCE]).min(1), out=least)
        return least

    def band_keys(self, signatures: Signature) -> Hashes:
        """(n, hashes) -> (n, bands): equal where all hashes of a band are; different bands never meet but by chance."""
        cut = signatures.reshape(len(signatures), self.bands, self.rows).astype(np.uint64)
        keys = np.broadcast_to(np.arange(1, self.bands + 1, dtype=np.uint64), cut.shape[:2]).copy()
        for row in range(self.rows):
            keys = finish(keys * _BAND_BASE + cut[:, :, row])
        return keys


@lru_cache(4)
def _factors(count: int, seed: int) -> npt.NDArray[np.uint32]:
    """(count, 1) odd factors: x · a modulo 2^32 permutes what is hashed already."""
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, (count, 1), np.uint32)
    return drawn | np.uint32(1)


def sketch_bytes(signatures: Signature) -> npt.NDArray[np.uint8]:
    """A byte of each hash."""
    return ((signatures * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def likeness(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(n, hashes) bytes of two sides -> (n,) the Jaccard similarity they tell, unbiased.

    Its standard error is sqrt(s · (1 − s) / hashes), a little more for the bytes.
    """
    same = (a == b).mean(1, dtype=np.float32)
    found: npt.NDArray[np.float32] = ((same - _CHANCE) / (1 - _CHANCE)).astype(np.float32)
    return found
