"""A source cut into units of work, and one unit read: for every record a document, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, SkipCount
from foretell.data.python import python_documents
from foretell.data.read.files import (
    PACKED,
    File,
    Unit,
    Unreadable,
    Vanished,
    failing,
    form_of,
    listing,
    opened,
)
from foretell.data.read.folder import read_files, read_zip
from foretell.data.read.git import git_units, read_git
from foretell.data.read.html import Pages
from foretell.data.read.hub import hub_units, read_hub
from foretell.data.read.jsonl import read_json, read_jsonl
from foretell.data.read.pairs import read_pairs
from foretell.data.read.rows import Defaults, Place
from foretell.data.read.sections import (
    FileSource,
    FolderRead,
    GitRead,
    HubRead,
    JsonlRead,
    PairsRead,
    ParquetRead,
    PythonRead,
    ReadSource,
    WarcRead,
    WebSection,
)
from foretell.data.read.tables import read_table, table_units
from foretell.data.read.web import read_warc
from foretell.errors import DataError
from foretell.recipe import PythonSource

TEXT_FILES = 1000  # in one unit
FORMS = {
    "folder": frozenset({"jsonl", "json", "parquet", "warc", "pairs", "zip"}),
    "jsonl": frozenset({"jsonl", "json"}),
    "chat": frozenset({"jsonl", "json", "parquet"}),
    "parquet": frozenset({"parquet"}),
    "warc": frozenset({"warc"}),
    "pairs": frozenset({"pairs"}),
}


def units(source: ReadSource) -> list[Unit]:
    """A source in independent pieces of work, in an order that is the same on every machine.

    Raises DataError for a source that is missing, cannot be listed, or holds nothing of its kind.
    """
    if isinstance(source, GitRead):
        return git_units(source)
    if isinstance(source, HubRead):
        return hub_units(source)
    if isinstance(source, PythonRead):
        return [Unit(source.name, "python", (File("python", ""),))]
    found: list[Unit] = []
    small: list[File] = []
    size = 0
    wanted = FORMS[source.kind]
    for file in listing(source.name, source.path):
        form = form_of(file.name)
        if form in wanted:
            found += _file_units(source, Unit(source.name, form, (file,), size=file.size))
            continue
        small.append(file)
        size += file.size
        if len(small) >= TEXT_FILES or size >= source.unit_bytes:
            found.append(Unit(source.name, "files", tuple(small), size=size))
            small, size = [], 0
    if small:
        found.append(Unit(source.name, "files", tuple(small), size=size))
    if source.kind != "folder" and not any(unit.form in wanted for unit in found):
        raise DataError(
            f"Source {source.name!r}: {source.path} holds no file that {source.kind!r} reads. Check the path, or use "
            "the kind 'folder', which reads every form."
        )
    return found


def _file_units(source: FileSource, unit: Unit) -> list[Unit]:
    """One file in parts, where it can be read from the middle."""
    file = unit.files[0]
    if unit.form == "jsonl" and not PACKED.search(file.name) and file.size > source.unit_bytes:
        starts = range(0, file.size, source.unit_bytes)
        ends = [*starts[1:], file.size]
        return [replace(unit, start=a, stop=b, size=b - a) for a, b in zip(starts, ends, strict=True)]
    if unit.form == "parquet":
        try:
            with opened(source.name, source.path, file.path) as stream:
                return table_units(stream, unit, source.unit_bytes)
        except (Vanished, Unreadable):
            pass  # told when it is read
    return [unit]


def read(source: ReadSource, unit: Unit) -> Iterator[Document | Removed]:
    """Every record of a unit, as a document or as the reason why it is none; so in = kept + removed, always.

    Ids may stand twice: they are compared over all units of a source by whoever joins them.
    Raises DataError where reading cannot go on and the rest must not count as removed (the source is gone, a disk or
    network fails); the unit can be read again later.
    """
    count = 0
    for record in _read(source, unit):
        count += 1
        yield record
    if not count and not unit.start and len(unit.files) == 1:
        yield Place(unit.files[0].name).removed("read.empty", "it holds no record")


def _read(source: ReadSource, unit: Unit) -> Iterator[Document | Removed]:
    if isinstance(source, PythonRead):
        yield from _python(source)
    elif isinstance(source, HubRead):
        if unit.form == "other":
            yield Place(unit.files[0].name).removed("read.file-kind", "no Parquet or JSON")
        else:
            yield from read_hub(source, unit)
    elif isinstance(source, GitRead):
        with Pages(source) as pages:
            yield from read_git(source, unit, pages)
    elif unit.form == "files" and not isinstance(source, FolderRead):
        for file in unit.files:
            yield Place(file.name).removed("read.file-kind", f"not a file that {source.kind!r} reads")
    else:
        with Pages(source if isinstance(source, WebSection) else WebSection(name=source.name, path="")) as pages:
            yield from _read_file(source, unit, pages)


def _read_file(source: FileSource, unit: Unit, pages: Pages) -> Iterator[Document | Removed]:
    fill = Defaults(source.name, source.license, source.language, source.date)
    if unit.form == "files":
        try:
            yield from read_files(source.name, source.path, unit.files, source.limits, pages, fill)
        except OSError as error:
            raise failing(source.name, source.path, error) from error
        return
    file = unit.files[0]
    fill = replace(fill, date=source.date or (file.modified if isinstance(source, FolderRead) else None))
    place = Place(file.name, file.name)
    try:
        with opened(source.name, source.path, file.path) as stream:
            yield from _records(source, unit, stream, pages, fill)
    except Vanished:
        yield place.removed("read.vanished", "it was there when the source was listed")
    except Unreadable as error:
        yield place.removed("read.unreadable", error)
    except OSError as error:
        raise failing(source.name, file.path, error) from error


def _records(
    source: FileSource, unit: Unit, stream: IO[bytes], pages: Pages, fill: Defaults
) -> Iterator[Document | Removed]:
    name, limits = unit.files[0].name, source.limits
    if unit.form == "warc":
        return read_warc(stream, name, limits, pages, fill)
    if unit.form == "zip":
        return read_zip(stream, name, limits, pages, fill)
    if unit.form == "pairs":
        return read_pairs(stream, name, limits, source.order if isinstance(source, PairsRead) else "image", fill)
    assert not isinstance(source, (WarcRead, PairsRead))
    if unit.form == "jsonl":
        return read_jsonl(stream, name, unit, limits, source.fields, source.chat, fill)
    if unit.form == "json":
        return read_json(stream, name, limits, source.fields, source.chat, fill)
    images = not isinstance(source, ParquetRead) or source.images
    beside = Path(unit.files[0].path).parent.parent  # of an object store there is none, and its images are missed
    return read_table(stream, name, unit, limits, source.fields, source.chat, images, fill, beside)


def _python(source: PythonRead) -> Iterator[Document | Removed]:
    skipped = SkipCount()
    section = PythonSource(name=source.name, max_bytes=source.max_bytes, heldout=0)
    for document in python_documents(section, "train", 0, skipped):
        yield replace(document, labels={"locator": document.id, "path": document.id.partition("#")[0]})
    for reason, count in sorted(skipped.counts.items()):
        slug = "read." + reason.replace(" ", "-").lower()
        for number in range(count):
            yield Removed(f"{source.name}:{reason}:{number}", slug, reason)


def source_of(path: str | Path, name: str = "") -> ReadSource:
    """What a bare path stands for: a git checkout, one file of a known form, or a folder of one's own files.

    Raises DataError for a path that does not exist.
    """
    place = str(path)
    called = name or "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(place).name).strip("._-") or "files"
    if "://" not in place and (Path(place) / ".git").exists():
        return GitRead(name=called, path=place)
    files = listing(called, place)
    forms = {form_of(file.name) for file in files}
    if len(files) == 1 or forms <= {"jsonl"} or forms <= {"parquet"} or forms <= {"warc"} or forms <= {"pairs"}:
        match form_of(files[0].name):
            case "jsonl":
                return JsonlRead(name=called, path=place)
            case "parquet":
                return ParquetRead(name=called, path=place)
            case "warc":
                return WarcRead(name=called, path=place)
            case "pairs":
                return PairsRead(name=called, path=place)
    return FolderRead(name=called, path=place)
