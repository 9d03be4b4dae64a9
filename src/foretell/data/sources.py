"""Readers: every kind of source in a recipe as a stream of documents, split into training and held-out."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from foretell.chat import Conversation
from foretell.data.document import Document, Segment, SkipCount, turns
from foretell.data.parquet import read_rows
from foretell.data.python import python_documents
from foretell.data.splits import Split, hash_order, modified, split_of
from foretell.errors import ConversationError, DataError, MissingExtraError
from foretell.recipe import FolderSource, HubSource, JsonlSource, ParquetSource, PythonSource, Source, WorldSource

T = TypeVar("T")
MAX_LINE = 64_000_000  # bytes of one JSON line
FILES_AT_ONCE = 16  # that are read in turn
HELD_OUT = frozenset({"heldout", "test", "validation", "valid", "val", "dev", "eval"})  # what `split` may say
TEXT_SUFFIX = re.compile(
    r"\.(txt|text|md|markdown|rst|tex|org|adoc|pyi?|[ch]|cc|[ch]pp|cu|rs|go|m?js|tsx?|jsx|java|kt|scala|swift|rb|php|pl|pod"
    r"|lua|r|jl|hs|ml|cs|sh|sql|html|css|toml|ya?ml|ini|cfg)",
    re.IGNORECASE,
)


def read_source(source: Source, split: Split, seed: int, skipped: SkipCount) -> Iterator[Document]:
    """The documents of one split, deterministic for a seed; single bad ones are left out and counted.

    At most `max_bytes` of text are read for training and `max_bytes * heldout` for the held-out part. What is held
    out depends on a document's id alone, not on the seed. Raises DataError for a path that is missing or cannot
    be read, and a file of the wrong form.
    """
    documents = _reader(source, split, seed, skipped)
    if isinstance(source, WorldSource) or source.max_bytes is None:
        return documents
    return _bounded(documents, source.max_bytes * (1.0 if split == "train" else source.heldout))


def _reader(source: Source, split: Split, seed: int, skipped: SkipCount) -> Iterator[Document]:
    if split == "heldout" and isinstance(source, (JsonlSource, ParquetSource, HubSource)):
        skipped = SkipCount()  # these are read whole for either split: what is bad is counted with the first
    match source:
        case PythonSource():
            return python_documents(source, split, seed, skipped)
        case FolderSource():
            return _folder(source, split, seed, skipped)
        case JsonlSource():
            return _keep(_jsonl(source, seed, skipped), split, source.heldout)
        case ParquetSource():
            return _parquet(source, split, seed, skipped)
        case HubSource():
            return _keep(_hub(source, skipped), split, source.heldout)
        case WorldSource():
            from foretell.data.world import generate

            return (item.content for item in generate(source, split, seed))


def _bounded(documents: Iterator[Document], left: float) -> Iterator[Document]:
    for document in documents:
        if left <= 0:
            return
        left -= sum(len((segment.text or "").encode("utf-8", "replace")) for segment in document.segments)
        yield document


def _keep(documents: Iterable[Document], split: Split, heldout: float) -> Iterator[Document]:
    return (document for document in documents if split_of(document.id, heldout) == split)


def source_files(name: str, path: Path, wanted: Callable[[Path], bool]) -> list[tuple[str, Path]]:
    """(name, file) below a folder, hidden files apart; the file itself; or what a glob matches.

    Raises DataError if there is none.
    """
    missing = DataError(
        f"Source {name!r}: {path} does not exist. Give an existing file or folder in the recipe, or with "
        f"--set data.sources.{name}.path=/path."
    )
    try:
        if path.is_file():
            return [(path.name, path)]
        if path.is_dir():
            if (path / "collection.json").is_file() and (path / "data").is_dir():
                path = path / "data"  # of a collection only this is for reading; its ledger is Parquet too
            below = _below(path)
        elif set("*?[") & set(str(path)):
            root = next(parent for parent in path.parents if not set("*?[") & set(str(parent)))
            below, path = root.glob(str(path.relative_to(root))), root
        else:
            raise missing
        found = {str(file.relative_to(path)): file for file in below if file.is_file() and wanted(file)}
    except OSError as error:
        raise DataError(
            f"Source {name!r}: {error.filename or path} could not be read: {error.strerror}. "
            "Change its permissions, or leave it out of the recipe."
        ) from error
    files = [(inner, found[inner]) for inner in sorted(found) if not re.search(r"(^|/)\.", inner)]
    if not files:
        raise DataError(f"Source {name!r}: {path} holds no file that this kind of source reads. Check the path.")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Raises OSError for a folder that may not be read, which rglob would pass over."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names)


def _folder(source: FolderSource, split: Split, seed: int, skipped: SkipCount) -> Iterator[Document]:
    files = dict(source_files(source.name, source.path, lambda file: bool(TEXT_SUFFIX.fullmatch(file.suffix))))
    for name in hash_order(files, seed):
        if split_of(name, source.heldout) == split and (text := read_text(files[name], skipped)) is not None:
            date = modified(files[name])
            yield Document(name, (Segment(text=text),), source.name, source.license, source.language, date, source.name)


def read_text(file: Path, skipped: SkipCount) -> str | None:
    """A file's text, or None, counted, if it is empty, not UTF-8 or cannot be read."""
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError:
        skipped.add("unreadable files")
    except UnicodeDecodeError:
        skipped.add("files that are not UTF-8")
    else:
        if text.strip():
            return text
        skipped.add("empty files")
    return None


