"""Text of training data, all of it: every form that is read, and what is damaged named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretell.data.document import Document, Segment
from foretell.data.parquet import write_documents
from foretell.data.texts import corpus_files
from foretell.errors import DataError, RowError
from foretell.measure.overlap import CorpusFile


def read(files: list[CorpusFile]) -> dict[str, list[tuple[int, str]]]:
    return {file.name: [(row, "".join(pieces)) for row, pieces in file.read()] for file in files}


def test_every_form_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain\ntext")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n\n{"messages": [{"role": "user", "content": "two"}]}\n')
    pq.write_table(pa.table({"text": ["x", None, "y"], "other": [1, 2, 3]}), tmp_path / "c.parquet")
    segments = (Segment("first "), Segment(image=b"..", alt="picture"), Segment("second"))
    write_documents(tmp_path / "d.parquet", [Document("1", segments, "s", "MIT")])
    (tmp_path / "ignored.png").write_bytes(b"..")
    assert read(corpus_files([tmp_path])) == {
        "a.txt": [(1, "plain\ntext")],
        "b.jsonl": [(1, "one"), (3, "two")],
        "c.parquet": [(1, "x"), (2, ""), (3, "y")],
        "d.parquet": [(1, "first second")],
    }


def test_several_fields_are_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"problem": "p", "solution": "s"}\n{"solution": "t", "text": "u"}\n')
    pq.write_table(pa.table({"problem": ["p"], "choices": [["a", "b"]]}), tmp_path / "b.parquet")
    files = corpus_files([tmp_path], ("problem", "choices", "solution"))
    assert read(files) == {"a.jsonl": [(1, "ps"), (2, "t")], "b.parquet": [(1, "pab")]}


def test_a_run_is_the_documents_it_was_trained_on(tmp_path: Path) -> None:
    run = tmp_path / "runs/mine"
    for split in ("train", "heldout"):
        write_documents(run / f"data/web/{split}.parquet", [Document("1", (Segment(split),), "s", "MIT")])
    with pytest.raises(DataError, match="does not exist"):
        corpus_files([tmp_path / "runs/gone"])
    (run / "recipe.yaml").write_text("")
    assert read(corpus_files([run])) == {"mine/web": [(1, "train")]}
    (run / "data/web/train.parquet").unlink()
    with pytest.raises(DataError, match=r"data stage of .* is not finished"):
        corpus_files([run])


BAD = {
    '{"text": ': "line 2, line: it is not JSON",
    "[1]": "line 2, line: it holds a list",
    '{"body": "x"}': "line 2, text: there is no text; the row has 'body'.*--field",
    '{"messages": [{"role": "king"}]}': "line 2, messages",
    "\udcff": "line 2, line: it is not UTF-8",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_or_left_out_as_asked(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(f'{{"text": "one"}}\n{line}\n{{"text": "two"}}\n'.encode("utf-8", "surrogateescape"))
    with pytest.raises(RowError, match=rf"a\.jsonl, {BAD[line]}"):
        read(corpus_files([file]))
    bad: list[RowError] = []
    assert read(corpus_files([file], skip=bad.append)) == {"a.jsonl": [(1, "one"), (3, "two")]}
    assert len(bad) == 1 and "line 2" in str(bad[0])


def test_bad_plain_text_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\nnot \xff fine\n")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbffine")
    with pytest.raises(RowError, match=r"a\.txt, line 2, text: it is not UTF-8"):
        read(corpus_files([tmp_path]))
    bad: list[RowError] = []
    assert read(corpus_files([tmp_path], skip=bad.append)) == {"a.txt": [], "b.txt": [(1, "fine")]}
    assert len(bad) == 1


def test_damaged_parquet_and_other_columns_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), file)
    with pytest.raises(DataError, match=r"a\.parquet has the columns body \(string\), n .*expected 'text'.*--field"):
        read(corpus_files([file]))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"a\.parquet"):
        read(corpus_files([file]))
    with pytest.raises(DataError, match="holds no file that this kind"):
        (tmp_path / "empty").mkdir()
        corpus_files([tmp_path / "empty"])


def test_settings_tell_readings_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}))
    told = [
        corpus_files([tmp_path], fields, skip)[0].settings
        for fields in (("text",), ("body",))
        for skip in (None, print)
    ]
    assert len(set(told)) == 4
