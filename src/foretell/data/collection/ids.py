"""The pass that makes ids unique, so that `why` and `remove` name one document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.files import atomic_path

_RECORD = np.dtype([("key", "<u8"), ("place", "<u4")])
_FOUND = np.dtype([("place", "<u4"), ("count", "<u4")])
_SMALL = 1 << 16
_PARTS = 256  # of the keys, merged one after the other, so that memory stays flat


@dataclass(frozen=True)
class UniqueIds:
    """The second document of an id and source becomes `id~2`, the third `id~3`, in the order of the shards."""

    name: str = "ids"

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        keys = np.fromiter(map(_key, documents), np.uint64)
        records = np.empty(len(keys), _RECORD)
        records["key"], records["place"] = keys, np.arange(len(keys))
        _save(scratch / f"{shard:05d}.npy", np.sort(records, order=["key", "place"]))

    def merge(self, shards: int, scratch: Path) -> None:
        sketches = [mapped(scratch / f"{shard:05d}.npy") for shard in range(shards)]
        found: list[list[NDArray[np.void]]] = [[] for _ in sketches]
        edges = np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(56)
        bounds = [[0, *np.searchsorted(s["key"], edges).tolist(), len(s)] for s in sketches]
        for part in range(_PARTS):
            pieces = [s[b[part] : b[part + 1]] for s, b in zip(sketches, bounds, strict=True)]
            keys = np.concatenate([piece["key"] for piece in pieces])
            order = np.argsort(keys, kind="stable")  # within a key: by shard, then by place
            ordered = keys[order]
            starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.array([], int)
            if len(starts) == len(ordered):
                continue
            count = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)])) + 1
            shard = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])[order]
            place = np.concatenate([piece["place"] for piece in pieces])[order]
            for number in np.unique(shard[count > 1]):
                mine = (shard == number) & (count > 1)
                record = np.empty(mine.sum(), _FOUND)
                record["place"], record["count"] = place[mine], count[mine]
                found[number].append(record)
        for number, records in enumerate(found):
            whole = np.concatenate(records) if records else np.empty(0, _FOUND)
            _save(scratch / f"{number:05d}.twice.npy", np.sort(whole, order="place"))

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        twice = np.load(scratch / f"{shard:05d}.twice.npy")
        counts = dict(zip(twice["place"].tolist(), twice["count"].tolist(), strict=True))
        for place, document in enumerate(documents):
            count = counts.get(place)
            yield document if count is None else replace(document, id=f"{document.id}~{count}")


def _key(document: Document) -> int:
    name = f"{document.source}\0{document.id}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())


def mapped(path: Path) -> NDArray[Any]:
    """An array on the disk; what is small (an empty one cannot be mapped) is read."""
    return np.load(path, mmap_mode="r" if path.stat().st_size > _SMALL else None)  # type: ignore[no-any-return]


def _save(path: Path, records: NDArray[np.void]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, records)
