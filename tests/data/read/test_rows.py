"""JSON lines, chat forms and Parquet: mapped, cut in parts, and damaged."""

from __future__ import annotations

import bz2
import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.image_store import member_name, writing_images
from foretell.data.parquet import write_documents
from foretell.data.read import read, units
from foretell.data.read.rows import day_of
from foretell.data.read.sections import ChatRead, Fields, JsonlRead, Limits, ParquetRead
from foretell.errors import DataError
from readkit import everything, kept, png, reasons, text


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def test_json_lines_bring_their_provenance(tmp_path: Path) -> None:
    row = {"id": 7, "text": "one", "license": "MIT", "lang": "pl", "date": "2020-01-02T03:04:05Z", "url": "http://a/b"}
    write_lines(tmp_path / "a.jsonl", [row, {"content": "two", "licenses": ["MIT", "Apache-2.0"], "score": 3}])
    fields = Fields(license=("license", "licenses"), labels=("score",))
    one, two = kept(JsonlRead(path=str(tmp_path), license="unknown", language="en", date="2019", fields=fields))
    assert (one.id, text(one), one.license, one.language, one.date) == ("7", "one", "MIT", "pl", "2020-01-02")
    assert one.labels == {"locator": "a.jsonl:1", "path": "a.jsonl", "url": "http://a/b"}
    assert (two.id, text(two), two.license, two.language, two.date) == (
        "a.jsonl:2",
        "two",
        "Apache-2.0 AND MIT",
        "en",
        "2019",
    )
    assert two.labels["score"] == "3"


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2020-05", "2020-05"), ("2020", "2020"), ("20201", None), (1_600_000_000, "2020-09-13"), (3, None),
        (1_600_000_000_000, "2020-09-13"), (None, None), (True, None), ("May 2020", None),
        (2019, "2019"), (date(812, 1, 2), "0812-01-02"), (datetime(2020, 5, 6, 7), "2020-05-06"),
        ("2020-13-01", "2020"), ("2020-02-33", "2020-02"),
    ],
)  # fmt: skip
def test_dates(value: Any, day: str | None) -> None:
    assert day_of(value) == day


def test_a_text_of_several_columns_and_whom_to_credit(tmp_path: Path) -> None:
    rows = [{"q": "What?", "a": "That {q}.", "source": "A work", "license": "MIT", "author": "B"}, {"q": "What?"}]
    source = ParquetRead(path=str(tmp_path), fields=Fields(text=("q",), template="{q}\n\n{a}"))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    both, alone = kept(source)
    assert (text(both), text(alone)) == ("What?\n\nThat {q}.", "What?")
    assert both.labels["attribution"] == "A work, B (MIT)" and both.source == "parquet"
    assert "attribution" not in alone.labels


BAD = [
    (b'{"text": "cut off', "read.json"),
    (b'{"text": "\xff"}', "read.encoding"),
    (b"[1]", "read.json"),
    (b'{"text": 3}', "read.no-text"),
    (b'{"text": "  "}', "read.empty"),
    (b'{"messages": "no"}', "read.conversation"),
    (b"[" * 100_000, "read.json"),
    (b'{"text": "' + b"x" * 5000 + b'"}', "read.long-line"),
]


def test_every_bad_line_is_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"id": "good", "text": "fine"}, b"", *(line for line, _ in BAD)])
    source = JsonlRead(path=str(tmp_path / "a.jsonl"), limits=Limits(document_bytes=2000))
    found = everything(source)
    # 100,000 brackets are over this limit too
    assert [getattr(r, "reason", "") for r in found] == [
        "", *("read.long-line" if len(line) > 2000 else reason for line, reason in BAD)
    ]  # fmt: skip
    assert [getattr(r, "locator", "") for r in found][1:] == [f"a.jsonl:{n}" for n in range(3, 11)]
    assert reasons(JsonlRead(path=str(tmp_path)))["read.json"] == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 400))
def test_parts_of_a_file_read_every_line_once(tmp_path: Path, sizes: list[int], part: int) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": f"{n}" + "x" * size} for n, size in enumerate(sizes)] or [b" "])
    whole = JsonlRead(path=str(tmp_path / "a.jsonl"))
    parts = whole.model_copy(update={"unit_bytes": part})
    assert [text(d) for d in kept(parts)] == [text(d) for d in kept(whole)]
    assert len({unit.key for unit in units(parts)}) == len(units(parts))
    assert len({d.id for d in kept(parts)}) == len(sizes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b'{"text": "a"}'), st.just(b'{"text": "b\\ud800"}'))))
