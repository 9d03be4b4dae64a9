"""Folders and zip archives: every file by its form, figures from beside the text, bombs and odd files counted."""

from __future__ import annotations

import errno
import lzma
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.read.files import File, Unreadable, Vanished, beside, form_of, opened
from foretell.data.read.html import Pages
from foretell.data.read.licenses import is_license_file, license_of_text, nearest
from foretell.data.read.rows import Defaults, Place
from foretell.data.read.sections import Limits
from foretell.data.read.texts import read_text_file

ONE_DOCUMENT = frozenset({"text", "markdown", "notebook", "html"})
MEMBERS = 1_000_000  # of one zip archive
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError,
    ValueError, OSError,
)  # fmt: skip
"""What zipfile raises over a damaged archive, or one that it cannot read."""


def read_files(
    source: str, root: str, files: Sequence[File], limits: Limits, pages: Pages, fill: Defaults
) -> Iterator[Document | Removed]:
    """A document, or a reason, for each of the files."""
    for file in files:
        place = Place(file.name, file.name)
        form = form_of(file.name)
        if form not in ONE_DOCUMENT:
            if not file.name.lower().endswith(IMAGES) or form != "other":
                yield place.removed("read.file-kind", "no form of text or archive that is read")
            else:
                yield place.removed("read.picture-file", "a picture is read where a text shows it, not by itself")
            continue
        if file.size > limits.document_bytes:
            yield place.removed("read.too-large", f"{file.size:,} bytes; at most {limits.document_bytes:,} are read")
            continue
        try:
            with opened(source, root, file.path) as stream:
                data = stream.read(limits.document_bytes + 1)
        except Vanished:
            yield place.removed("read.vanished", "it was there when the source was listed")
            continue
        except Unreadable as error:
            yield place.removed("read.unreadable", error)
            continue
        if len(data) > limits.document_bytes:
            yield place.removed("read.too-large", f"over {limits.document_bytes:,} bytes")
            continue
        dated = Defaults(fill.source, fill.license, fill.language, fill.date or file.modified)
        figure = partial(_figure, source, root, file.name, limits)
        yield read_text_file(data, form, place, dated, limits, pages, figure)


def _figure(source: str, root: str, name: str, limits: Limits, address: str) -> bytes | None:
    path = beside(root, posixpath.join(posixpath.dirname(name), address))
    if path is None or not path.lower().endswith(IMAGES):
        return None
    try:
        with opened(source, root, path) as stream:
            return stream.read(limits.image_bytes + 1)
    except (Vanished, Unreadable):
        return None


def read_zip(
    stream: IO[bytes], name: str, limits: Limits, pages: Pages, fill: Defaults
) -> Iterator[Document | Removed]:
    """The text files of a zip archive; archives in it are not opened. Its licence file holds for what lies below."""
    place = Place(name, name)
    try:
        archive = zipfile.ZipFile(stream)
        members = [info for info in archive.infolist() if not info.is_dir() and "/." not in f"/{info.filename}"]
    except DAMAGE as error:
        _raise_of_device(error)
        yield place.removed("read.zip", error)
        return
    size = stream.seek(0, 2)
    total = sum(info.file_size for info in members)
    if len(members) > MEMBERS or (total > limits.ratio_from and total > limits.ratio * size):
        yield place.removed("read.bomb", f"{size:,} bytes unpack to {total:,} in {len(members):,} files")
        return
    if not members:
        yield place.removed("read.empty")
        return
    inside = {info.filename: info for info in members}
    licenses: dict[str, str] = {}
    for info in members:
        if is_license_file(info.filename) and info.file_size < 1_000_000:
            data = _member(archive, info, limits)
            if isinstance(data, bytes):
                licenses[posixpath.dirname(info.filename)] = license_of_text(data.decode("utf-8", "replace"))
    for info in sorted(members, key=lambda info: info.filename):
        at = Place(f"{name}!{info.filename}", f"{name}!{info.filename}")
        form = form_of(info.filename)
        if form not in ONE_DOCUMENT:
            yield at.removed("read.file-kind", "within a zip archive, files of text are read")
            continue
        content = _member(archive, info, limits)
        if isinstance(content, str):
            yield at.removed(*content.split("|", 1))
            continue
        date = "{:04d}-{:02d}-{:02d}".format(*info.date_time[:3]) if info.date_time[0] > 1980 else None
        told = nearest(info.filename, licenses)
        own = Defaults(
            fill.source, told if told not in ("", "unknown") else fill.license, fill.language, fill.date or date
        )
        yield read_text_file(content, form, at, own, limits, pages, partial(_inside, archive, inside, info, limits))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: Limits) -> bytes | str:
    """A member's bytes, or "reason|detail"."""
    if info.file_size > limits.document_bytes:
        return f"read.too-large|{info.file_size:,} bytes"
    try:
        with archive.open(info) as member:
            return member.read(limits.document_bytes + 1)
    except DAMAGE as error:
        _raise_of_device(error)
        return f"read.zip|{error}"


def _raise_of_device(error: Exception) -> None:
    """Raise what a disk or network is to blame for; to seek before the start is asked by a damaged archive."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _inside(
    archive: zipfile.ZipFile, inside: dict[str, zipfile.ZipInfo], text: zipfile.ZipInfo, limits: Limits, address: str
) -> bytes | None:
    info = inside.get(posixpath.normpath(posixpath.join(posixpath.dirname(text.filename), address)))
    if info is None or not info.filename.lower().endswith(IMAGES) or info.file_size > limits.image_bytes:
        return None
    data = _member(archive, info, limits)
    return data if isinstance(data, bytes) else None
