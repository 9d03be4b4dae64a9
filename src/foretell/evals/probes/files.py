"""Samples of one's own for a probe: rows of a file with their lines, so that what is wrong with one can be named."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.samples import Sample, parse


def numbered(path: Path) -> Iterator[tuple[int, Sample]]:
    """Rows of JSON lines (also .gz), CSV or TSV, each with the line that it ends at.

    Raises EvalError for a file that is missing, of another kind, not readable, or empty.
    """
    count = 0
    try:
        for line, row in _rows(path):
            count += 1
            yield line, row
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise EvalError(f"{path} cannot be read ({why}). Check the path, or fetch the file again.") from error
    if not count:
        raise EvalError(f"{path} holds no rows. Give one sample a line.")


def rows_with(
    path: Path, columns: Sequence[str], closed: Mapping[str, Sequence[str]] | None = None
) -> Iterator[tuple[int, Sample]]:
    """Rows that have text, a number or a list in every column, and in `closed` ones a name that is allowed.

    Raises EvalError, naming file and line, for a row without one, or with a name that is not known.
    """
    for line, row in numbered(path):
        for name in columns:
            if name not in row:
                raise EvalError(
                    f"{path}, line {line} has no {name}; it has {', '.join(map(str, row)) or 'nothing'}. Rename the "
                    f"column: expected are {', '.join(columns)}."
                )
            if row[name] is None or (isinstance(row[name], str) and not row[name].strip()):
                raise EvalError(f"{path}, line {line}: {name} is empty. Fill it in, or take the row out.")
        for name, allowed in (closed or {}).items():
            if name in row and row[name] not in allowed:
                raise EvalError(
                    f"{path}, line {line}: {name} is {row[name]!r}; known are {', '.join(allowed)}. Name one of them."
                )
        yield line, row


def full(path: Path, column: str, rows: Sequence[Sample], wanted: Sequence[str]) -> None:
    """Raises EvalError for a name of a column that no row has."""
    if lacking := [name for name in wanted if not any(row.get(column) == name for row in rows)]:
        raise EvalError(
            f"{path} has no row whose {column} is {', '.join(lacking)}, so that nothing could be said of it. Add some, "
            f"or say what is meant: --extra-eval-params '{column}=[{', '.join(n for n in wanted if n not in lacking)}]'"
        )


def _rows(path: Path) -> Iterator[tuple[int, Sample]]:
    name = path.name.removesuffix(".gz")
    open_: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    if name.endswith((".jsonl", ".ndjson")):
        with open_(path, "rt", encoding="utf-8") as stream:
            yield from ((i, parse(line, path, i)) for i, line in enumerate(stream, 1) if line.strip())
    elif name.endswith((".csv", ".tsv")):
        with open_(path, "rt", encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, delimiter="\t" if name.endswith(".tsv") else ",")
            for row in table:
                if None in row or None in row.values():
                    raise EvalError(
                        f"{path}, line {table.line_num} has another number of columns than the first line. Mend it."
                    )
                yield table.line_num, dict(row)
    else:
        raise EvalError(f"{path} is of an unknown kind. Give JSON lines (.jsonl), CSV or TSV, with or without .gz.")
