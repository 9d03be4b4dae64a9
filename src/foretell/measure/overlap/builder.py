"""The index of a corpus on disk, written once: its normalised text, fingerprints of that, and where documents begin.

    text.bin       every document's letters and digits, a SEPARATOR behind each
    grams.bin      uint32 fingerprints of the text, one every STRIDE bytes
    documents.bin  of each document where it begins, its file and its row
    index.json     form, settings, sources and digests; written last

Until it is whole it lies in a folder beside, OUT.part, from which the same call goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from foretell.errors import DataError, RunError
from foretell.files import describe_os_error, digest, sha256_file, write_json
from foretell.measure.overlap.grams import GRAM, STRIDE, WORD, Bytes, fingerprints
from foretell.measure.overlap.normal import normalize
from foretell.run import Report, silent

FORMAT = 1
SEPARATOR = b"\n"  # is in no needle, so that none is found across documents
TEXT, GRAMS, DOCUMENTS, INDEX = "text.bin", "grams.bin", "documents.bin", "index.json"
DOCUMENT = np.dtype([("start", "<u8"), ("file", "<u4"), ("row", "<u4")])
PART = ".part"
_PROGRESS = "progress.json"
_BUFFER = 8_000_000  # bytes of text that are held
_SAVE_EVERY = 256_000_000  # bytes of text between two places to go on from

Row = tuple[int, Iterable[str]]


@dataclass(frozen=True)
class CorpusFile:
    """A file of documents. name: as it is told of. read: its rows from a number on, each with its text in pieces.

    settings: what else decides what is read, such as the column. Numbers are those a user would count: lines from 1.
    """

    name: str
    path: Path
    read: Callable[[], Iterator[Row]]
    settings: str = ""

    def state(self) -> dict[str, Any]:
        """What tells that the file has changed, but for its digest."""
        stat = self.path.stat()
        return {
            "name": self.name,
            "path": str(self.path.absolute()),
            "bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
        }


def build(
    files: Sequence[CorpusFile], out: Path, *, ignore_case: bool = False, report: Report = silent
) -> dict[str, Any]:
    """Index a corpus, or go on with an index of the same files that was cut off.

    Memory stays at some tens of megabytes beside what the largest row takes. ignore_case: see `normalize`. An index of
    the same files with the same settings is left as it is; any other one at `out` is replaced, when the new is whole.
    Returns what index.json holds. Raises DataError for files without any text and where `out` is something else,
    RunError where it cannot be written or another process builds it; what is done is kept.
    """
    if not files:
        raise DataError("There are no files to index. Name files, folders or runs that hold text.")
    try:
        states = [file.state() for file in files]
        made: dict[str, Any] = {"format": FORMAT, "gram": GRAM, "stride": STRIDE, "ignore_case": ignore_case}
        made["unicode"] = unicodedata.unidata_version
        key = digest([made, states, [file.settings for file in files]])
        if (same := _same(out, key)) is not None:
            return same
        with _locked(out.with_name(out.name + PART)) as folder:
            writer = _Writer(folder, key)
            _index(files, states, writer, ignore_case, report)
            index = {**made, "key": key, **writer.finish(states)}
            write_json(folder / INDEX, index)
            for name in (_PROGRESS, _LOCK):
                (folder / name).unlink(missing_ok=True)
            _replace(folder, out)
        return index
    except OSError as error:
        raise RunError(describe_os_error(error, out)) from error


def _same(out: Path, key: str) -> dict[str, Any] | None:
    """What the index at `out` holds, if it is the one that is wanted."""
    if not (out / INDEX).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} is there and is no index of a corpus. Give another --out, or remove it.")
        return None
    try:
        old: dict[str, Any] = json.loads((out / INDEX).read_bytes())
        whole = old["key"] == key and all((out / name).is_file() for name in old["files"])
    except (ValueError, KeyError, TypeError):  # damaged: what it should hold is built anew
        return None
    return old if whole else None


def _index(
    files: Sequence[CorpusFile], states: list[dict[str, Any]], writer: _Writer, ignore_case: bool, report: Report
) -> None:
    total, before = sum(state["bytes"] for state in states), 0
    for number, (file, state) in enumerate(zip(files, states, strict=True)):
        if number < writer.file:
            before += state["bytes"]
            continue
        seen, told, skip = 0, 0, writer.rows
        for count, (row, pieces) in enumerate(file.read()):
            if count < skip:
                continue
            writer.begin(number, row)
            for piece in pieces:
                seen += len(piece)
                writer.write(normalize(piece, ignore_case))
                if seen - told > _BUFFER // 4:
                    told = seen
                    report("index", before + min(seen, state["bytes"]), total, file.name)
            writer.end()
        before += state["bytes"]
        writer.next_file(sha256_file(file.path))
        if file.state() != state:
            raise DataError(f"{file.path} was changed while it was read. Build the index again when it is finished.")
        report("index", before, total, file.name)


class _Writer:
    """Appends documents, and notes now and then what is safely written. file, rows: where to go on reading."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.file = self.rows = self.empty = 0
        self.sources: list[dict[str, Any]] = []  # of finished files
        self._key = key
        lengths = {TEXT: 0, GRAMS: 0, DOCUMENTS: 0}
        try:
            noted = json.loads((folder / _PROGRESS).read_bytes())
            held = {name: (folder / name).stat().st_size for name in lengths}
            if noted["key"] == key and all(held[name] >= size for name, size in noted["lengths"].items()):
                lengths, self.file, self.rows = noted["lengths"], noted["file"], noted["rows"]
                self.sources, self.empty = noted["sources"], noted["empty"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # begun anew
        self._out: dict[str, BinaryIO] = {}
        for name, size in lengths.items():
            stream = (folder / name).open("ab")
            stream.truncate(size)
            self._out[name] = stream
        self._size = lengths[TEXT]  # of the text, with what is held
        self._saved = self._size
        self._held = bytearray()
        self._documents: list[tuple[int, int, int]] = []
        self._counted = lengths[DOCUMENTS] // DOCUMENT.itemsize
        self._first = lengths[GRAMS] // 4 * STRIDE  # where the next gram begins
        with (folder / TEXT).open("rb") as written:
            written.seek(self._first)
            self._tail = written.read()  # from there on what is written
        self._document = (0, 0, 0)

    def begin(self, file: int, row: int) -> None:
        self._document = (self._size, file, row)

    def write(self, text: bytes) -> None:
        self._held += text
        self._size += len(text)
        if len(self._held) >= _BUFFER:
            self._flush()

    def end(self) -> None:
        if self._size > self._document[0]:
            self._documents.append(self._document)
            self.write(SEPARATOR)
        else:
            self.empty += 1
        self.rows += 1
        if self._size - self._saved >= _SAVE_EVERY:
            self._save()

    def next_file(self, sha256: str) -> None:
        counted = self._counted + len(self._documents)
        known = sum(source["documents"] for source in self.sources)
        self.sources.append({"sha256": sha256, "documents": counted - known, "empty": self.empty})
        self.file, self.rows, self.empty = self.file + 1, 0, 0
        self._save()

    def finish(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        self._flush()
        self._out[GRAMS].write(fingerprints(np.frombuffer(self._tail, np.uint8)).tobytes())
        if not self._size:
            raise DataError(
                f"The {len(states)} files, such as {states[0]['path']}, hold no letters and digits. Name others."
            )
        self._out[TEXT].write(SEPARATOR * WORD)  # so that words may be read up to the end
        for stream in self._out.values():
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        return {
            "characters_bytes": self._size,
            "documents": self._counted,
            "sources": [state | source for state, source in zip(states, self.sources, strict=True)],
            "files": {name: sha256_file(self.folder / name) for name in self._out},
        }

    def _flush(self) -> None:
        self._out[TEXT].write(self._held)
        data: Bytes = np.frombuffer(self._tail + self._held, np.uint8)
        grams = fingerprints(data[: len(data) // STRIDE * STRIDE])  # a stride at a time, so that the next one fits on
        self._out[GRAMS].write(grams.tobytes())
        self._first += len(grams) * STRIDE
        self._tail = data[len(grams) * STRIDE :].tobytes()
        self._held = bytearray()
        self._out[DOCUMENTS].write(np.array(self._documents, DOCUMENT).tobytes())
        self._counted += len(self._documents)
        self._documents = []

    def _save(self) -> None:
        self._flush()
        for stream in self._out.values():
            stream.flush()
            os.fsync(stream.fileno())
        lengths = {name: stream.tell() for name, stream in self._out.items()}
        noted = {"key": self._key, "lengths": lengths, "file": self.file, "rows": self.rows, "empty": self.empty}
        write_json(self.folder / _PROGRESS, noted | {"sources": self.sources})
        self._saved = self._size


_LOCK = "lock"


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"{folder} is being written by another process. Wait for it, or give another --out."
            ) from error
        yield folder


def _replace(folder: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    folder.replace(out)
    shutil.rmtree(old, ignore_errors=True)