def test_any_lines_are_kept_or_counted(tmp_path: Path, rows: list[bytes]) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    lines = [line for line in b"\n".join(rows).split(b"\n") if line.strip()]
    found = everything(JsonlRead(path=str(tmp_path / "a.jsonl")))
    assert len(found) == max(len(lines), 1)  # an empty file is one reason


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_packed_lines(tmp_path: Path, suffix: str, pack: Any) -> None:
    rows = [json.dumps({"text": f"line {n}"}).encode() + b"\n" for n in range(4)]
    data = pack(rows[0] + rows[1][:7]) + pack(rows[1][7:] + rows[2] + rows[3])  # a line goes over the border
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(data)
    assert [text(d) for d in kept(JsonlRead(path=str(tmp_path)))] == [f"line {n}" for n in range(4)]


def test_a_damaged_member_costs_its_own_lines_alone(tmp_path: Path) -> None:
    packed = [
        bytearray(gzip.compress(b"".join(json.dumps({"text": f"{n} {m}"}).encode() + b"\n" for m in range(50))))
        for n in range(3)
    ]
    packed[1][40] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(packed))
    source = JsonlRead(path=str(tmp_path))
    read_from = [text(d)[0] for d in kept(source)]
    assert read_from.count("0") == read_from.count("2") == 50 and reasons(source)["read.gzip"] == 1


def test_object_storage(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/read-test/deep/a.jsonl", b'{"text": "from a store"}\n{"text": "and more"}\n')
    store.pipe("/read-test/.hidden.jsonl", b'{"text": "not this"}\n')
    source = JsonlRead(path="memory://read-test", unit_bytes=26)
    assert [d.labels["locator"] for d in kept(source)] == ["deep/a.jsonl@0", "deep/a.jsonl@25"]
    assert [text(d) for d in kept(JsonlRead(path="memory://read-test/*/*.jsonl"))] == ["from a store", "and more"]
    store.rm("/read-test", recursive=True)
    with pytest.raises(DataError, match="does not exist"):
        units(source)
    with pytest.raises(DataError, match="cannot be opened"):
        units(JsonlRead(path="nosuch://x"))


CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "q", "input": "", "output": "a"},
    {"instruction": "q", "input": "with this", "output": "a", "history": [["before", "yes"]]},
]


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_chat_forms(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form == "jsonl":
        write_lines(path, CHATS)
    elif form == "json":
        path.write_text(json.dumps(CHATS))
    else:
        pq.write_table(pa.Table.from_pylist(CHATS[:1]), path)
    found = [[(m.role, m.text) for m in d.conversation().messages] for d in kept(ChatRead(path=str(path)))]
    turns = [("user", "q"), ("assistant", "a")]
    before = [("user", "before"), ("assistant", "yes"), ("user", "q\n\nwith this"), ("assistant", "a")]
    expected = [turns, [("system", "s"), *turns], turns, before]
    assert found == (expected if form != "parquet" else expected[:1])


def test_a_chat_form_is_kept_to_and_damage_counted(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"conversations": [{"from": "martian", "value": "q"}]},
        {"conversations": "no"},
        {"conversations": [3]},
        {"instruction": "q", "output": 4},
        {"instruction": " ", "output": "a"},
        {"text": "no chat"},
        {"messages": []},
    ]
    source = ChatRead(path=str(write_lines(tmp_path / "a.jsonl", rows)))
    assert reasons(source) == {"read.conversation": 4, "read.empty": 2, "read.no-text": 1}
    only = ChatRead(path=str(write_lines(tmp_path / "b.jsonl", CHATS)), chat="alpaca")
    assert len(kept(only)) == 2 and reasons(only) == {"read.no-text": 2}


def test_interleaved_parquet_comes_back_as_it_was(tmp_path: Path) -> None:
    documents = [
        Document(f"d{n}", (Segment(text=f"t{n}"), Segment(image=png(), alt="red")), "origin", "MIT", "en", "2020")
        for n in range(100)
    ]
    write_documents(tmp_path / "a.parquet", documents)
    found = kept(ParquetRead(path=str(tmp_path), name="mine"))
    assert [(d.id, d.segments, d.license, d.date) for d in found] == [
        (d.id, d.segments, d.license, d.date) for d in documents
    ]
    assert {d.source for d in found} == {"mine"} and found[3].labels["locator"] == "a.parquet:3"
    assert found[0].labels["origin"] == "origin"


def test_a_collection_is_read_with_the_images_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with writing_images(tmp_path / "images" / "00000.tar") as tar:
        tar.add(member_name(png()), png())
    documents = [Document("d", (Segment(text="t"), Segment(image=png(side))), "s", "MIT") for side in (8, 9)]
    place = lambda image: f"images/00000.tar/{member_name(image)}"  # noqa: E731
    write_documents(tmp_path / "data" / "a.parquet", documents, place)
    source = ParquetRead(path=str(tmp_path / "data"))
    assert [d.segments for d in kept(source)] == [documents[0].segments]
    assert reasons(source) == {"read.image": 1}  # the tar does not hold it: counted, not passed over


