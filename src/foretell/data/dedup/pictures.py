"""Images that are near duplicates, by a perceptual hash: later copies go where nothing new is told of them.

A copy of the same bytes that stays costs nothing: a collection keeps them once, and each document refers to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.images import alt_quality
from foretell.data.curate.steps import Removed
from foretell.data.dedup.base import Keeping, applied, read_removals, write_removals
from foretell.data.dedup.order import Name, numbered, rank_of
from foretell.data.dedup.records import Records, Runs, groups, make, partitions
from foretell.data.dedup.words import finish
from foretell.data.document import Document, Segment
from foretell.errors import ImageError
from foretell.images import decode_image

_SIDE, _COARSE, _FINE = 64, 8, 16  # pixels; coefficients a side
_BANDS = 4  # of 16 bits each
_RECORD = np.dtype(
    [("key", "<u8"), ("rank", "<u8"), ("image", "<u4"), ("coarse", "<u8"), ("told", "<u8"), ("fine", "<u8", (4,))]
)
_GOES = np.dtype([("key", "<u8"), ("kept", "<u8"), ("image", "<u4"), ("bits", "<u4")])
_BEFORE = 32  # images of a band with which one is compared, beside the first


class ImagesPass(Keeping):
    """Images that look the same.

    coarse, fine: bits of 64 and of 256 in which near duplicates may differ, both; up to 3 coarse ones none is
    missed. drop: `untold` takes a copy out only where its alt text and caption say nothing, or the same as those of an
    earlier copy (a logo on every page), so that a figure stays in each edition and language of a book; `all` takes out
    every one. A document of one picture and its caption goes with its picture; others lose the picture and keep what
    was told of it in its place.
    """

    name: ClassVar[str] = "same_images"  # the step that looks at each by itself is `images`
    kind: Literal["images"] = "images"
    coarse: Annotated[int, Field(ge=0, le=64)] = 3
    fine: Annotated[int, Field(ge=0, le=256)] = 24
    drop: Literal["untold", "all"] = "untold"

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None:
        with self.sketching(scratch, shard) as place:
            if place is None:
                return
            runs = Runs(place[0], "hashes")
            for row, document in numbered(documents, place[1]):
                rank = rank_of(document.source, shard, row, self.keep)
                pictures = (segment for segment in document.segments if segment.image is not None)
                for number, picture in enumerate(pictures):
                    if (found := perceptual_hash(picture.image or b"")) is not None:
                        coarse, fine = found
                        bands = (coarse >> np.arange(0, 64, 16).astype(np.uint64)) & np.uint64(0xFFFF)
                        keys = finish(bands << np.uint64(8) | np.arange(1, _BANDS + 1, dtype=np.uint64))
                        told = _told(picture)
                        runs.add(make(_RECORD, key=keys, rank=rank, image=number, coarse=coarse, told=told, fine=fine))
            runs.flush()

    def merge(self, shards: int, scratch: Path) -> None:
        with self.merging(scratch) as folder:
            if folder is None:
                return
            found = Runs(folder, "pairs")
            for records in partitions(self.runs(scratch, shards, "hashes"), _RECORD):
                for pairs in self._pairs(records):
                    found.add(pairs)
            found.flush()
            written = sorted(folder.glob("pairs-*.run"))
            for pairs in partitions(written, _GOES):
                order = np.lexsort((pairs["kept"], pairs["bits"], pairs["image"], pairs["key"]))
                first, _ = groups(pairs[order], "key", "image")
                write_removals(folder, pairs[order][first])
            for path in written:
                path.unlink()

    def _pairs(self, records: Records) -> Iterator[Records]:
        """Images and an earlier one that each is near to, by the first of its band and those just before it."""
        first, group = groups(records, "key")
        place = np.arange(len(records))
        for back in range(_BEFORE + 1):
            before = place - back if back else first[group]
            fits = (before >= first[group]) & (before < place)
            a, b = records[place[fits]], records[before[fits]]
            fine = np.bitwise_count(a["fine"] ^ b["fine"]).sum(1, dtype=np.int64)
            near = (np.bitwise_count(a["coarse"] ^ b["coarse"]) <= self.coarse) & (fine <= self.fine)
            if self.drop == "untold":
                near &= (a["told"] == 0) | (a["told"] == b["told"])
            if near.any():
                yield make(_GOES, key=a["rank"][near], kept=b["rank"][near], image=a["image"][near], bits=fine[near])

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]:
        going = read_removals(self.merged(scratch), shard, _GOES)
        return applied(documents, self.sketches(scratch), shard, going, _without_images)


def _told(picture: Segment) -> int:
    """Of what alt text and caption say, whatever its case and white space; 0 where they say nothing."""
    alt = picture.alt if picture.alt and alt_quality(picture.alt) else ""
    told = " ".join(f"{alt} {picture.caption or ''}".casefold().split())
    return int.from_bytes(blake2b(told.encode("utf-8", "replace"), digest_size=8).digest()) or 1 if told else 0


def _without_images(document: Document, going: Records, names: dict[int, Name]) -> Document | Removed:
    numbers, named = set(going["image"].tolist()), names[int(going["kept"][0])]
    seen, segments = -1, []
    for segment in document.segments:
        if segment.image is not None:
            seen += 1
            if seen in numbers:
                told = segment.caption or segment.alt
                segments += [replace(segment, text=told, image=None, alt=None, caption=None)] if told else []
                continue
        segments.append(segment)
    texts = sum(bool(segment.text) for segment in document.segments)
    detail = f"{len(numbers)} of {seen + 1} images like those of {named}"
    if len(numbers) == seen + 1 and texts <= 1:
        return Removed(document.id, "dedup.images", detail, document.labels.get("locator", ""))
    return replace(document, segments=tuple(segments), labels={**document.labels, "dedup.images": detail})


def perceptual_hash(image: bytes) -> tuple[np.uint64, npt.NDArray[np.uint64]] | None:
    """Which of the low frequencies of a picture (a cosine transform of its grey values) are above their median: 64
    bits of 8 × 8, and four times 64 of 16 × 16. None for what cannot be decoded, or is all of one colour.

    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions (DCT-based).
    """
    from scipy.fft import dctn

    try:
        grey = np.asarray(decode_image(image).convert("L").resize((_SIDE, _SIDE)), np.float64)
    except ImageError:
        return None
    if grey.std() < 1.0:
        return None
    found = dctn(grey, norm="ortho")

    def bits(side: int) -> npt.NDArray[np.uint64]:
        # The mean brightness, at (0, 0), says nothing of the picture.
        low = found[:side, :side].ravel()
        return np.packbits(low > np.median(low[1:])).view("<u8").astype(np.uint64)

    return bits(_COARSE)[0], bits(_FINE)
