"""Near duplicates: documents most of whose word n-grams are the same, by MinHash and locality-sensitive hashing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.steps import Removed
from foretell.data.dedup.base import Keeping, without
from foretell.data.dedup.choose import EDGE, Status, chains, direct
from foretell.data.dedup.minhash import MinHash, Signature, likeness, sketch_bytes
from foretell.data.dedup.order import Ranks, numbered, rank_of, row_of, shard_of, text_segments
from foretell.data.dedup.records import Records, Runs, groups, make, partitions
from foretell.data.dedup.words import document_grams
from foretell.data.document import Document
from foretell.sections import Positive, Share

_RECORD = np.dtype([("key", "<u8"), ("rank", "<u8")])
_AT_ONCE = 1 << 12  # documents whose signatures are held
_WORDLESS = (1 << 64) - 1  # in place of a rank
_BEFORE = 8  # documents of a bucket, just before one in rank, that it is compared with, beside the first of all
_PAIRS = 1 << 18  # compared at once


class NearPass(Keeping):
    """Documents most of whose n-grams of words are the same.

    similarity: Jaccard's, as the signatures tell it, from which documents are near duplicates; 0 takes what shares
    a band unseen, as datatrove does. chains: of documents that are linked one by one only the first stays, though it
    may be unlike the last; otherwise each that goes is near to one that stays. words, bands, rows, seed: see `MinHash`.
    """

    name: ClassVar[str] = "near"
    kind: Literal["near"] = "near"
    similarity: Share = 0.5
    chains: bool = False
    words: Positive = MinHash.words
    bands: Positive = MinHash.bands
    rows: Positive = MinHash.rows
    seed: int = Field(MinHash.seed, ge=0)

    @property
    def minhash(self) -> MinHash:
        return MinHash(self.words, self.bands, self.rows, self.seed)

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        with self.sketching(scratch, shard) as place:
            if place is None:
                return
            folder, names = place
            runs, minhash = Runs(folder, "bands"), self.minhash
            with (folder / "signatures.u8").open("wb") as stream:
                found, ranks = list[Signature](), list[int]()

                def spill() -> None:
                    signatures, keyed = np.stack(found), np.array(ranks, np.uint64)
                    sketch_bytes(signatures).tofile(stream)
                    keys = minhash.band_keys(signatures[keyed != _WORDLESS])
                    each = np.repeat(keyed[keyed != _WORDLESS], self.bands)
                    runs.add(make(_RECORD, key=keys.ravel(), rank=each))
                    found.clear()
                    ranks.clear()

                for row, document in numbered(documents, names):
                    grams = document_grams(text_segments(document), self.words)
                    # Without words it is near to nothing, but has its place among the signatures.
                    found.append(minhash.signature(grams) if len(grams) else np.zeros(minhash.hashes, "u4"))
                    ranks.append(rank_of(document.source, shard, row, self.keep) if len(grams) else _WORDLESS)
                    if len(found) == _AT_ONCE:
                        spill()
                if found:
                    spill()
            runs.flush()

    def merge(self, shards: int, scratch: Path) -> None:
        with self.merging(scratch) as folder:
            if folder is None:
                return
            signatures = _Signatures(self.sketches(scratch), self.minhash.hashes)
            edges = Runs(folder, "edges")
            for records in partitions(self.runs(scratch, shards, "bands"), _RECORD):
                for high, low in _pairs(records):
                    like = signatures.likeness(high, low) if self.similarity else np.ones(len(high), np.float32)
                    near = like >= self.similarity
                    edges.add(make(EDGE, key=high[near], low=low[near], like=like[near]))
            edges.flush()
            written = sorted(folder.glob("edges-*.run"))
            with Status(folder / "status.bin", self.sketches(scratch), shards) as status:
                (chains if self.chains else direct)(written, status, folder)
            for path in written:
                path.unlink()

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        merged = self.merged(scratch)
        told = "linked to" if self.chains else "{likeness:.2f} like"
        return without(documents, self.sketches(scratch), merged, shard, "dedup.near", told)


def _pairs(records: Records) -> Iterator[tuple[Ranks, Ranks]]:
    """Distinct pairs (higher, lower rank) of documents that share a key."""
    first, group = groups(records, "key")
    many = np.bincount(group, minlength=len(first))[group] > 1
    place, rank = np.flatnonzero(many), records["rank"]
    for begin in range(0, len(place), _PAIRS):
        here = place[begin : begin + _PAIRS]
        pairs = [(here, first[group[here]])]
        for back in range(1, _BEFORE + 1):
            fits = here - back >= first[group[here]]
            pairs.append((here[fits], here[fits] - back))
        found = np.stack([rank[np.concatenate([pair[i] for pair in pairs])] for i in (0, 1)], 1)
        found = np.unique(found[found[:, 0] != found[:, 1]], axis=0)
        if len(found):
            yield found[:, 0].copy(), found[:, 1].copy()


class _Signatures:
    """Signatures of documents by rank, read from the shards' files."""

    def __init__(self, sketches: Path, hashes: int) -> None:
        self._sketches, self._hashes = sketches, hashes

    def likeness(self, high: Ranks, low: Ranks) -> npt.NDArray[np.float32]:
        found = np.empty(len(high), np.float32)
        for begin in range(0, len(high), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            ranks, at = np.unique(np.concatenate((high[part], low[part])), return_inverse=True)
            signatures = self._read(ranks)
            half = len(at) // 2
            found[part] = likeness(signatures[at[:half]], signatures[at[half:]])
        return found

    def _read(self, ranks: Ranks) -> npt.NDArray[np.uint8]:
        found = np.empty((len(ranks), self._hashes), np.uint8)
        shards, rows = shard_of(ranks), row_of(ranks)
        for shard in np.unique(shards).tolist():
            here = shards == shard
            held = np.memmap(self._sketches / f"{shard:05d}" / "signatures.u8", np.uint8, "r")
            found[here] = held.reshape(-1, self._hashes)[rows[here]]
        return found
