"""Samples of an eval: rows of a file, read one at a time, in the order that upstream's shuffle gives them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload
from urllib.parse import parse_qsl, urlsplit

from foretell.errors import EvalError, MissingExtraError

SHUFFLE_SEED = 123  # upstream's
_LFS = b"version https://git-lfs"

Sample = dict[str, Any]


class Lines(Sequence[Sample]):
    """The rows of an uncompressed JSON-lines file, held as their places only: eight bytes a row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts, place = array("q"), 0
        with path.open("rb") as stream:
            for read in stream:
                for line in read.splitlines(keepends=True) if b"\r" in read else (read,):  # \r alone ends one, too
                    if line.strip():
                        self._starts.append(place)
                    place += len(line)
        self._stream: BinaryIO | None = None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._stream is None:
            self._stream = self.path.open("rb")
        self._stream.seek(self._starts[index])
        line = self._stream.readline().splitlines()[0]
        try:
            return parse(line, self.path, 0)
        except EvalError:
            self._stream.seek(0)
            before = self._stream.read(self._starts[index])
            return parse(line, self.path, len(before.splitlines()) + 1)


def read_samples(path: str | Path) -> Sequence[Sample]:
    """The samples of a file: JSON lines (also .gz or .zst), CSV, Parquet, a folder of JSON lines, or hf://NAME?split=….

    Raises EvalError for what is missing, empty or no samples, naming file and line, and MissingExtraError for a hub
    dataset without the package that reads it. A row of JSON lines is parsed when it is asked for.
    """
    if str(path).startswith("hf://"):
        return _hub(str(path))
    path = Path(path)
    if path.is_dir():
        files = sorted(path.rglob("*.jsonl"))
        return [sample for file in files for sample in read_samples(file)]
    try:
        check_fetched(path)
        if path.suffix == ".parquet":
            return _parquet(path)
        if path.suffix == ".csv":
            return _csv(path)
        found: Sequence[Sample] = _packed(path) if path.suffix in (".gz", ".zst") else Lines(path)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EvalError(f"The samples {path} cannot be read ({reason}). Check the path and the registry.") from error
    if not len(found):
        raise EvalError(f"The samples {path} are empty. Give one JSON object a line.")
    return found


def check_fetched(path: Path) -> None:
    """Raises EvalError for a pointer of Git LFS in the place of the data."""
    with path.open("rb") as stream:
        if stream.read(64).startswith(_LFS):
            raise EvalError(
                f"{path} is a Git LFS pointer, not the data. Fetch them with: git lfs fetch --all && git lfs pull"
            )


def order(count: int, limit: int | None = None) -> array[int]:
    """Indices of the samples as upstream takes them: shuffled with one seed for all evals, then cut."""
    indices = array("i", range(count))
    random.Random(SHUFFLE_SEED).shuffle(indices)
    return indices[:limit]


def parse(line: bytes | str, path: Path, number: int) -> Sample:
    """A row of JSON lines."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{path}, line {number} is not JSON ({error}). Write one object a line.") from error
    if not isinstance(row, dict):
        kind = type(row).__name__
        raise EvalError(f'{path}, line {number} holds a {kind}; expected an object such as {{"input": …}}.')
    return row


def placed(path: Path, named_in: str = "") -> list[tuple[Sample, str]]:
    """Rows of JSON lines, each with its place: FILE, line N.

    named_in: where the file is named. Raises EvalError for a file that cannot be read, or a line that is no object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        before = f"{named_in}: " if named_in else ""
        raise EvalError(f"{before}{path} cannot be read ({error.strerror}). Check the path.") from error
    return [(parse(line, path, n), f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _packed(path: Path) -> list[Sample]:
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as stream:
            return _rows(stream, path)
    import pyarrow as pa

    with pa.input_stream(str(path), compression="zstd") as packed:
        return _rows(io.BytesIO(packed.read()), path)


def _rows(stream: Any, path: Path) -> list[Sample]:
    return [parse(line, path, number) for number, line in enumerate(stream, 1) if line.strip()]


def _csv(path: Path) -> list[Sample]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(stream)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvalError(f"{path} is not readable CSV in UTF-8 ({error}). Save it again.") from error


def _parquet(path: Path) -> list[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Sample] = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise EvalError(f"{path} is not readable Parquet ({error}). Write it again.") from error
    return rows


def _hub(url: str) -> list[Sample]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("Reading a dataset from the hub", "hub") from error
    parts = urlsplit(url)
    name, options = (parts.netloc + parts.path).rstrip("/"), dict(parse_qsl(parts.query))
    try:
        rows: Iterator[Mapping[str, Any]] = iter(load_dataset(name, **options))
        return [dict(row) for row in rows]
    except Exception as error:  # whatever a loader of someone's dataset raises
        raise EvalError(f"The hub dataset {url} cannot be loaded: {error}") from error
