"""Which shard keeps an image that documents of several shards show: the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foretell.data.collection.ids import mapped
from foretell.data.document import Document
from foretell.data.image_store import member_name
from foretell.files import atomic_path

_PARTS = 256


def survey(documents: Iterator[Document], shard: int, scratch: Path) -> None:
    """Note the images of a shard's documents: their hashes, sorted, each once."""
    hashes = {
        bytes.fromhex(member_name(segment.image)[:64])
        for document in documents
        for segment in document.segments
        if segment.image is not None
    }
    # Two numbers for one hash: numpy cuts zero bytes off the end of its own byte strings.
    table = np.array([_split(digest) for digest in sorted(hashes)], np.uint64).reshape(-1, 2)
    _save(scratch / "images" / f"{shard:05d}.npy", table)


def decide(shards: int, scratch: Path) -> None:
    """Give every image to the lowest shard that has it; by parts of the hashes, so that memory stays flat."""
    found = [mapped(scratch / "images" / f"{shard:05d}.npy") for shard in range(shards)]
    owners: list[list[NDArray[np.int32]]] = [[] for _ in found]
    edges = np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(56)
    bounds = [[0, *np.searchsorted(table[:, 0], edges).tolist(), len(table)] for table in found]
    for part in range(_PARTS):
        pieces = [table[b[part] : b[part + 1]] for table, b in zip(found, bounds, strict=True)]
        whole = np.concatenate(pieces)
        shard = np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece) for piece in pieces])
        order = np.lexsort((shard, whole[:, 1], whole[:, 0]))
        ordered = whole[order]
        first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)] if len(ordered) else np.empty(0, bool)
        owner = np.empty(len(whole), np.int32)
        owner[order] = shard[order][first][np.cumsum(first) - 1] if len(ordered) else owner
        at = 0
        for number, piece in enumerate(pieces):
            owners[number].append(owner[at : at + len(piece)])
            at += len(piece)
    for number, parts in enumerate(owners):
        _save(scratch / "images" / f"{number:05d}.owner.npy", np.concatenate(parts))


def owners(shard: int, scratch: Path) -> dict[tuple[int, int], int]:
    """First 16 bytes of an image's SHA-256, as two numbers → the shard that keeps it."""
    table = np.load(scratch / "images" / f"{shard:05d}.npy")
    owner = np.load(scratch / "images" / f"{shard:05d}.owner.npy")
    return {(int(a), int(b)): int(o) for (a, b), o in zip(table, owner, strict=True)}


def key(name: str) -> tuple[int, int]:
    return _split(bytes.fromhex(name[:32]))


def _split(digest: bytes) -> tuple[int, int]:
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:16])


def _save(path: Path, table: NDArray[np.uint64] | NDArray[np.int32]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, table)
