"""Damaged and hostile compression: what is whole is read, what is not is told, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.data.read.compressed import Damaged, GzipMembers, Line, Unpacked, lines
from foretell.data.read.sections import Limits

LIMITS = Limits()


def members(data: bytes, limits: Limits = LIMITS) -> list[bytes | str]:
    found: list[bytes | str] = []
    for member in GzipMembers(io.BytesIO(data), limits, bool):
        if isinstance(member, Damaged):
            found.append(member.reason)
            continue
        parts = []
        try:
            while part := member.read(1000):
                parts.append(part)
            found.append(b"".join(parts))
        except Damaged as error:
            found.append(error.reason)
    return found


@given(st.lists(st.binary(max_size=3000), max_size=6))
def test_members_are_read_one_by_one(parts: list[bytes]) -> None:
    assert members(b"".join(map(gzip.compress, parts))) == parts


def texts(count: int) -> list[bytes]:
    rng = random.Random(7)
    return [bytes(rng.choices(b"abcdefghij \n", k=5000)) for _ in range(count)]


@given(st.integers(0, 4), st.integers(12, 1500), st.integers(1, 255))
def test_a_damaged_member_is_told_and_the_next_one_read(bad: int, at: int, flip: int) -> None:
    parts = texts(5)
    packed = [bytearray(gzip.compress(part)) for part in parts]
    packed[bad][at] ^= flip
    found = members(b"".join(packed))
    assert [part for part in found if isinstance(part, bytes)] == parts[:bad] + parts[bad + 1 :]
    assert found[bad] == "read.gzip"


def test_a_hole_and_a_cut_off_end_are_told() -> None:
    parts = texts(3)
    packed = [gzip.compress(part) for part in parts]
    assert members(packed[0] + packed[1][:500] + packed[2]) == [parts[0], "read.gzip", parts[2]]
    assert members(packed[0] + packed[1][:-3]) == [parts[0], "read.gzip"]
    assert members(packed[0] + b"junk" * 9 + packed[1]) == [parts[0], "read.gzip", parts[1]]
    assert members(packed[0] + bytes(1000)) == [parts[0]]  # padding of a tape or device
    assert members(b"") == []


def test_what_only_looks_like_members_is_passed_over_in_linear_time() -> None:
    damaged = gzip.compress(b"words")[:12] + b"\x1f\x8b\x08" * 150_000
    assert members(damaged) == ["read.gzip"]


def test_a_gzip_bomb_is_stopped_and_the_next_member_read() -> None:
    limits = Limits(ratio_from=1_000_000)
    bomb = gzip.compress(bytes(20_000_000))
    assert members(bomb + gzip.compress(b"after"), limits) == ["read.bomb", b"after"]
    assert members(gzip.compress(b"ab" * 200_000), limits) == [b"ab" * 200_000]  # small, however well it packs


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


@pytest.mark.parametrize(("suffix", "pack"), [(".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)])
def test_other_compressions(suffix: str, pack: object) -> None:
    assert callable(pack)
    text = b"\n".join(texts(40))

    def unpacked(data: bytes, limits: Limits = LIMITS) -> bytes:
        stream, parts = Unpacked(io.BytesIO(data), suffix, limits), []
        while part := stream.read(100_000):
            parts.append(part)
        return b"".join(parts)

    assert unpacked(pack(text)) == text
    assert unpacked(pack(text) + pack(b"more")) == text + b"more"
    with pytest.raises(Damaged):
        unpacked(b"not packed at all, by any means")
    with pytest.raises(Damaged, match="unpack to more than"):
        unpacked(pack(bytes(30_000_000)), Limits(ratio_from=1_000_000))


class Chunks:
    def __init__(self, data: bytes, size: int) -> None:
        self._stream, self._size = io.BytesIO(data), size

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._size)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), st.integers(1, 50), st.booleans())
def test_lines_are_those_of_split(parts: list[bytes], size: int, ended: bool) -> None:
    data = b"\n".join(parts) + (b"\n" if ended and parts else b"")
    found = list(lines(Chunks(data, size), 1000))
    expected = data.split(b"\n")
    assert [line.data for line in found] == (expected[:-1] if not expected[-1] else expected)
    assert all(data[line.start :].startswith(line.data or b"") for line in found)


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 50))
def test_long_lines_are_passed_over(sizes: list[int], size: int) -> None:
    data = b"".join(b"x" * n + b"\n" for n in sizes)
    found = list(lines(Chunks(data, size), 30))
    assert [line.data for line in found] == [b"x" * n if n <= 30 else None for n in sizes]


def test_a_gigabyte_in_one_line_is_not_held() -> None:
    import tracemalloc

    class Endless:
        left = 1 << 30

        def read(self, size: int = -1, /) -> bytes:
            self.left -= size
            return CHUNK[:size] if self.left >= 0 else b""

    CHUNK = b"x" * (1 << 18)
    tracemalloc.start()
    assert list(lines(Endless(), 4_000_000)) == [Line(0, None)]
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
