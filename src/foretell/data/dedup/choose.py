"""From pairs of near duplicates to the documents that go, each with the one it is told to duplicate.

The pairs lie on disk in the order of the document that would go; of the documents a few bytes each are kept in a mapped
file, so that memory does not grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from foretell.data.dedup.base import removal, write_removals
from foretell.data.dedup.order import Ranks, counts, row_of, shard_of
from foretell.data.dedup.records import Records, groups, partitions

EDGE = np.dtype([("key", "<u8"), ("low", "<u8"), ("like", "<f4")])  # key: the higher rank


class Status:
    """A value for each document of a corpus, in a mapped file that is removed at the end."""

    def __init__(self, path: Path, sketches: Path, shards: int) -> None:
        self._path = path
        size = counts(sketches, shards)
        self._base = np.cumsum(size) - size
        self.total = int(size.sum())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._path.unlink(missing_ok=True)

    def array(self, dtype: Any) -> npt.NDArray[Any]:
        """Zeros, one for each document."""
        return np.memmap(self._path, dtype, "w+", shape=(max(1, self.total),))

    def at(self, ranks: Ranks) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self._base[shard_of(ranks)] + row_of(ranks)
        return found


def direct(runs: Sequence[Path], status: Status, out: Path) -> None:
    """In the order of ranks: a document goes if it is near to one that stays; the nearest of those is told."""
    known = status.array(np.uint8)
    goes = memoryview(known.data)
    for edges in partitions(runs, EDGE):
        low = status.at(edges["low"])
        # Ranks ascend, so that of the lower one of a pair all is known; a chain of any length takes one round.
        for node, below in zip(status.at(edges["key"]).tolist(), low.tolist(), strict=True):
            if not goes[below]:
                goes[node] = 1
        write_removals(out, _best(edges[known[low] == 0]))


def _best(edges: Records) -> Records:
    """Of each document that goes its most similar pair; of equals the first."""
    order = np.lexsort((edges["low"], -edges["like"], edges["key"]))
    edges = edges[order]
    first, _ = groups(edges, "key")
    return removal(edges["key"][first], edges["low"][first], edges["like"][first])


def chains(runs: Sequence[Path], status: Status, out: Path) -> None:
    """Of documents that are linked by pairs, however far, the first stays (connected components)."""
    parent = status.array(np.uint64)  # a rank at most a document's own, plus one; 0: its own
    for edges in partitions(runs, EDGE):
        a, b = edges["key"], edges["low"]
        while len(a):
            a, b = _root(parent, status, a), _root(parent, status, b)
            differ = a != b
            a, b = np.maximum(a[differ], b[differ]), np.minimum(a[differ], b[differ])
            at = status.at(a)
            order = np.lexsort((b, at))[::-1]  # of several values the last one, the least, stays
            parent[at[order]] = b[order] + np.uint64(1)
    for edges in partitions(runs, EDGE):
        first, _ = groups(edges, "key")
        node = edges["key"][first]
        root = _root(parent, status, node)
        moved = root != node
        write_removals(out, removal(node[moved], root[moved]))


def _root(parent: npt.NDArray[np.uint64], status: Status, ranks: Ranks) -> Ranks:
    found, at = ranks.copy(), status.at(ranks)
    left = np.arange(len(ranks))
    while len(left):
        above = parent[status.at(found[left])]
        left = left[above > 0]
        found[left] = above[above > 0] - np.uint64(1)
    moved = found != ranks
    parent[at[moved]] = found[moved] + np.uint64(1)  # next time in one step
    return found
