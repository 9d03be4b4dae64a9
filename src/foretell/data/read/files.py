"""Where sources lie: files here or in an object store, listed in an order that is the same everywhere, and opened."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from foretell.data.sources import TEXT_SUFFIX
from foretell.errors import DataError, MissingExtraError

PACKED = re.compile(r"\.(gz|bz2|xz|zst)$", re.IGNORECASE)
HIDDEN = re.compile(r"(^|/)\.")
FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
    ".tar": "pairs",
    ".zip": "zip",
    ".ipynb": "notebook",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}


class MissingSourceError(DataError):
    """Nothing lies at a source's path."""


@dataclass(frozen=True)
class File:
    """name: relative to the source, and part of every document's id. modified: ISO day, or None."""

    name: str
    path: str
    size: int = 0
    modified: str | None = None


@dataclass(frozen=True)
class Unit:
    """An independent piece of work, which carries all it takes to read it: a file that is gone by then is missed.

    form: how it is read. files: one, or a group of small ones. start, stop: its part, in the form's own count (bytes
    of lines, row groups, blobs, shards); stop 0 means all. size: about how many bytes.
    """

    source: str
    form: str
    files: tuple[File, ...]
    start: int = 0
    stop: int = 0
    size: int = 0

    @property
    def key(self) -> str:
        """Unique within the source, and the same on every machine."""
        more = f"+{len(self.files) - 1}" if len(self.files) > 1 else ""
        return f"{self.form}:{self.files[0].name}{more}#{self.start}-{self.stop}"


def form_of(name: str) -> str:
    """How a file is read, by its name; "other" if it is not."""
    path = PurePosixPath(PACKED.sub("", name))
    if form := FORMS.get(path.suffix.lower()):
        # Packed text would be read as one piece; of archives there is one kind of packing already inside.
        return form if form in ("jsonl", "warc", "json", "pairs") or not PACKED.search(name) else "other"
    return "text" if TEXT_SUFFIX.fullmatch(path.suffix) and not PACKED.search(name) else "other"


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it. Raises DataError where there is none."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("Reading sources for curation", "data") from error
    try:
        found, inner = url_to_fs(path)
    except (ValueError, ImportError, OSError) as error:
        raise DataError(
            f"{path} cannot be opened ({error}). Check the address, or install what it asks for."
        ) from error
    return found, inner


def listing(source: str, path: str) -> list[File]:
    """The files of a source by name, hidden ones apart: below a folder, the file itself, or what a glob matches.

    Raises MissingSourceError for what is missing or empty, DataError for what cannot be listed.
    """
    system, root = filesystem(path)
    missing = MissingSourceError(
        f"Source {source!r}: {path} does not exist. Give an existing file, folder or URL as its path. If it was there "
        "before, bring it back and run the same command again: what is finished stays."
    )
    try:
        if _is_glob(system, root):
            details = system.glob(root, detail=True)
            root = _top(system, root)
        elif system.isfile(root):
            details = {root: system.info(root)}
            root = root.rpartition("/")[0]
        elif system.isdir(root):
            details = system.find(root, detail=True, on_error="raise")
        else:
            raise missing
    except FileNotFoundError as error:
        raise missing from error
    except OSError as error:
        todo = "Check the address and the network" if "://" in path else "Change its permissions"
        raise DataError(
            f"Source {source!r}: {error.filename or path} could not be listed: {error.strerror or error}. {todo}, or "
            "leave it out of the recipe."
        ) from error
    files = [
        File(name, full, int(info.get("size") or 0), _day(info))
        for full, info in details.items()
        if info.get("type") != "directory" and not HIDDEN.search(name := full.removeprefix(root).lstrip("/"))
    ]
    if not files:
        raise MissingSourceError(f"Source {source!r}: {path} holds no file. Check the path.")
    return sorted(files, key=lambda file: file.name)


def _day(info: dict[str, Any]) -> str | None:
    from datetime import UTC, datetime

    told = next((info[key] for key in ("LastModified", "mtime", "updated", "last_modified") if info.get(key)), None)
    try:
        if isinstance(told, (int, float)):
            return datetime.fromtimestamp(told, UTC).date().isoformat()
        return told.date().isoformat() if isinstance(told, datetime) else str(told)[:10] if told else None
    except (OverflowError, ValueError, OSError):
        return None


class Vanished(Exception):
    """A file that was listed is gone, and the source is still there."""


class Unreadable(Exception):
    """A file that may not be read, or is no file."""


@contextmanager
def opened(source: str, root: str, path: str) -> Iterator[IO[bytes]]:
    """One file for reading.

    Raises Vanished or Unreadable for what can be skipped and counted, and DataError where the source itself is gone
    or its device fails: to count all the rest as removed would be a silent loss.
    """
    system, inner = filesystem(root)
    try:
        if _is_local(system) and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise Unreadable("it is no regular file")  # a pipe would be waited for without end
        stream: IO[bytes] = system.open(path, "rb", **_plain(system))
    except FileNotFoundError as error:
        if not system.exists(_top(system, inner) or "/"):
            raise gone(source, root) from error
        raise Vanished(path) from error
    except (PermissionError, IsADirectoryError) as error:
        raise Unreadable(error.strerror or str(error)) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR):
            raise Unreadable(error.strerror) from error
        raise failing(source, path, error) from error
    with stream:
        yield stream


def _plain(system: Any) -> dict[str, Any]:
    """Local files need no cache of fsspec's; remote ones are read ahead, since all readers go forward."""
    return {} if _is_local(system) else {"cache_type": "readahead", "block_size": 8 << 20}


def _is_local(system: Any) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


def _is_glob(system: Any, path: str) -> bool:
    """A file or folder may have brackets in its name."""
    return bool(set("*?[") & set(path)) and not system.exists(path)


def _top(system: Any, path: str) -> str:
    """The path, or of a glob the folder above all that it may match."""
    return re.sub(r"[^/]*[*?\[].*", "", path).rstrip("/") if _is_glob(system, path) else path


def beside(root: str, name: str) -> str | None:
    """The path of a file of the source by its name; None for a name that leads out of it."""
    system, inner = filesystem(root)
    top = _top(system, inner)
    if top == inner and system.isfile(inner):
        top = inner.rpartition("/")[0]
    name = posixpath.normpath(name)
    return None if name.startswith(("../", "/")) or name == ".." else f"{top}/{name}"


def gone(source: str, path: str) -> DataError:
    return DataError(
        f"Source {source!r}: {path} vanished while it was read. Bring it back and run the same command again: what is "
        "finished stays."
    )


def failing(source: str, path: str, error: OSError) -> DataError:
    return DataError(
        f"Source {source!r}: {path} could not be read on: {error.strerror or error}. Mend the disk or the network and "
        "run the same command again: what is finished stays."
    )
