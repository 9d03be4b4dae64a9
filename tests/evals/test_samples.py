"""Samples from every form of file, in upstream's order, and what is said of files that are none."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.samples import order, read_samples

ROWS = [{"input": f"Frage {i}: ä?", "ideal": str(i)} for i in range(5)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "folder"])
def test_the_same_rows_come_from_every_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"s.{form}"
    if form == "jsonl":
        path.write_text(TEXT)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(TEXT.encode()))
    elif form == "jsonl.zst":
        with pa.output_stream(str(path), compression="zstd") as out:
            out.write(TEXT.encode())
    elif form == "csv":
        path.write_text("input,ideal\n" + "".join(f"{row['input']},{row['ideal']}\n" for row in ROWS))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        (path / "deeper").mkdir(parents=True)
        lines = TEXT.splitlines()
        (path / "a.jsonl").write_text("\n".join(lines[:2]))
        (path / "deeper/b.jsonl").write_text("\n".join(lines[2:]))
    assert list(read_samples(path)) == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n \n"])
def test_lines_end_as_they_do_in_any_text(tmp_path: Path, end: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(TEXT.replace("\n", end).encode())
    found = read_samples(path)
    assert found[:] == ROWS and [found[i] for i in (4, 0, 2)] == [ROWS[4], ROWS[0], ROWS[2]]


def test_a_row_is_faulted_by_its_line_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"input": 1}\n\n{"input": \n[1]\n')
    found = read_samples(path)
    assert found[0] == {"input": 1}
    with pytest.raises(EvalError, match=r"s\.jsonl, line 3 is not JSON"):
        found[1]
    with pytest.raises(EvalError, match=r"line 4 holds a list"):
        found[2]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        ("s.jsonl", b"\n \n", "are empty"),
        ("s.jsonl.gz", b"no gzip", "cannot be read"),
        ("s.jsonl.zst", b"no zstd", "cannot be read"),
        ("s.parquet", b"no parquet", "not readable Parquet"),
        ("s.csv", b"a\n\xff", "not readable CSV"),
    ],
)
def test_files_that_hold_no_samples(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EvalError, match=said):
        read_samples(tmp_path / name)[:]


def test_a_missing_file_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvalError, match="cannot be read"):
        read_samples(tmp_path / "none.jsonl")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="hub"):
        read_samples("hf://someone/something?split=test")


def test_the_order_is_upstreams() -> None:
    indices = list(range(1000))
    random.Random(123).shuffle(indices)
    assert order(1000).tolist() == indices and order(1000, 7).tolist() == indices[:7]
    assert sorted(order(10, 50)) == list(range(10))
