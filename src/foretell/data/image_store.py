"""Images kept once: tars beside the Parquet files, in which every image is named by its SHA-256."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from foretell.errors import DataError
from foretell.files import atomic_path

PATH = re.compile(r"images/(\d{5,}\.tar)/([0-9a-f]{64}\.[a-z]{3,4})")
_OPEN = 16  # tars at once
_MAGIC = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"II*\0", "tif"), (b"MM\0*", "tif"))


def member_name(data: bytes) -> str:
    """SHA-256 and ending of an image, by its bytes alone."""
    ending = next((name for magic, name in _MAGIC if data.startswith(magic)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        ending = "webp"
    return f"{hashlib.sha256(data).hexdigest()}.{ending or 'bin'}"


class ImageStore:
    """Reads images by the paths that rows hold, `images/NNNNN.tar/<sha256>.png`, below one collection's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, tuple[IO[bytes], dict[str, tuple[int, int]]]] = OrderedDict()

    def read(self, path: str) -> bytes | None:
        """The image, or None for what is no such path, is not there, or is not what its name says."""
        found = PATH.fullmatch(path)
        if not found:
            return None
        tar, name = found.groups()
        try:
            stream, places = self._tar(tar)
            start, size = places[name]
            stream.seek(start)
            data = stream.read(size)
        except (OSError, KeyError, tarfile.TarError):
            return None
        return data if hashlib.sha256(data).hexdigest() == name.partition(".")[0] else None

    def _tar(self, name: str) -> tuple[IO[bytes], dict[str, tuple[int, int]]]:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        stream = (self.folder / "images" / name).open("rb")
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        self._open[name] = stream, places
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)[1][0].close()
        return self._open[name]

    def close(self) -> None:
        for stream, _ in self._open.values():
            stream.close()
        self._open.clear()


class ImageWriter:
    """Adds images to a tar: the same images in the same order give the same bytes."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.names: set[str] = set()
        self.bytes = 0

    def add(self, name: str, data: bytes) -> None:
        if name in self.names:
            return
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, BytesIO(data))
        self.names.add(name)
        self.bytes += len(data)


@contextmanager
def writing_images(path: Path) -> Iterator[ImageWriter]:
    """A tar that appears whole, or not at all."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        yield ImageWriter(tar)


def without_images(path: Path, names: set[str]) -> int:
    """Write a tar anew without these members. Returns how many were there.

    Raises DataError where it cannot be read.
    """
    gone = 0
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar, writing_images(path) as writer:
            for member in tar:
                content = tar.extractfile(member)
                if member.name in names or content is None:
                    gone += 1
                else:
                    writer.add(member.name, content.read())
    except tarfile.TarError as error:
        raise DataError(f"{path} is damaged ({error}). Build the collection again.") from error
    return gone