def _in_turn(streams: Iterable[Iterator[T]]) -> Iterator[T]:
    """One item of each stream after the other, so that a reader who stops early has read some of every file."""
    waiting = iter(streams)
    reading = deque(islice(waiting, FILES_AT_ONCE))
    while reading:
        stream = reading.popleft()
        for item in islice(stream, 1):
            yield item
            reading.append(stream)
            break
        else:
            reading.extend(islice(waiting, 1))


def _jsonl(source: JsonlSource, seed: int, skipped: SkipCount) -> Iterator[Document]:
    files = dict(source_files(source.name, source.path, lambda file: file.suffix in (".jsonl", ".ndjson")))
    return _in_turn(_lines(source, name, files[name], skipped) for name in hash_order(files, seed))


def _lines(source: JsonlSource, name: str, file: Path, skipped: SkipCount) -> Iterator[Document]:
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE):
                number += 1
                if line.strip() and (row := _json(line, skipped)) is not None:
                    document = _from_row(row, f"{name}:{number}", source, skipped)
                    if document is not None:
                        yield document
    except OSError as error:
        raise DataError(
            f"Source {source.name!r}: {file} could not be read: {error.strerror}. Mend or remove it."
        ) from error


def _json(line: bytes, skipped: SkipCount) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        skipped.add("lines that are not UTF-8")
    except (ValueError, RecursionError):
        skipped.add("lines that are not JSON")
    else:
        if isinstance(row, dict):
            return row
        skipped.add("lines that are not JSON objects")
    return None


def _from_row(
    row: Mapping[str, Any], number: str, source: JsonlSource | HubSource, skipped: SkipCount
) -> Document | None:
    """A document from one object with text or messages; its own licence, language and date go before the recipe's."""
    if source.text_field not in row and "messages" in row:
        try:
            segments = turns(Conversation.from_openai(row["messages"]))
        except ConversationError:
            skipped.add("damaged conversations")
            return None
    else:
        text = row.get(source.text_field)
        if not isinstance(text, str):
            skipped.add(f"rows without text in {source.text_field!r} and without messages")
            return None
        segments = (Segment(text=text),) if text.strip() else ()
    if not segments:
        skipped.add("empty rows")
        return None

    def own(*names: str) -> str | None:
        return next((row[name] for name in names if isinstance(row.get(name), str) and row[name]), None)

    return Document(
        id=str(row.get("id") or number),
        segments=segments,
        source=own("source") or source.name,
        license=own("license") or source.license,
        language=own("lang", "language") or source.language,
        date=own("date"),
        kind=source.name,
    )


def _parquet(source: ParquetSource, split: Split, seed: int, skipped: SkipCount) -> Iterator[Document]:
    defaults = {
        "source": source.name,
        "license": source.license,
        "language": source.language,
        "kind": source.name,  # files name hundreds of works; one curve each tells nothing
    }
    files = dict(source_files(source.name, source.path, lambda file: file.suffix == ".parquet"))
    rows = (
        read_rows(files[name], images=source.images, defaults=defaults, skipped=skipped)
        for name in hash_order(files, seed)
    )
    for document, row_split in _in_turn(rows):
        told = row_split if source.split == "column" else None
        held = told.lower() in HELD_OUT if told else split_of(document.id, source.heldout) == "heldout"
        if held == (split == "heldout"):
            yield document


def _hub(source: HubSource, skipped: SkipCount) -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("Streaming a data set from the Hugging Face hub", "hub") from error
    try:
        rows = load_dataset(source.dataset, source.subset, split="train", streaming=True)
        for number, row in enumerate(rows):
            document = _from_row(row, f"{source.dataset}:{number}", source, skipped)
            if document is not None:
                yield document
    except Exception as error:  # the library, its file systems and the network raise nearly anything
        raise DataError(
            f"Source {source.name!r}: {source.dataset} could not be streamed from the hub ({error}). Check the "
            "name, the subset and the network, then run the same command again."
        ) from error
