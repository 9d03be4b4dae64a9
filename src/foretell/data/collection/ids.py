"""The pass that makes ids unique, so that `why` and `remove` name one document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foretell.data.curate.steps import Removed
from foretell.data.dedup.base import read_removals, write_removals
from foretell.data.dedup.order import row_of
from foretell.data.dedup.records import Runs, groups, make, partitions
from foretell.data.document import Document
from foretell.files import atomic_folder

_RECORD = np.dtype([("key", "<u8"), ("rank", "<u8")])
_NUMBERED = re.compile(r"~\d+\Z")
_AGAIN = np.dtype([("key", "<u8"), ("count", "<u4")])  # key: rank of what is named anew


@dataclass(frozen=True)
class UniqueIds:
    """The second document of an id and source becomes `id~2`, the third `id~3`, in the order of the shards.

    One whose id ends so as it comes becomes `id~1`, since it would be taken for another's second.
    """

    name: str = "ids"

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        with atomic_folder(scratch / f"{shard:05d}") as folder:
            runs, keys = Runs(folder, "ids"), np.fromiter(map(_key, documents), np.uint64)
            runs.add(make(_RECORD, key=keys, rank=np.arange(len(keys), dtype=np.uint64) + np.uint64(shard << 32)))
            runs.flush()

    def merge(self, shards: int, scratch: Path) -> None:
        runs = [run for shard in range(shards) for run in sorted((scratch / f"{shard:05d}").glob("ids-*.run"))]
        with atomic_folder(scratch / "merged") as folder:
            for records in partitions(runs, _RECORD):
                first, group = groups(records, "key")
                count = np.arange(len(records)) - first[group] + 1
                write_removals(folder, make(_AGAIN, key=records["rank"], count=count)[count > 1])

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        again = read_removals(scratch / "merged", shard, _AGAIN)
        counts = dict(zip(row_of(again["key"]).tolist(), again["count"].tolist(), strict=True))
        for place, document in enumerate(documents):
            count = counts.get(place, 1)
            plain = count == 1 and not _NUMBERED.search(document.id)
            yield document if plain else replace(document, id=f"{document.id}~{count}")


def _key(document: Document) -> int:
    name = f"{document.source}\0{document.id}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
