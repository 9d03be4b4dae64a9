"""JSON lines, plain or compressed, and lists in JSON: in parts, in bounded memory, with damage skipped and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import SEEK_END
from typing import IO, Any

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.read.compressed import CHUNK, Damaged, GzipMembers, Line, Unpacked, lines
from foretell.data.read.files import PACKED, Unit
from foretell.data.read.rows import Defaults, Place, read_row
from foretell.data.read.sections import Chat, Fields, Limits


def read_jsonl(
    stream: IO[bytes], name: str, unit: Unit, limits: Limits, fields: Fields, chat: Chat, fill: Defaults
) -> Iterator[Document | Removed]:
    """The lines that begin in the unit's bytes. Locators are file:line, and file@byte where a file is cut in parts."""
    number = 0
    for line in _lines(stream, name, limits, unit.start, unit.stop):
        if isinstance(line, Damaged):
            yield Place(f"{name}:{number + 1}", name).removed(line.reason, line.detail)
            continue
        number += 1
        place = Place(f"{name}@{line.start}" if unit.stop else f"{name}:{number}", name)
        if line.data is None:
            yield place.removed("read.long-line", f"over {limits.document_bytes:,} bytes")
        elif line.data and not line.data.isspace():
            row = parse(line.data, place)
            yield row if isinstance(row, Removed) else read_row(row, place, fields, chat, fill)
    if unit.stop and (size := stream.seek(0, SEEK_END)) < unit.stop:
        told = f"it had {unit.stop:,} bytes or more when it was listed; now {size:,}"
        yield Place(f"{name}@{unit.start}", name).removed("read.changed", told)


def parse(data: bytes, place: Place) -> dict[str, Any] | Removed:
    try:
        row = json.loads(data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"))
    except UnicodeDecodeError as error:
        return place.removed("read.encoding", error.reason)
    except (ValueError, RecursionError) as error:
        return place.removed("read.json", not_json(error))
    return row if isinstance(row, dict) else place.removed("read.json", f"a {type(row).__name__}, not an object")


def not_json(error: ValueError | RecursionError) -> str:
    """What is wrong with a text that should be JSON."""
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    if error.msg.startswith("Unterminated") or error.pos >= len(error.doc.rstrip()):
        return f"its JSON is cut off after {len(error.doc):,} characters"
    line = f"line {error.lineno}, " if "\n" in error.doc else ""
    return f"no JSON at {line}column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"


def _lines(stream: IO[bytes], name: str, limits: Limits, start: int, stop: int) -> Iterator[Line | Damaged]:
    packed = PACKED.search(name)
    if not packed:
        if start and not (start := _next_line(stream, start, stop)):
            return
        for line in lines(stream, limits.document_bytes, start):
            if stop and line.start >= stop:
                return
            yield line
        return
    if packed.group().lower() != ".gz":
        try:
            yield from lines(Unpacked(stream, packed.group().lower(), limits), limits.document_bytes)
        except Damaged as error:
            yield error
        return
    joined = Joined(GzipMembers(stream, limits, bool))
    while not joined.ended:
        try:
            yield from lines(joined, limits.document_bytes)
        except Damaged as error:
            yield error


def _next_line(stream: IO[bytes], start: int, stop: int) -> int:
    """Go to the first line that begins at `start` or later; its offset, or 0 if it begins past `stop`."""
    at = start - 1
    stream.seek(at)
    while chunk := stream.read(CHUNK):
        if (found := chunk.find(b"\n")) >= 0:
            at += found + 1
            stream.seek(at)
            return at if at < stop else 0
        at += len(chunk)
        if at >= stop:
            break
    return 0


class Joined:
    """The members of a gzip file as one stream, as far as nothing is damaged: a line may go over their borders."""

    def __init__(self, members: GzipMembers) -> None:
        self._members, self.ended = iter(members), False
        self._open: Any = None

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._open is None:
                self._open = next(self._members, None)
                if self._open is None:
                    self.ended = True
                    return b""
            member, self._open = self._open, None
            if isinstance(member, Damaged):
                raise member
            if data := member.read(size):
                self._open = member
                return bytes(data)


def read_json(
    stream: IO[bytes], name: str, limits: Limits, fields: Fields, chat: Chat, fill: Defaults
) -> Iterator[Document | Removed]:
    """A file that is one JSON list of rows, or one row."""
    place = Place(name, name)
    data = unpacked(stream, name, limits, place)
    if isinstance(data, Removed):
        yield data
        return
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield place.removed("read.encoding", error.reason)
        return
    except (ValueError, RecursionError) as error:
        yield place.removed("read.json", not_json(error))
        return
    if value == []:
        yield place.removed("read.empty")
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        at = Place(f"{name}:{number}" if isinstance(value, list) else name, name)
        if isinstance(row, dict):
            yield read_row(row, at, fields, chat, fill)
        else:
            yield at.removed("read.json", f"a {type(row).__name__}, not an object")


def plain(stream: IO[bytes], name: str, limits: Limits) -> Any:
    """A file's stream, unpacked if its name says so; reading it then may raise Damaged."""
    packed = PACKED.search(name)
    if not packed:
        return stream
    suffix = packed.group().lower()
    return Joined(GzipMembers(stream, limits, bool)) if suffix == ".gz" else Unpacked(stream, suffix, limits)


def unpacked(stream: IO[bytes], name: str, limits: Limits, place: Place) -> bytes | Removed:
    """A whole file, unpacked if its name says so; Removed if it is larger than a document may be, or damaged."""
    source = plain(stream, name, limits)
    parts: list[bytes] = []
    size = 0
    try:
        while size <= limits.document_bytes and (part := source.read(CHUNK)):
            parts.append(part)
            size += len(part)
    except Damaged as error:
        return place.removed(error.reason, error.detail)
    if size > limits.document_bytes:
        return place.removed("read.too-large", f"over {limits.document_bytes:,} bytes")
    return b"".join(parts)
