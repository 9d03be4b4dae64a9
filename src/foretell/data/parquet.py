"""Documents as Parquet in OBELICS form: `texts` and `images`, lists of equal length, one of the two at each place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from foretell.chat import Role
from foretell.data.document import Document, Segment, SkipCount
from foretell.data.image_store import ImageStore
from foretell.errors import DataError
from foretell.files import atomic_path

ROWS = 32  # documents read at once
GROUP_BYTES = 16_000_000  # of text and images in one row group
COMPRESSION = "zstd"

_IMAGE = pa.struct([("bytes", pa.binary()), ("alt", pa.string()), ("caption", pa.string()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("lang", pa.string()),
        ("date", pa.string()),
        ("kind", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(_IMAGE)),
        ("roles", pa.list_(pa.string())),
        ("labels", pa.string()),
    ]
)


_SCALARS = ("source", "license", "lang", "language", "date", "kind", "labels", "split")
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)


def write_documents(path: Path, documents: Iterable[Document], place: Callable[[bytes], str] | None = None) -> int:
    """Write documents as they come, in bounded memory, atomically. Returns how many.

    place: keeps an image elsewhere and returns its path (see `image_store`), which the row has in place of the bytes.
    """
    count = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, SCHEMA, compression=COMPRESSION) as writer,
    ):
        rows: list[dict[str, Any]] = []
        size = 0
        for document in documents:
            rows.append(_row(document, place))
            count += 1
            size += sum(len(s.text or "") + len(s.image or b"") for s in document.segments)
            if size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, size = [], 0
        if rows or not count:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count


def _row(document: Document, place: Callable[[bytes], str] | None) -> dict[str, Any]:
    segments = document.segments
    return {
        "id": _utf8(document.id),
        "source": _utf8(document.source),
        "license": _utf8(document.license),
        "lang": _utf8(document.language),
        "date": _utf8(document.date),
        "kind": _utf8(document.kind),
        "texts": [_utf8(s.text) for s in segments],
        "images": [
            None
            if s.image is None
            else {
                "bytes": None if place else s.image,
                "alt": _utf8(s.alt),
                "caption": _utf8(s.caption),
                "path": place(s.image) if place else None,
            }
            for s in segments
        ],
        "roles": [s.role for s in segments] if document.is_conversation else None,
        "labels": json.dumps(document.labels) if document.labels else None,
    }


def _utf8(text: str | None) -> str | None:
    """Names of files and escapes in JSON may hold lone surrogates, which UTF-8 cannot."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def read_documents(path: Path, *, images: bool = True, skipped: SkipCount | None = None) -> Iterator[Document]:
    """The documents of one file, as they stand in it; images False leaves pictures out.

    Raises DataError for what is not Parquet, or has the wrong columns.
    """
    return (document for document, _ in read_rows(path, images=images, skipped=skipped))


def read_rows(
    path: Path,
    *,
    images: bool = True,
    defaults: Mapping[str, str] | None = None,
    skipped: SkipCount | None = None,
) -> Iterator[tuple[Document, str | None]]:
    """As `read_documents`, each with its row's `split` (None without that column).

    defaults: source, license, language, kind for rows that do not say.
    """
    store = ImageStore(path.parent.parent)
    try:
        yield from _read_rows(path, images, defaults, SkipCount() if skipped is None else skipped, store)
    finally:
        store.close()


def _read_rows(
    path: Path, images: bool, defaults: Mapping[str, str] | None, skipped: SkipCount, store: ImageStore
) -> Iterator[tuple[Document, str | None]]:
    fill = {"source": path.stem, "license": "unknown", "language": "und", **(defaults or {})}
    with reading(path) as file:
        columns = columns_of(path, file.schema_arrow, images)
        number = 0
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            for row in batch_rows(batch):
                document = document_of(row, f"{path.name}:{number}", fill, skipped, store)
                number += 1
                if document is not None:
                    yield document, row.get("split")


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """A file, opened. Raises DataError for what is not Parquet or cannot be read, here or while it is read."""
    try:
        with path.open("rb") as stream:
            yield pq.ParquetFile(stream, buffer_size=1 << 20)
    except OSError as error:
        if error.strerror:
            raise DataError(f"{path} could not be read: {error.strerror}. Check its permissions.") from error
        raise DataError(
            f"{path} is damaged ({' '.join(str(error).split()).strip(' .')}). Copy or write it again."
        ) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read ({error}). Copy or write it again.") from error


def batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows as Python data; one that is not UTF-8 is empty."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [{}]
        rows = [row for i in range(len(batch)) for row in batch_rows(batch.slice(i, 1))]
    return rows


def columns_of(path: Path | str, schema: pa.Schema, images: bool) -> list[str]:
    """The columns to read. Raises DataError naming what was found and expected."""
    kinds = {field.name: field.type for field in schema}
    found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())

    def wrong(expected: str) -> DataError:
        return DataError(f"{path} has the columns {found}; expected {expected}. Convert the file, or choose another.")

    if "texts" not in kinds or not _is_list(kinds["texts"], pa.types.is_string, pa.types.is_large_string):
        raise wrong("'texts', a list of strings, and beside it 'images', a list of image structs or null")
    if images and "images" in kinds:
        if not _is_list(
            kinds["images"], pa.types.is_struct, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null
        ):
            raise wrong("'images' as a list of structs with 'bytes' (or set images: false to read the text alone)")
        item = kinds["images"].value_type
        if pa.types.is_struct(item) and "bytes" not in {item.field(i).name for i in range(item.num_fields)}:
            raise wrong("'images' as a list of structs with 'bytes' (or set images: false to read the text alone)")
    if "roles" in kinds and not _is_list(kinds["roles"], *_TEXT):
        raise wrong("'roles', a list of strings")
    for name in _SCALARS:
        if name in kinds and not any(fits(kinds[name]) for fits in _TEXT):
            raise wrong(f"{name!r} as a string, or no such column")
    known = [*SCHEMA.names, "language", "split"]
    return [name for name in known if name in kinds and (images or name != "images")]


def _is_list(kind: pa.DataType, *items: Any) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and any(item(kind.value_type) for item in items)


def document_of(
    row: Mapping[str, Any],
    number: str,
    fill: Mapping[str, str],
    skipped: SkipCount,
    store: ImageStore | None = None,
) -> Document | None:
    """The document of a row, or None, counted. store: where images lie that the row has by their path."""
    if not row:
        skipped.add("rows that are not UTF-8")
        return None
    texts = row["texts"] or []
    images = row.get("images") or [None] * len(texts)
    roles = row.get("roles") or [None] * len(texts)
    if len(images) != len(texts) or len(roles) != len(texts):
        skipped.add("rows whose lists differ in length")
        return None
    if not set(roles) <= {None, *get_args(Role)}:
        skipped.add("rows with an unknown role")
        return None
    segments = []
    for text, image, role in zip(texts, images, roles, strict=True):
        if isinstance(image, bytes):
            image = {"bytes": image}
        if image is not None and image["bytes"] is None and store is not None and image.get("path"):
            image = {**image, "bytes": store.read(image["path"])}
            if image["bytes"] is None:
                skipped.add("rows with an image that is not beside them")
                return None
        if image is not None and image["bytes"] is not None:
            segments.append(Segment(None, image["bytes"], image.get("alt"), image.get("caption"), role))
        elif text is not None:
            segments.append(Segment(text=text, role=role))
    if not segments:
        skipped.add("empty rows")
        return None
    try:
        labels = json.loads(row.get("labels") or "{}")
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, dict):
        skipped.add("rows with damaged labels")
        return None
    source = row.get("source") or fill["source"]
    return Document(
        id=number if row.get("id") in (None, "") else str(row["id"]),
        segments=tuple(segments),
        source=source,
        license=row.get("license") or fill["license"],
        language=row.get("lang") or row.get("language") or fill["language"],
        date=row.get("date"),
        kind=row.get("kind") or fill.get("kind", source),
        labels=labels,
    )
