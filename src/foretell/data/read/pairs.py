"""Image–text pairs as webdataset tars: files that share a key up to the first dot of their name are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any, Literal

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.read.compressed import CHUNK, Damaged
from foretell.data.read.jsonl import plain
from foretell.data.read.rows import Defaults, Place, document, first
from foretell.data.read.sections import Fields, Limits
from foretell.errors import ImageError
from foretell.images import open_image

IMAGES = ("jpg", "jpeg", "png", "webp", "gif")
TEXTS = ("txt", "caption", "cap", "text")
CAPTIONS = ("caption", "text", "alt_text", "alt", "title")
FIELDS = Fields(id=("key", "id", "uid"), url=("url", "original_url"), path=())

Sample = dict[str, bytes | Removed]


def read_pairs(
    stream: IO[bytes], name: str, limits: Limits, order: Literal["image", "text"], fill: Defaults
) -> Iterator[Document | Removed]:
    """A document or a reason for each sample. Locators are file!key."""
    key, sample = "", Sample()
    for found in _files(stream, name, limits):
        if isinstance(found, Removed):
            yield found
            continue
        member, data = found
        folder, _, base = member.rpartition("/")
        stem, _, suffix = base.partition(".")
        own, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
        if own != key or suffix in sample:  # a name that comes again begins another sample, so that none is lost
            if sample:
                yield _document(sample, Place(f"{name}!{key}", name), key, order, limits, fill)
            key, sample = own, Sample()
        sample[suffix] = data
    if sample:
        yield _document(sample, Place(f"{name}!{key}", name), key, order, limits, fill)


class _Blocks:
    """What tarfile reads from: as many bytes as asked for, while there are any."""

    def __init__(self, source: Any) -> None:
        self._source, self._buffer, self._at = source, b"", 0

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            if self._at >= len(self._buffer):
                self._buffer, self._at = self._source.read(CHUNK), 0
                if not self._buffer:
                    break
            part = self._buffer[self._at : self._at + size]
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return b"".join(parts)

    def more(self) -> bool:
        """Whether anything follows but the zeros that end a tar; what does is left to be read."""
        while block := self.read(tarfile.BLOCKSIZE):
            if any(block):
                self._buffer, self._at = block + self._buffer[self._at :], 0
                return True
        return False


def _files(stream: IO[bytes], name: str, limits: Limits) -> Iterator[tuple[str, bytes | Removed] | Removed]:
    again, place = False, Place(name, name)
    blocks: Any = _Blocks(plain(stream, name, limits))
    try:
        while True:
            why = "damaged between its files"
            try:
                # Behind damage, blocks are passed over until one is a header. A block at a time is read, so that
                # nothing is lost in tarfile's buffer when it gives up.
                with tarfile.open(fileobj=blocks, mode="r|", bufsize=tarfile.BLOCKSIZE, ignore_zeros=again) as tar:
                    for member in tar:
                        yield from _member(tar, member, name, limits)
                        tar.members.clear()  # type: ignore[attr-defined]  # it keeps every header it has seen
                whole = True
            except (tarfile.TarError, EOFError, ValueError) as error:
                whole, why = False, str(error)
            more = blocks.more()
            if more or not (whole or again):
                yield place.removed("read.empty" if why == "empty file" else "read.tar", why)
            if not more:
                return
            again = True
    except Damaged as error:
        yield place.removed(error.reason, error.detail)


def _member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, limits: Limits
) -> Iterator[tuple[str, bytes | Removed] | Removed]:
    place = Place(f"{name}!{member.name}", name)
    if member.isdir():
        return
    if not member.isfile():
        yield place.removed("read.link", "links are not followed")
    elif member.size > limits.document_bytes:
        yield member.name, place.removed("read.too-large", f"{member.size:,} bytes")
    else:
        content = tar.extractfile(member)
        yield member.name, content.read() if content else b""


def _document(sample: Sample, place: Place, key: str, order: str, limits: Limits, fill: Defaults) -> Document | Removed:
    for value in sample.values():
        if isinstance(value, Removed):
            return place.removed(value.reason, value.detail, key)
    parts = {suffix: value for suffix, value in sample.items() if isinstance(value, bytes)}
    row: dict[str, Any] = {}
    try:
        if data := parts.get("json"):
            told = json.loads(data.decode("utf-8-sig"))
            row = told if isinstance(told, dict) else {}
        text = next((parts[suffix].decode("utf-8-sig") for suffix in TEXTS if suffix in parts), "")
    except UnicodeDecodeError as error:
        return place.removed("read.encoding", error.reason, key)
    except (ValueError, RecursionError) as error:
        return place.removed("read.json", error, key)
    text = text.strip() or first(row, CAPTIONS).strip()
    image = next((parts[suffix] for suffix in IMAGES if suffix in parts), None)
    if image is None:
        return place.removed("read.no-image", f"of {', '.join(sorted(sample))} none is an image", key)
    if not text:
        return place.removed("read.no-text", f"of {', '.join(sorted(sample))} none holds a text", key)
    if len(image) > limits.image_bytes:
        return place.removed("read.too-large", f"an image of {len(image):,} bytes", key)
    try:
        open_image(image)
    except ImageError as error:
        return place.removed("read.image", error, key)
    segments = [Segment(image=image), Segment(text=text)]
    whole = document(row, tuple(segments if order == "image" else segments[::-1]), place, FIELDS, fill)
    return whole if first(row, FIELDS.id) else replace(whole, id=f"{place.path}!{key}")
