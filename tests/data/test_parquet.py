"""Documents as Parquet: exact round trips, foreign OBELICS files, clear errors for other columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.data.document import Document, Segment, SkipCount
from foretell.data.parquet import read_documents, read_rows, write_documents
from foretell.errors import DataError, RunError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
roles = st.sampled_from([None, "system", "user", "assistant", "tool"])
segments = st.one_of(
    st.builds(Segment, text=words, role=roles),
    st.builds(Segment, image=st.binary(max_size=20), alt=st.none() | words, caption=st.none() | words, role=roles),
)
documents = st.builds(
    Document,
    id=words.filter(bool),
    segments=st.lists(segments, min_size=1, max_size=4).map(tuple),
    source=words.filter(bool),
    license=words.filter(bool),
    language=words.filter(bool),
    date=st.none() | st.just("2024-01-31"),
    kind=words.filter(bool),
    labels=st.dictionaries(words, words, max_size=2),
)


@given(st.lists(documents, max_size=5))
@settings(max_examples=60)
def test_documents_round_trip(tmp_path_factory: pytest.TempPathFactory, found: list[Document]) -> None:
    file = tmp_path_factory.mktemp("p") / "a.parquet"
    assert write_documents(file, found) == len(found)
    assert list(read_documents(file)) == found


def test_writing_streams_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretell.data.parquet.GROUP_BYTES", 1000)
    many = [Document(str(i), (Segment(text="x" * 100),), "s", "MIT") for i in range(95)]
    write_documents(tmp_path / "a.parquet", iter(many))
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups == 10
    assert list(read_documents(tmp_path / "a.parquet")) == many


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Document]:
        yield Document("1", (Segment(text="x"),), "s", "MIT")
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        write_documents(tmp_path / "a.parquet", failing())
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_documents(tmp_path / "file" / "a.parquet", [])


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_plain_obelics_files_are_read(tmp_path: Path) -> None:
    texts = [["before", None, "after"], ["alone"], None, [], ["a", "b"]]
    struct = [[None, {"bytes": b"1", "path": None}, None], [None], None, [], [None]]
    binary = [[None, b"1", None], None, None, [], [None]]
    first = (Segment(text="before"), Segment(image=b"1"), Segment(text="after"))
    for images in (struct, binary):
        skipped = SkipCount()
        found = list(read_documents(table(tmp_path / "web.parquet", texts=texts, images=images), skipped=skipped))
        assert [d.segments for d in found] == [first, (Segment(text="alone"),)]
        assert [d.id for d in found] == ["web.parquet:0", "web.parquet:1"]
        assert (found[0].source, found[0].license, found[0].language) == ("web", "unknown", "und")
        assert skipped.counts == {"empty rows": 2, "rows whose lists differ in length": 1}
    text_only = list(read_documents(tmp_path / "web.parquet", images=False))
    assert text_only[0].segments == (Segment(text="before"), Segment(text="after"))


def test_rows_say_what_defaults_do_not(tmp_path: Path) -> None:
    file = table(
        tmp_path / "a.parquet", id=["x", None], texts=[["a"], ["b"]], lang=["pl", None], license=[None, "MIT"],
        split=["heldout", "train"],
    )  # fmt: skip
    rows = list(read_rows(file, defaults={"license": "CC0-1.0", "language": "en", "source": "s", "kind": "k"}))
    assert [(d.id, d.language, d.license, d.source, d.kind, split) for d, split in rows] == [
        ("x", "pl", "CC0-1.0", "s", "k", "heldout"),
        ("a.parquet:1", "en", "MIT", "s", "k", "train"),
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"problem": ["x"]}, r"columns problem \(string\); expected 'texts'"),
        ({"texts": ["x"]}, r"columns texts \(string\); expected 'texts', a list of strings"),
        ({"texts": [[1]]}, "list of strings"),
        ({"texts": [["x"]], "images": [["https://example.org/a.png"]]}, "images: false"),
        ({"texts": [["x"]], "images": [[{"url": "u"}]]}, "structs with 'bytes'"),
        ({"texts": [["x"]], "roles": [[1]]}, "expected 'roles', a list of strings"),
        ({"texts": [["x"]], "labels": [5]}, "expected 'labels' as a string, or no such column"),
        ({"texts": [["x"]], "date": [20200101]}, "expected 'date' as a string"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(read_documents(table(tmp_path / "a.parquet", **columns)))


def test_rows_with_labels_of_another_form_are_counted(tmp_path: Path) -> None:
    labels = ["[1]", "5", "{", '{"answer": "A"}', None]
    file = table(tmp_path / "a.parquet", id=[1, 2, 3, 4, 5], texts=[["x"]] * 5, labels=labels)
    skipped = SkipCount()
    found = list(read_documents(file, skipped=skipped))
    assert [(d.id, d.labels) for d in found] == [("4", {"answer": "A"}), ("5", {})]
    assert skipped.counts == {"rows with damaged labels": 3}


def test_rows_that_are_not_utf8_or_have_an_unknown_role_are_counted(tmp_path: Path) -> None:
    texts = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.array([0, 1, 3, 4], np.int32).tobytes()), pa.py_buffer(b"a\xff\xfeb")
    )
    file = table(tmp_path / "a.parquet", texts=pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), texts))
    skipped = SkipCount()
    found = list(read_documents(file, skipped=skipped))
    assert [(d.id, d.segments[0].text) for d in found] == [("a.parquet:0", "a"), ("a.parquet:2", "b")]
    assert skipped.counts == {"rows that are not UTF-8": 1}
    file = table(tmp_path / "b.parquet", texts=[["a"], ["b"]], roles=[["user"], ["robot"]])
    assert len(list(read_documents(file, skipped=skipped))) == 1 and skipped.counts["rows with an unknown role"] == 1


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    bad = "x\udcff"
    document = Document(bad, (Segment(text=bad), Segment(image=b"i", alt=bad)), bad, bad, bad, bad, bad, {bad: bad})
    write_documents(tmp_path / "a.parquet", [document])
    (found,) = read_documents(tmp_path / "a.parquet")
    assert (found.id, found.license, found.segments[1].alt) == ("x?", "x?", "x?")


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + b"x" * 50 + b"PAR1"])
def test_what_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="not a Parquet file"):
        list(read_documents(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match="could not be read"):
        list(read_documents(tmp_path / "b.parquet"))


def test_a_file_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_documents(file, [Document(str(i), (Segment(text=f"{i} " * 500),), "s", "MIT") for i in range(50)])
    raw = bytearray(file.read_bytes())
    raw[8:3000] = b"\xff" * 2992
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"(not a Parquet file|is damaged).*Copy or write it again"):
        list(read_documents(file))


@pytest.mark.realdata
def test_the_real_corpus_is_read(real_data: Path) -> None:
    skipped = SkipCount()
    rows = list(read_rows(real_data / "corpus" / "textbooks-pl.parquet", skipped=skipped))
    assert len(rows) == 320 and not skipped.counts
    assert sum(split == "heldout" for _, split in rows) == 6
    assert {d.language for d, _ in rows} == {"pl"} and {d.license for d, _ in rows} == {"CC-BY-4.0"}
    assert sum(s.image is not None for d, _ in rows for s in d.segments) == 1889
