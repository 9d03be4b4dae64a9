"""The items of benchmarks: of an evals registry, or of a folder of published files, whatever their form."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretell.errors import DataError, EvalError
from foretell.measure.overlap.questions import Part, shared_messages, text_of

_PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress}
_FORMS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
_QUESTIONS = ("ctx", "instruction", "goal", "sentence", "turns", "user_prompt")  # beside those that text_of knows
_HEADS = {"question", "problem", "prompt", "text", "context", "passage", "story", "input", "query", "id", *_QUESTIONS}
_APART = ("readme", "license", "sources", "notice", "copying")  # of a folder, though of a known form
_LFS = "version https://git-lfs"


@dataclass(frozen=True)
class Item:
    """A question of a benchmark. id: the folder that was named, the file in it, and the row, from 1."""

    id: str
    text: str


def benchmark_files(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, file) of all files that hold items: of a registry those below its data. Sorted, hidden ones apart.

    Raises DataError for a path without any.
    """
    found = []
    for told in paths:
        path = Path(told).expanduser()
        root = path / "data" if (path / "evals").is_dir() and (path / "data").is_dir() else path
        below = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
        files = [
            (f"{path.name}/{file.relative_to(root)}" if root.is_dir() else path.name, file)
            for file in below
            if _form(file)
            and not file.name.lower().startswith(_APART)
            and not any(part.startswith(".") for part in file.relative_to(root).parts)
        ]
        if not files:
            raise DataError(
                f"{path} holds no benchmark: expected files of {', '.join(_FORMS)}, also packed by gzip or bzip2, or "
                "an evals registry. Check the path."
            )
        found += files
    return found


def read_items(paths: Sequence[str], part: Part = "question") -> Iterator[Item]:
    """Every item of the files, one file in memory at a time; rows that ask nothing are passed over.

    part: as of `foretell contamination check`. Raises DataError for a file that cannot be read.
    """
    for name, file in benchmark_files(paths):
        try:
            rows = list(_rows(file))
        except (OSError, EOFError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read as a benchmark ({error}). Mend, fetch or remove it.") from error
        shared = shared_messages(rows)
        for number, row in enumerate(rows, 1):
            if text := _asked(row, part, shared):
                yield Item(f"{name}:{number}", text)


def _asked(row: Mapping[str, Any], part: Part, shared: frozenset[str]) -> str:
    """ "" for a row that asks nothing. Names of fields are taken without regard to case."""
    row = {str(name).strip().lower(): value for name, value in row.items()}
    told = [_text(row.get(name)) for name in _QUESTIONS]
    if any(told):
        row["question"] = "\n".join(filter(None, [*told, _text(row.pop("input", None)), _text(row.get("question"))]))
    try:
        return text_of(row, part, shared)
    except (EvalError, AttributeError, TypeError):
        within = [each for value in row.values() for each in (value if isinstance(value, list) else [value])]
        below = [_asked(each, part, shared) for each in within if isinstance(each, Mapping)]
        told = list(filter(None, below)) or [each for each in row.values() if isinstance(each, str)]
        return max(told, key=len, default="")


def _text(value: Any) -> str:
    """A text, or texts in a list, such as turns."""
    told = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return "\n".join(text for text in told if isinstance(text, str))


def _form(file: Path) -> str:
    suffix = file.with_suffix("").suffix if file.suffix in _PACKED else file.suffix
    return suffix.lower() if suffix.lower() in _FORMS else ""


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    form = _form(file)
    if form == ".parquet":
        yield from pq.read_table(file).to_pylist()
        return
    data = file.read_bytes()
    text = (_PACKED[file.suffix](data) if file.suffix in _PACKED else data).decode("utf-8-sig")
    if text.startswith(_LFS):
        raise ValueError("it is a Git LFS pointer, not the data")
    if form in (".jsonl", ".ndjson", ".json"):
        held = _json(text, form == ".json")
    elif form == ".txt":
        held = [{"text": told} for told in text.split("\n\n" if "\n\n" in text else "\n")]
    else:
        held = _table(text, "\t" if form == ".tsv" else ",")
    yield from (row for row in held if isinstance(row, Mapping))


def _json(text: str, whole: bool) -> list[Any]:
    """Rows of JSON lines; or (whole) a list, or an object of rows, and JSON lines that are named as if they were."""
    lines = (line for line in text.split("\n") if line.strip())
    if not whole:
        return [json.loads(line) for line in lines]
    try:
        held = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in lines]
    if isinstance(held, dict):
        held = held.get("examples") or held.get("data") or list(held.values())
    return held if isinstance(held, list) else []


def _table(text: str, delimiter: str) -> list[Mapping[str, Any]]:
    """With a head of names, or as MMLU and MGSM have them: the question first, then options and answer."""
    if delimiter == ",":
        rows = list(csv.reader(io.StringIO(text, newline="")))
    else:
        rows = [line.split(delimiter) for line in text.splitlines() if line]
    if not rows:
        return []
    head = [name.strip() for name in rows[0]]
    if _HEADS & {name.lower() for name in head}:
        return [dict(zip(head, row, strict=False)) for row in rows[1:]]
    return [{"question": row[0], "options": row[1:-1], "answer": row[-1]} for row in rows if row]
