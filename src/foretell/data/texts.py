"""The text of training data, row by row, for those who must see all of it: nothing that is damaged is passed over.

Where a model is trained, single bad documents are left out and counted (`sources`). Where it is asked whether a text
was in the data, one that was left out would be an answer that nobody gave: so it is named, by file and line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretell.chat import Conversation
from foretell.data.document import Segment, turns
from foretell.data.parquet import reading
from foretell.data.sources import TEXT_SUFFIX, source_files
from foretell.errors import ConversationError, DataError, RowError
from foretell.measure.overlap.builder import CorpusFile, Row

_LINES, _PARQUET = (".jsonl", ".ndjson"), ".parquet"
_PIECE = 1 << 22  # characters of a plain text that are read at once
_ROWS = 64
_TEXT_COLUMNS = (pa.types.is_string, pa.types.is_large_string)

Skip = Callable[[RowError], None]


def corpus_files(
    sources: Sequence[Path], fields: Sequence[str] = ("text",), skip: Skip | None = None
) -> list[CorpusFile]:
    """The files of a corpus: files, folders below which every file of a known kind is read, and runs.

    Kinds: JSON lines with text in `fields` or with `messages`, Parquet with such columns or with documents in OBELICS
    form (`texts`), and plain text and code, a document a file. Of a run directory the packed documents that it was
    trained on are read. skip: is told of rows that cannot be read, which are then left out; without it the first one
    is raised. Raises DataError for what is not there, or holds no such file.
    """
    files: list[CorpusFile] = []
    for source in sources:
        path = Path(source)
        if (path / "recipe.yaml").is_file():
            trained = sorted((path / "data").glob("*/train.parquet"))
            if not trained:
                raise DataError(f"The data stage of {path} is not finished. Build it with: foretell run {path}.")
            found = [(f"{path.name}/{file.parent.name}", file) for file in trained]
        else:
            found = source_files(str(source), path, lambda file: _kind(file) is not None)
        for name, file in found:
            kind = _kind(file) or _plain
            files.append(
                CorpusFile(name, file, partial(kind, file, tuple(fields), skip), f"{fields} {skip is not None}")
            )
    return files


def _kind(file: Path) -> Callable[[Path, Sequence[str], Skip | None], Iterator[Row]] | None:
    if file.suffix in _LINES:
        return _json_lines
    if file.suffix == _PARQUET:
        return _parquet
    return _plain if TEXT_SUFFIX.fullmatch(file.suffix) else None


def _plain(file: Path, fields: Sequence[str], skip: Skip | None) -> Iterator[Row]:
    """One document. Read in pieces, so that it may be larger than the memory."""
    try:
        for _ in _pieces(file) if skip is not None else ():  # a document that is begun cannot be left out
            pass
    except RowError as error:
        assert skip is not None
        skip(error)
    else:
        yield 1, _pieces(file)


def _pieces(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except UnicodeDecodeError as error:
        with file.open("rb") as lines:
            bad = next((n for n, line in enumerate(lines, 1) if not _is_utf8(line)), 1)
        raise _not_utf8(file, "line", bad, error) from error
    except OSError as error:
        raise _unreadable(file, error) from error


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(file: Path, what: str, number: int, error: UnicodeDecodeError) -> RowError:
    advice = "Convert the file, or give --skip-bad."
    return RowError(f"{file}, {what} {number}", "text", f"it is not UTF-8 ({error.reason})", advice)


def _json_lines(file: Path, fields: Sequence[str], skip: Skip | None) -> Iterator[Row]:
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    yield number, _texts_of(line, f"{file}, line {number}", fields)
                except RowError as error:
                    if skip is None:
                        raise
                    skip(error)
    except OSError as error:
        raise _unreadable(file, error) from error


def _texts_of(line: bytes, where: str, fields: Sequence[str]) -> Iterable[str]:
    advice = "Mend or remove the line, or give --skip-bad."
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError(where, "line", f"it is not UTF-8 ({error.reason})", advice) from error
    except (ValueError, RecursionError) as error:
        raise RowError(where, "line", f"it is not JSON ({error})", advice) from error
    if not isinstance(row, dict):
        raise RowError(where, "line", f"it holds a {type(row).__name__}, not an object", advice)
    told = [row[field] for field in fields if isinstance(row.get(field), str)]
    if told:
        return told
    if "messages" in row:
        try:
            return texts_of(turns(Conversation.from_openai(row["messages"])))
        except ConversationError as error:
            raise RowError(where, "messages", str(error).rstrip("."), advice) from error
    there = ", ".join(map(repr, row)) or "nothing"
    raise RowError(where, fields[0], f"there is no text; the row has {there}", "Name --field, or give --skip-bad.")


def texts_of(segments: Iterable[Segment]) -> list[str]:
    """The text of a document: of its segments, and what is written of its images."""
    return [text for s in segments for text in (s.text, s.alt, s.caption) if text]


def _parquet(file: Path, fields: Sequence[str], skip: Skip | None) -> Iterator[Row]:
    with reading(file) as table:
        columns = _columns(file, table.schema_arrow, fields)
        number = 0
        for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
            for i in range(len(batch)):
                number += 1
                try:
                    held: list[Any] = [batch.column(name)[i].as_py() for name in columns]
                except UnicodeDecodeError as error:
                    bad = _not_utf8(file, "row", number, error)
                    if skip is None:
                        raise bad from error
                    skip(bad)
                    continue
                yield number, [t for value in held for t in (value if isinstance(value, list) else [value]) if t]


def _columns(file: Path, schema: pa.Schema, fields: Sequence[str]) -> list[str]:
    kinds = {each.name: each.type for each in schema}

    def holds_text(name: str) -> bool:
        kind = kinds.get(name)
        if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            kind = kind.value_type
        return kind is not None and any(fits(kind) for fits in _TEXT_COLUMNS)

    if found := [name for name in fields if holds_text(name)] or [name for name in ("texts",) if holds_text(name)]:
        return found
    there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    raise DataError(
        f"{file} has the columns {there}; expected {fields[0]!r} with strings, or 'texts' with lists of them. Name "
        "those that hold text, with --field."
    )


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(f"{file} could not be read: {error.strerror}. Check its permissions.")
