"""Which shard keeps an image that documents of several shards show: the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foretell.data.dedup.base import read_removals, write_removals
from foretell.data.dedup.order import shard_of
from foretell.data.dedup.records import Runs, groups, make, partitions
from foretell.data.document import Document
from foretell.data.image_store import member_name
from foretell.files import atomic_folder

_RECORD = np.dtype([("key", "<u8"), ("rest", "<u8"), ("rank", "<u8")])  # 16 bytes of the hash; rank: of the shard
_OWNED = np.dtype([("key", "<u8"), ("first", "<u8"), ("rest", "<u8"), ("owner", "<u4")])  # key: rank of the shard


def survey(documents: Iterator[Document], shard: int, scratch: Path) -> None:
    """Note the images of a shard's documents: their hashes, each once."""
    hashes = {
        key(member_name(segment.image))
        for document in documents
        for segment in document.segments
        if segment.image is not None
    }
    # Two numbers for one hash: numpy cuts zero bytes off the end of its own byte strings.
    table = np.array(sorted(hashes), np.uint64).reshape(-1, 2)
    with atomic_folder(scratch / "images" / f"{shard:05d}") as folder:
        runs = Runs(folder, "images")
        runs.add(make(_RECORD, key=table[:, 0], rest=table[:, 1], rank=shard << 32))
        runs.flush()


def decide(shards: int, scratch: Path) -> None:
    """Give every image to the lowest shard that has it."""
    place = scratch / "images"
    runs = [run for shard in range(shards) for run in sorted((place / f"{shard:05d}").glob("images-*.run"))]
    with atomic_folder(place / "owners") as folder:
        for records in partitions(runs, _RECORD):
            first, group = groups(records, "key", "rest")
            owner = shard_of(records["rank"][first])[group]
            write_removals(
                folder, make(_OWNED, key=records["rank"], first=records["key"], rest=records["rest"], owner=owner)
            )


def owners(shard: int, scratch: Path) -> dict[tuple[int, int], int]:
    """First 16 bytes of an image's SHA-256, as two numbers → the shard that keeps it."""
    found = read_removals(scratch / "images" / "owners", shard, _OWNED)
    return {(first, rest): owner for _, first, rest, owner in found.tolist()}


def key(name: str) -> tuple[int, int]:
    digest = bytes.fromhex(name[:32])
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
