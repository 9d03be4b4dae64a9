"""Parquet, a group of rows after the other: interleaved documents in OBELICS form, or rows with a text column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, SkipCount
from foretell.data.image_store import ImageStore
from foretell.data.parquet import batch_rows, columns_of, document_of
from foretell.data.read.files import Unit
from foretell.data.read.rows import COLUMN, Defaults, Place, first, read_row
from foretell.data.read.sections import Chat, Fields, Limits
from foretell.errors import DataError

ROWS = 64
CHAT_COLUMNS = ("messages", "conversations", "instruction", "input", "output", "system", "history")
BOMB_BYTES = 1 << 30  # of one row group, from which its packing is looked at
BAD_ROW = {
    "rows that are not UTF-8": "read.encoding",
    "rows whose lists differ in length": "read.row",
    "rows with an unknown role": "read.row",
    "empty rows": "read.empty",
    "rows with damaged labels": "read.row",
    "rows with an image that is not beside them": "read.image",
}


def table_units(stream: IO[bytes], unit: Unit, unit_bytes: int) -> list[Unit]:
    """A file's row groups in pieces of about `unit_bytes`; the file as it is, if its footer cannot be read."""
    try:
        metadata = pq.ParquetFile(stream).metadata
        sizes = [_packed(metadata.row_group(i)) for i in range(metadata.num_row_groups)]
    except (OSError, pa.ArrowException):
        return [unit]
    units: list[Unit] = []
    start = total = 0
    for i, size in enumerate(sizes):
        total += size
        if total >= unit_bytes or i + 1 == len(sizes):
            units.append(replace(unit, start=start, stop=i + 1, size=total))
            start, total = i + 1, 0
    return units or [unit]


def _packed(group: Any) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def read_table(
    stream: IO[bytes],
    name: str,
    unit: Unit,
    limits: Limits,
    fields: Fields,
    chat: Chat,
    images: bool,
    fill: Defaults,
    beside: Path,
) -> Iterator[Document | Removed]:
    """The documents of a unit's row groups; every row of a damaged group is counted as removed.

    beside: the folder where images lie that rows have by their paths, as those of a collection do.
    """
    place = Place(name, name)
    try:
        file = pq.ParquetFile(stream, buffer_size=1 << 20)
        groups, schema = file.metadata.num_row_groups, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        yield place.removed("read.parquet", error)
        return
    interleaved = "texts" in schema.names
    try:
        columns = columns_of(name, schema, images) if interleaved else _columns(schema, fields)
    except DataError as error:
        columns, wrong = [], str(error)
    else:
        wrong = "" if columns else f"no column of {', '.join([*fields.text, *CHAT_COLUMNS])} in {schema.names}"
    if not groups or not file.metadata.num_rows:
        yield place.removed("read.empty")
        return
    if unit.stop > groups:
        yield place.removed("read.changed", f"it had {unit.stop} row groups or more when it was listed; now {groups}")
    number = sum(file.metadata.row_group(i).num_rows for i in range(min(unit.start, groups)))
    with closing(ImageStore(beside)) as store:
        for i in range(unit.start, min(unit.stop or groups, groups)):
            group = file.metadata.row_group(i)
            end = number + group.num_rows
            reason, why = ("read.columns", wrong) if wrong else ("read.parquet", "")
            if group.total_byte_size > max(BOMB_BYTES, limits.ratio * _packed(group)):
                reason, why = "read.bomb", f"{_packed(group):,} bytes unpack to {group.total_byte_size:,}"
            if not why:
                try:
                    for batch in file.iter_batches(ROWS, row_groups=[i], columns=columns, use_threads=False):
                        for row in batch_rows(batch):
                            at = Place(f"{name}:{number}", name)
                            number += 1
                            if interleaved:
                                yield _interleaved(row, at, fields, fill, store)
                            else:
                                yield read_row(row, at, fields, chat, fill) if row else at.removed("read.encoding")
                except (OSError, pa.ArrowException) as error:
                    if isinstance(error, OSError) and error.errno:
                        raise
                    why = str(error)
            for lost in range(number, end):
                yield Place(f"{name}:{lost}", name).removed(reason, why)
            number = end


def _columns(schema: pa.Schema, fields: Fields) -> list[str]:
    """The columns that a row's document is made of; none if no text or conversation is among them."""
    texts = [n for n in (*COLUMN.findall(fields.template), *fields.text) if n in schema.names]
    chats = [n for n in CHAT_COLUMNS if n in schema.names]
    about = fields.id + fields.url + fields.path + fields.license + fields.language + fields.date + fields.labels
    about += fields.origin + fields.author
    return [n for n in dict.fromkeys([*texts, *chats, *about]) if n in schema.names] if texts or chats else []


def _interleaved(
    row: Mapping[str, Any], place: Place, fields: Fields, fill: Defaults, store: ImageStore
) -> Document | Removed:
    skipped = SkipCount()
    defaults = {"source": fill.source, "license": fill.license, "language": fill.language, "kind": fill.source}
    document = document_of(row, place.id, defaults, skipped, store)
    if document is None:
        told = next(iter(skipped.counts))
        return place.removed(BAD_ROW.get(told, "read.row"), told)
    labels = {key: value for key, value in document.labels.items() if isinstance(value, str)}
    labels |= {"locator": place.id, "path": place.path}
    if document.source != fill.source:
        labels.setdefault("origin", document.source)
        labels.setdefault("attribution", f"{document.source} ({document.license})")
    if url := first(row, fields.url):
        labels.setdefault("url", url)
    return replace(document, source=fill.source, kind=fill.source, date=document.date or fill.date, labels=labels)
