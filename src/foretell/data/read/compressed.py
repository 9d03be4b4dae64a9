"""Compressed input that may be damaged or hostile: gzip member by member, bombs stopped, lines of bounded length."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

import pyarrow as pa

from foretell.data.read.sections import Limits

MAGIC = b"\x1f\x8b\x08"
CHUNK = 1 << 18
HEAD = 4096  # bytes of what may be a member that are unpacked to see whether it is one
REWIND = 1 << 22  # packed bytes of a damaged member that are searched for the next one


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Damaged(Exception):
    """Packed data that cannot be unpacked. reason: of the removal."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Guard:
    """Counts what goes in and comes out of a decompressor. Raises Damaged for a bomb."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.packed, self.unpacked = limits, 0, 0

    def add(self, packed: int, unpacked: int) -> None:
        self.packed += packed
        self.unpacked += unpacked
        if self.unpacked > self.limits.ratio_from and self.unpacked > self.limits.ratio * self.packed:
            raise Damaged("read.bomb", f"{self.packed:,} bytes unpack to more than {self.unpacked:,}")


class Member:
    """One gzip member, unpacked as it is read. start: its offset in the file."""

    def __init__(self, owner: GzipMembers, start: int) -> None:
        self.start, self.ended, self.failed = start, False, False
        self._owner, self._unpack, self._guard = owner, zlib.decompressobj(31), Guard(owner.limits)
        self._ready, self._waiting, self._pending, self._whole = b"", b"", False, True
        self.seen = bytearray()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, empty at the end. Raises Damaged; what stood before the damage was given out."""
        parts: list[bytes] = []
        left = size if size >= 0 else 1 << 62
        while left > 0 and (piece := self._ready or self._more()):
            parts.append(piece[:left])
            self._ready = piece[left:]
            left -= len(parts[-1])
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _more(self) -> bytes:
        while not self.ended:
            fresh = not (self._waiting or self._pending)
            data = self._owner.take() if fresh else self._waiting
            if fresh and not data:
                self.failed = True
                raise Damaged("read.gzip", "the file is cut off: it ends within compressed data")
            if fresh and len(self.seen) < REWIND:
                self.seen += data
            elif fresh:
                self._whole = False
            try:
                piece = self._unpack.decompress(data, CHUNK * 4)
                self._guard.add(len(data) if fresh else 0, len(piece))
            except zlib.error as error:
                self.failed = True
                raise Damaged("read.gzip", f"damaged compressed data ({str(error).rpartition(': ')[2]})") from error
            except Damaged:
                self.failed = True
                raise
            self._waiting = self._unpack.unconsumed_tail
            self._pending = len(piece) >= CHUNK * 4  # zlib may hold more, with no input left to be consumed
            if self._unpack.eof:
                self.ended = True
                self._owner.give_back(self._unpack.unused_data)
            if piece:
                return piece
        return b""

    def drain(self) -> None:
        while self.read(CHUNK):
            pass

    def recover(self) -> None:
        """Put back what may hold the next member."""
        if self._whole:
            self._owner.give_back(bytes(self.seen[1:]))


class GzipMembers:
    """The members of a gzip file, one after the other; behind a damaged one, from the next that can be unpacked.

    begins: whether unpacked bytes look like the start of a member, so that three bytes that happen to stand in
    damaged data are not taken for one.
    """

    def __init__(self, stream: IO[bytes], limits: Limits, begins: Callable[[bytes], bool]) -> None:
        self.limits = limits
        self._stream, self._begins, self._buffer, self._read = stream, begins, b"", 0

    def take(self) -> bytes:
        data, self._buffer = self._buffer, b""
        if not data:
            data = self._stream.read(CHUNK)
            self._read += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer

    def __iter__(self) -> Iterator[Member | Damaged]:
        """Each member, to be read before the next is asked for; Damaged where bytes were passed over before one."""
        while self._fill(18):
            if not self._buffer.startswith(MAGIC):
                if not self._buffer.strip(b"\0"):  # padding, as tape and block devices leave it
                    self._buffer = b""
                    continue
                begins = self._read == len(self._buffer)
                yield Damaged("read.gzip", "not gzip, as its name says" if begins else "bytes between compressed data")
                if not self._search():
                    return
            member = Member(self, self._read - len(self._buffer))
            yield member
            if not member.failed:
                try:
                    member.drain()
                except Damaged as error:
                    yield error
            if member.failed:
                member.recover()
                if not self._search():
                    return

    def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = self._stream.read(CHUNK)
            if not data:
                break
            self._read += len(data)
            self._buffer += data
        return bool(self._buffer)

    def _search(self) -> bool:
        """Move on to the next member that unpacks."""
        at = 0
        while True:
            at = self._buffer.find(MAGIC, at)
            if at < 0:
                self._buffer, at = self._buffer[-2:], 0
                if not (data := self._stream.read(CHUNK)):
                    return False
                self._read += len(data)
                self._buffer += data
                continue
            self._fill(at + HEAD)
            try:
                if self._begins(zlib.decompressobj(31).decompress(self._buffer[at : at + HEAD], 64)):
                    self._buffer = self._buffer[at:]
                    return True
            except zlib.error:
                pass
            at += 1


class Unpacked:
    """A bz2, xz or zstd file, unpacked as it is read, with the guard against bombs."""

    def __init__(self, stream: IO[bytes], suffix: str, limits: Limits) -> None:
        self._counted = _Counted(stream)
        self._guard = Guard(limits)
        self._stream: Any
        if suffix == ".bz2":
            self._stream = bz2.BZ2File(self._counted)  # type: ignore[call-overload]
        elif suffix == ".xz":
            self._stream = lzma.LZMAFile(self._counted)  # type: ignore[arg-type]  # noqa: SIM115
        else:
            self._stream = pa.CompressedInputStream(pa.PythonFile(self._counted, mode="r"), "zstd")

    def read(self, size: int = -1, /) -> bytes:
        before = self._counted.count
        try:
            data: bytes = self._stream.read(min(size, CHUNK * 4) if size >= 0 else CHUNK * 4)
        except (OSError, EOFError, lzma.LZMAError, ValueError, pa.ArrowException) as error:
            raise Damaged("read.damaged", " ".join(str(error).split())) from error
        self._guard.add(self._counted.count - before, len(data))
        return data


class _Counted:
    """The part of a file's interface that decompressors use."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.count, self.closed = stream, 0, False

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Line:
    """data: without its line break; None for one over the limit, which was passed over without being held."""

    start: int
    data: bytes | None


def lines(stream: Readable, limit: int, start: int = 0) -> Iterator[Line]:
    """The lines of a stream from byte `start` on, in memory of about the limit."""
    rest: list[bytes] = []
    held, at, long = 0, start, False
    while chunk := stream.read(CHUNK):
        if b"\n" not in chunk:
            held += len(chunk)
            long = long or held > limit
            rest = [] if long else [*rest, chunk] if len(rest) < 64 else [b"".join(rest), chunk]
            continue
        first, *middle, last = chunk.split(b"\n")
        held += len(first)
        yield Line(at, None if long or held > limit else b"".join([*rest, first]) if rest else first)
        at += held + 1
        for line in middle:
            yield Line(at, line if len(line) <= limit else None)
            at += len(line) + 1
        rest, held = [last] if last else [], len(last)
        long = held > limit
        if long:
            rest = []
    if held:
        yield Line(at, None if long else b"".join(rest))
