"""Records with a 64-bit key, written as sorted runs and read back by ranges of the key, a bounded number at a time.

What a sort over a whole corpus would do, without ever holding it: each shard writes its own runs, and a merge reads of
every run the slice that belongs to one range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[np.void]  # structured; the first field is `key`, uint64
BUDGET = 64_000_000  # bytes of records that are held at once
_SAMPLES = 4096  # keys of a run from which ranges are chosen


class Runs:
    """Collects records and spills them, sorted by their fields, as files `<stem>-NNN.run` of a folder."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._held: list[Records] = []
        self._bytes = self._count = 0

    def add(self, records: Records) -> None:
        self._held.append(records)
        self._bytes += records.nbytes
        if self._bytes >= BUDGET // 2:
            self.flush()

    def flush(self) -> None:
        if self._bytes:
            records = np.concatenate(self._held)
            in_order(records).tofile(self._folder / f"{self._stem}-{self._count:03d}.run")
            self._count += 1
        self._held, self._bytes = [], 0


def make(dtype: np.dtype[np.void], **columns: Any) -> Records:
    """Records of columns of one length; a single value stands in every record."""
    count = next(len(column) for column in columns.values() if isinstance(column, np.ndarray))
    records = np.empty(count, dtype)
    for name, column in columns.items():
        records[name] = column
    return records


def in_order(records: Records) -> Records:
    """Sorted by the fields, the first one first; those that hold several values say nothing."""
    columns = [records[name] for name in reversed(records.dtype.names or ()) if records[name].ndim == 1]
    sorted_: Records = records[np.lexsort(columns)]
    return sorted_


def partitions(runs: Sequence[Path], dtype: np.dtype[np.void]) -> Iterator[Records]:
    """All records of sorted runs, in the order of their fields, as arrays of about BUDGET bytes.

    Records of one key are always in one array, however many they are.
    """
    runs = sorted(runs)
    sizes = [path.stat().st_size // dtype.itemsize for path in runs]
    bounds = _bounds(runs, sizes, dtype)
    begins = [0] * len(runs)
    for bound in bounds:
        pieces = []
        for i, (path, size) in enumerate(zip(runs, sizes, strict=True)):
            if begins[i] == size:
                continue
            with path.open("rb") as stream:
                end = size if bound is None else _bisect(stream, dtype, begins[i], size, bound)
                stream.seek(begins[i] * dtype.itemsize)
                pieces.append(np.fromfile(stream, dtype, end - begins[i]))
            begins[i] = end
        found = np.concatenate(pieces) if pieces else np.zeros(0, dtype)
        if len(found):
            yield in_order(found)


def _bounds(runs: Sequence[Path], sizes: list[int], dtype: np.dtype[np.void]) -> list[int | None]:
    """Keys at which ranges end, None for the last; chosen by evenly spaced keys of the runs."""
    total = sum(sizes)
    parts = -(-total * dtype.itemsize // BUDGET)
    if parts <= 1:
        return [None]
    every = max(1, total // max(_SAMPLES, 16 * parts))
    keys = []
    for path, size in zip(runs, sizes, strict=True):
        with path.open("rb") as stream:
            keys += [_key(stream, dtype, at) for at in range(every // 2, size, every)]
    keys.sort()
    chosen = {keys[len(keys) * i // parts] for i in range(1, parts)}
    return [*sorted(chosen), None]


def _bisect(stream: BinaryIO, dtype: np.dtype[np.void], low: int, high: int, bound: int) -> int:
    """The first record whose key is not below the bound."""
    while low < high:
        middle = (low + high) // 2
        if _key(stream, dtype, middle) < bound:
            low = middle + 1
        else:
            high = middle
    return low


def _key(stream: BinaryIO, dtype: np.dtype[np.void], at: int) -> int:
    stream.seek(at * dtype.itemsize)
    return int.from_bytes(stream.read(8), "little")


def groups(records: Records, *names: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of sorted records: where each group of equal fields begins, and of each record the number of its group."""
    new = np.ones(len(records), np.bool_)
    new[1:] = False
    for name in names:
        new[1:] |= records[name][1:] != records[name][:-1]
    return np.flatnonzero(new), np.cumsum(new) - 1