def test_a_file_that_shrank_since_it_was_listed_is_counted(tmp_path: Path) -> None:
    parquet, lines = tmp_path / "a.parquet", tmp_path / "b.jsonl"
    pq.write_table(pa.table({"text": ["a" * 50] * 40}), parquet, row_group_size=10)
    write_lines(lines, [{"text": "b" * 50}] * 40)
    sources = [ParquetRead(path=str(parquet), unit_bytes=1), JsonlRead(path=str(lines), unit_bytes=600)]
    work = [units(source) for source in sources]
    pq.write_table(pa.table({"text": ["new"]}), parquet)
    write_lines(lines, [{"text": "new"}])
    for source, parts in zip(sources, work, strict=True):
        told = [[getattr(r, "reason", "kept") for r in read(source, unit)] for unit in parts]
        assert len(parts) > 3 and told[0][0] == "kept" and all("read.changed" in each for each in told[1:])


def test_row_groups_are_units_and_a_damaged_one_is_counted_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"row {n} " + "x" * 50 for n in range(1000)], "id": [f"i{n}" for n in range(1000)]})
    pq.write_table(table, path, row_group_size=100, compression="zstd", use_dictionary=False)
    source = ParquetRead(path=str(path), unit_bytes=1)
    assert len(units(source)) == 10 and [d.id for d in kept(source)] == [f"i{n}" for n in range(1000)]
    start = pq.ParquetFile(path).metadata.row_group(4).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    assert len(kept(source)) == 900 and reasons(source) == {"read.parquet": 100}
    whole = ParquetRead(path=str(path))
    assert len(kept(whole)) == 900 and reasons(whole) == {"read.parquet": 100}


def test_parquet_that_is_truncated_empty_or_of_other_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 1000] * 50}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-20])
    (tmp_path / "b.parquet").write_bytes(b"")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"price": [1, 2, 3]}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"texts": ["not", "lists"]}), tmp_path / "e.parquet")
    source = ParquetRead(path=str(tmp_path))
    assert not kept(source)
    assert reasons(source) == {"read.parquet": 2, "read.empty": 1, "read.columns": 5}


def test_parquet_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretell.data.read.tables.BOMB_BYTES", 1 << 20)
    table = pa.table({"text": ["x" * 2_000_000] * 4})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert reasons(ParquetRead(path=str(tmp_path))) == {"read.bomb": 4}


def test_what_vanishes_is_counted_and_a_source_that_is_gone_stops(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        write_lines(tmp_path / "s" / f"{name}.jsonl", [{"text": name}])
    source = JsonlRead(path=str(tmp_path / "s"))
    work = units(source)
    (tmp_path / "s" / "a.jsonl").unlink()
    assert [getattr(r, "reason", "kept") for unit in work for r in read(source, unit)] == ["read.vanished", "kept"]
    (tmp_path / "s" / "b.jsonl").unlink()
    (tmp_path / "s").rmdir()
    with pytest.raises(DataError, match="vanished while it was read"):
        list(read(source, work[1]))


def test_a_source_without_files_of_its_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file"):
        units(JsonlRead(path=str(tmp_path)))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="no file that 'jsonl' reads"):
        units(JsonlRead(path=str(tmp_path)))
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert reasons(JsonlRead(path=str(tmp_path))) == {"read.empty": 1, "read.file-kind": 1}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": "cut', "its JSON is cut off after 13 characters"),
        (b'{"text": "whole", "n": ', "its JSON is cut off after 23 characters"),
        (b"{text: 3}", "no JSON at column 2: expecting property name"),
        (b'{"text": "a"} {}', "no JSON at column 15: extra data"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_told_of_a_line_that_is_no_json(tmp_path: Path, line: bytes, told: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    (found,) = everything(JsonlRead(path=str(tmp_path)))
    assert isinstance(found, Removed) and found.reason == "read.json" and told in found.detail


def test_what_is_told_of_a_file_that_is_not_the_gzip_of_its_name(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a"}\n' * 50)
    cases = {b"plain text": "not gzip, as its name says", packed[:-9]: "cut off", packed + b"junk" * 9: "bytes between"}
    for data, told in cases.items():
        (tmp_path / "a.jsonl.gz").write_bytes(data)
        (found,) = (r for r in everything(JsonlRead(path=str(tmp_path))) if isinstance(r, Removed))
        assert found.reason == "read.gzip" and told in found.detail
