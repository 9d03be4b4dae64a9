"""Rows of data files: JSON Lines or one JSON array, plain or gzipped, each with its file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foretell.errors import DataError, RowError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
MOST_LINE = 64_000_000  # bytes


def data_files(path: Path) -> list[Path]:
    """The file itself, or what a folder holds of known suffixes. Raises DataError when there is none."""
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file()) if path.is_dir() else []
    if not found:
        what = f"{path} holds no file of examples" if path.is_dir() else f"There is no file or folder {path}"
        raise DataError(f"{what}. Give one of examples or prompts: {', '.join(SUFFIXES[:3])} (--data, --prompts).")
    return found


def rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    """File and line of every row, with the row, or the error that says why it is none. Raises DataError as
    `data_files`, and for a file that cannot be read."""
    for file in data_files(path):
        try:
            with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
                first = stream.read(1)
                while first.isspace():
                    first = stream.read(1)
                stream.seek(0)
                if first == b"[":
                    yield from _array(file, stream.read())
                    continue
                number = 0
                while line := stream.readline(MOST_LINE):
                    number += 1
                    if line.strip():
                        where = f"{file}, line {number}"
                        yield where, _parse(where, line)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file} could not be read: {error}. Mend it, or leave it out of --data.") from error


def _array(file: Path, text: bytes) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} begins as a JSON array but is none: {error}. Copy it again.") from error
    for number, row in enumerate(rows, 1):
        where = f"{file}, entry {number}"
        yield where, row if isinstance(row, dict) else _no_object(where)


def _parse(where: str, line: bytes) -> Mapping[str, Any] | RowError:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return RowError(where, "the line", "not JSON", f"It fails with: {error}. Give one JSON object a line.")
    return row if isinstance(row, dict) else _no_object(where)


def _no_object(where: str) -> RowError:
    return RowError(where, "the row", "not a JSON object", "Each row is an object with named fields.")
