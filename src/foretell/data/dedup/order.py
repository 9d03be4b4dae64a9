"""Which copy is kept: a rank for every document, smallest first, that does not depend on who does the work.

A rank is 8 bits of the source's place in the keep order, 24 of the shard, 32 of the place in the shard. Shards are
numbered in the order of the recipe's sources and their files, so that without a keep order of its own the first source
keeps its copy, and within a source the first locator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foretell.data.document import Document
from foretell.errors import DataError

Ranks = npt.NDArray[np.uint64]
_SHARD, _ROW = 24, 32
_LAST = 255  # of sources that the keep order does not name


def rank_of(source: str, shard: int, row: int, keep: Sequence[str] = ()) -> int:
    """Raises DataError past 2^24 shards or 2^32 documents of one."""
    if shard >> _SHARD or row >> _ROW:
        raise DataError(
            f"Shard {shard}, document {row}: there may be {1 << _SHARD:,} shards of {1 << _ROW:,} documents. "
            "Curate the sources in several parts."
        )
    place = keep.index(source) if source in keep else _LAST
    return place << (_SHARD + _ROW) | shard << _ROW | row


def shard_of(ranks: Ranks) -> npt.NDArray[np.int64]:
    return ((ranks >> np.uint64(_ROW)) & np.uint64((1 << _SHARD) - 1)).astype(np.int64)


def row_of(ranks: Ranks) -> npt.NDArray[np.int64]:
    return (ranks & np.uint64((1 << _ROW) - 1)).astype(np.int64)


def text_segments(document: Document) -> list[str]:
    return [segment.text for segment in document.segments if segment.text]


@dataclass(frozen=True)
class Name:
    """How a document is told of."""

    id: str
    source: str
    locator: str

    def __str__(self) -> str:
        return f"{self.source}/{self.id}" + (f" ({self.locator})" if self.locator else "")


def name_of(document: Document) -> Name:
    return Name(document.id, document.source, document.labels.get("locator", ""))


class NameWriter:
    """Names of a shard's documents in their order, as `names.bin` and `names.idx` (uint64, where each begins)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream = (folder / "names.bin").open("wb")
        self._starts = [0]

    def add(self, document: Document) -> None:
        name = name_of(document)
        told = "\0".join((name.id, name.source, name.locator)).encode("utf-8", "replace")
        self._starts.append(self._starts[-1] + self._stream.write(told))

    def close(self) -> None:
        self._stream.close()
        np.array(self._starts, np.uint64).tofile(self._folder / "names.idx")


class Names:
    """The names of documents by their ranks. sketches: the folder that holds each shard's folder."""

    def __init__(self, sketches: Path) -> None:
        self._sketches = sketches

    def read(self, ranks: Ranks) -> dict[int, Name]:
        """Each file is opened once."""
        found = {}
        ranks = np.unique(ranks)
        shards = shard_of(ranks)
        for shard in np.unique(shards).tolist():
            folder = self._sketches / f"{shard:05d}"
            with (folder / "names.idx").open("rb") as starts, (folder / "names.bin").open("rb") as stream:
                for rank in ranks[shards == shard].tolist():
                    starts.seek(8 * (rank & ((1 << _ROW) - 1)))
                    begin, end = np.frombuffer(starts.read(16), "<u8").tolist()
                    stream.seek(begin)
                    id, source, locator = stream.read(end - begin).decode().split("\0")
                    found[rank] = Name(id, source, locator)
        return found


def counts(sketches: Path, shards: int) -> npt.NDArray[np.int64]:
    """Documents of each shard."""
    sizes = [(sketches / f"{shard:05d}" / "names.idx").stat().st_size // 8 - 1 for shard in range(shards)]
    return np.array(sizes, np.int64)


def numbered(documents: Iterator[Document], names: NameWriter) -> Iterator[tuple[int, Document]]:
    for row, document in enumerate(documents):
        names.add(document)
        yield row, document
