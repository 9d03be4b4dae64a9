"""The ledger: one row for every record that came in, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.errors import DataError
from foretell.files import atomic_path

ROWS = 4096
LOST = ("images_dropped", "images_absent")  # labels by which readers count them
_CHANGE = pa.struct([("step", pa.string()), ("before", pa.int64()), ("after", pa.int64()), ("note", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("language", pa.string()),
        ("date", pa.string()),
        ("locator", pa.string()),
        ("url", pa.string()),
        ("attribution", pa.string()),
        ("chars_in", pa.int64()),
        ("chars_out", pa.int64()),
        ("images_lost", pa.int32()),
        ("images_in", pa.int32()),
        ("images_out", pa.int32()),
        ("changes", pa.list_(_CHANGE)),
        ("row", pa.int64()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclass
class Row:
    """chars, images: as read and as kept. images_lost: that the document shows and the reader could not take. changes:
    step, characters before and after (None where text and images stay), and what it noted on the document.

    row: of the document in the shard's Parquet file; None if it was removed, and then `step` (empty: the reader) says
    by what, `reason` by which rule and `detail` what was found.
    """

    id: str
    source: str
    license: str = ""
    language: str = ""
    date: str | None = None
    locator: str = ""
    url: str = ""
    attribution: str = ""
    chars_in: int = 0
    chars_out: int = 0
    images_lost: int = 0
    images_in: int = 0
    images_out: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    row: int | None = None
    step: str = ""
    reason: str = ""
    detail: str = ""

    @property
    def kept(self) -> bool:
        return not self.reason

    def change(self, step: str, before: Document, after: Document) -> None:
        """Note what a step made of the document, and said of it in its fields and labels."""
        told = [
            f"{name} {old or 'none'} → {new or 'none'}"
            for name in ("id", "license", "language", "date")
            if (old := getattr(before, name)) != (new := getattr(after, name))
        ]
        told += [
            value if name in (step, f"dedup.{step}") else f"{name} {value}"
            for name, value in after.labels.items()
            if before.labels.get(name) != value
        ]
        sizes = (characters(before), characters(after)) if after.segments != before.segments else (None, None)
        note = _utf8(", ".join(told)[:500])
        if note or sizes[0] is not None:
            self.changes.append({"step": step, "before": sizes[0], "after": sizes[1], "note": note})

    def settle(self, document: Document) -> None:
        """Take over what the steps found out, such as the language."""
        self.id, self.license, self.language = document.id, document.license, document.language
        self.date = document.date
        self.chars_out, self.images_out = characters(document), pictures(document)

    def remove(self, step: str, removed: Removed) -> None:
        self.step, self.reason, self.detail = step, removed.reason, removed.detail[:500]
        self.chars_out = self.images_out = 0
        self.row = None


def characters(document: Document) -> int:
    return sum(len(segment.text) for segment in document.segments if segment.text)


def pictures(document: Document) -> int:
    return sum(segment.image is not None for segment in document.segments)


def of_document(document: Document) -> Row:
    labels = document.labels
    return Row(
        id=document.id,
        source=document.source,
        license=document.license,
        language=document.language,
        date=document.date,
        locator=labels.get("locator", ""),
        url=labels.get("url", ""),
        attribution=labels.get("attribution", ""),
        chars_in=characters(document),
        images_lost=sum(int(labels[name]) for name in LOST if labels.get(name, "").isdecimal()),
        images_in=pictures(document),
    )


def of_removed(source: str, removed: Removed) -> Row:
    row = Row(id=removed.id, source=source, locator=removed.locator or removed.id)
    row.remove("", removed)
    return row


class Writer:
    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        self._rows.append({key: _utf8(value) for key, value in vars(row).items()})
        if len(self._rows) >= ROWS:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


def _utf8(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A ledger that appears whole, or not at all."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, SCHEMA, compression="zstd") as inner,
    ):
        writer = Writer(inner)
        yield writer
        writer.flush()


def read(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of one ledger in the order they came in. Raises DataError where it is missing or damaged."""
    try:
        with path.open("rb") as stream:
            for batch in pq.ParquetFile(stream).iter_batches(ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    row["changes"] = row.get("changes") or []
                    yield Row(**row)
    except (OSError, pa.ArrowException, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())}). The collection is damaged or was not finished; "
            "run its build again."
        ) from error
