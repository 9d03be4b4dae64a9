"""Exact duplicates: documents of the same text, roles and images, whatever their white space."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from foretell.data.curate.steps import Removed
from foretell.data.dedup.base import Keeping, removal, without, write_removals
from foretell.data.dedup.order import numbered, rank_of
from foretell.data.dedup.records import Runs, groups, partitions
from foretell.data.document import Document

_RECORD = np.dtype([("key", "<u8"), ("check", "<u8"), ("rank", "<u8")])
_AT_ONCE = 1 << 16


class ExactPass(Keeping):
    """Documents of the same text, roles and images."""

    name: ClassVar[str] = "exact"
    kind: Literal["exact"] = "exact"

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        with self.sketching(scratch, shard) as place:
            if place is None:
                return
            runs, held = Runs(place[0], "hashes"), list[tuple[int, int, int]]()
            for row, document in numbered(documents, place[1]):
                key = document_digest(document)
                rank = rank_of(document.source, shard, row, self.keep)
                held.append((int.from_bytes(key[:8]), int.from_bytes(key[8:]), rank))
                if len(held) == _AT_ONCE:
                    runs.add(np.array(held, _RECORD))
                    held = []
            if held:
                runs.add(np.array(held, _RECORD))
            runs.flush()

    def merge(self, shards: int, scratch: Path) -> None:
        with self.merging(scratch) as folder:
            if folder is None:
                return
            for records in partitions(self.runs(scratch, shards, "hashes"), _RECORD):
                first, group = groups(records, "key", "check")
                kept = records["rank"][first][group]
                goes = records["rank"] != kept
                write_removals(folder, removal(records["rank"][goes], kept[goes]))

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        merged = self.merged(scratch)
        return without(documents, self.sketches(scratch), merged, shard, "dedup.exact", "the same as")


def document_digest(document: Document) -> bytes:
    """16 bytes by which documents are the same: the text in NFC with white space as single spaces, turn by turn in a
    conversation, and the bytes of images where they stand."""
    found = hashlib.blake2b(digest_size=16)
    role = None
    for segment in document.segments:
        if segment.role != role:
            role = segment.role
            found.update(b"\0role " + str(role).encode())
        if segment.image is not None:
            found.update(b"\0image " + hashlib.blake2b(segment.image, digest_size=16).digest())
        elif segment.text:
            text = segment.text if segment.text.isascii() else unicodedata.normalize("NFC", segment.text)
            if told := " ".join(text.split()):
                found.update(b" " + told.encode("utf-8", "replace"))
    return found.digest()
