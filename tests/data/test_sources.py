"""Readers of every kind of source: provenance, splits by hash, limits, and bad input skipped or named."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretell.chat import Conversation
from foretell.data.document import Document, Segment, SkipCount, turns
from foretell.data.parquet import write_documents
from foretell.data.python import docstrings
from foretell.data.sources import read_source
from foretell.data.splits import Split, split_of
from foretell.errors import DataError, MissingExtraError
from foretell.images import decode_image
from foretell.pipeline.documents import write_sources
from foretell.recipe import FolderSource, HubSource, JsonlSource, ParquetSource, PythonSource, Source
from foretell.run import silent


def read(source: Source, split: Any = "train", seed: int = 0, skipped: SkipCount | None = None) -> list[Document]:
    return list(read_source(source, split, seed, SkipCount() if skipped is None else skipped))


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_splits_follow_the_id_alone() -> None:
    held = sum(split_of(str(i), 0.1) == "heldout" for i in range(10_000))
    assert 900 < held < 1100
    assert split_of("a", 0.0) == "train" and split_of("a", 1.0) == "heldout"
    grows = [{i for i in range(500) if split_of(str(i), share) == "heldout"} for share in (0.05, 0.2, 0.6)]
    assert grows[0] < grows[1] < grows[2]


@pytest.fixture(scope="module")
def python() -> dict[str, list[Document]]:
    source = PythonSource(max_bytes=1_500_000)
    return {split: read(source, split) for split in ("train", "heldout")}


def test_the_python_installation_is_read(python: dict[str, list[Document]]) -> None:
    train = python["train"]
    size = sum(len((d.segments[0].text or "").encode()) for d in train)
    assert 1_500_000 <= size < 2_500_000
    assert {d.kind for d in train} == {"python.code", "python.docs"}
    assert all(d.license for d in train) and {d.language for d in train} == {"en"}
    assert {d.license for d in train if not d.id.startswith("site-packages/")} == {"PSF-2.0"}
    assert all(d.date and date.fromisoformat(d.date) for d in train)
    assert not any({"test", "tests"} & set(PurePosixPath(d.id.split("#")[0]).parts) for d in train)
    assert len(set(ids(train))) == len(train)


def test_python_files_are_held_out_as_a_whole(python: dict[str, list[Document]]) -> None:
    def files(split: str) -> set[str]:
        # The language reference is one file of many pages; each page counts as a file.
        return {d.id if "topics.py#" in d.id else d.id.split("#")[0] for d in python[split]}

    assert python["heldout"] and not files("train") & files("heldout")


def test_python_order_depends_on_the_seed_alone(python: dict[str, list[Document]]) -> None:
    source = PythonSource(max_bytes=100_000)
    once, again, other = (ids(read(source, seed=seed)) for seed in (0, 0, 1))
    assert once == again == ids(python["train"])[: len(once)] and once != other


def test_docstrings_become_prose() -> None:
    method = '    def f(self, x: int = 1) -> int:\n        """Gives x.\n\n        Twice.\n        """\n'
    code = '"""About."""\nclass A:\n    """Is a thing."""\n' + method
    page = docstrings(code, PurePosixPath("pkg/__init__.py"))
    assert page == "# pkg\n\nAbout.\n\n## A\n\nIs a thing.\n\n## A.f(self, x: int=1)\n\nGives x.\n\nTwice.\n"
    assert docstrings("def broken(:", PurePosixPath("a.py")) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "a.txt": b"plain",
        "deep/b.md": "# Zażółć".encode(),
        "deep/c.py": b"\xef\xbb\xbfx = 1\r\n",
        "bad.txt": b"\xff\xfe\x00 broken",
        "empty.md": b" \n",
        "picture.png": b"\x89PNG",
        ".git/config.txt": b"hidden",
    }.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(content)
    return tmp_path / "f"


def test_folders_are_read(folder: Path) -> None:
    skipped = SkipCount()
    source = FolderSource(path=folder, name="mine", license="MIT", language="pl", heldout=0)
    found = {d.id: d for d in read(source, skipped=skipped)}
    assert {i: d.segments[0].text for i, d in found.items()} == {
        "a.txt": "plain", "deep/b.md": "# Zażółć", "deep/c.py": "x = 1\n"
    }  # fmt: skip
    assert skipped.counts == {"files that are not UTF-8": 1, "empty files": 1}
    assert {(d.license, d.language, d.kind, d.source) for d in found.values()} == {("MIT", "pl", "mine", "mine")}
    assert ids(read(FolderSource(path=folder / "a.txt", heldout=0))) == ["a.txt"]
    assert ids(read(FolderSource(path=folder / "*" / "*.md", heldout=0))) == ["deep/b.md"]


def test_every_document_is_in_one_split(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    source = FolderSource(path=tmp_path, heldout=0.3)
    train, held = ids(read(source)), ids(read(source, "heldout"))
    assert held and len(train) + len(held) == 60 and not set(train) & set(held)
    assert set(ids(read(source, "heldout", seed=5))) == set(held)


def test_max_bytes_bounds_the_text(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i}.txt").write_text("x" * 1000)
    assert len(read(FolderSource(path=tmp_path, heldout=0.2, max_bytes=10_000))) == 10
    assert len(read(FolderSource(path=tmp_path, heldout=0.2, max_bytes=10_000), "heldout")) == 2


def test_json_lines_are_read_and_bad_lines_counted(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": 7, "text": "one", "license": "MIT", "lang": "pl", "date": "2020"}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode(),
        b"",
        b'{"text": "cut off',
        b'{"text": "\xff"}',
        b"[1]",
        b'{"text": 3}',
        b'{"other": "x"}',
        b'{"text": "  "}',
        b'{"messages": "no"}',
        b"[" * 100_000,
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    skipped = SkipCount()
    one, chat = read(JsonlSource(path=tmp_path / "a.jsonl", name="j", heldout=0), skipped=skipped)
    assert (one.id, one.license, one.language, one.date, one.kind) == ("7", "MIT", "pl", "2020", "j")
    assert chat.id == "a.jsonl:2" and chat.is_conversation and chat.license == "unknown"
    assert [m.text for m in chat.conversation().messages] == ["q", "a"]
    assert skipped.counts == {
        "lines that are not JSON": 2,
        "lines that are not UTF-8": 1,
        "lines that are not JSON objects": 1,
        "rows without text in 'text' and without messages": 2,
        "empty rows": 1,
        "damaged conversations": 1,
    }


def test_parquet_follows_its_split_column_or_the_hash(tmp_path: Path) -> None:
    many = [Document(str(i), (Segment(text="x"), Segment(image=b"i")), "s", "MIT", kind="k") for i in range(50)]
    write_documents(tmp_path / "a.parquet", many)
    source = ParquetSource(path=tmp_path, heldout=0.2)
    train, held = read(source), read(source, "heldout")
    assert sorted(ids(train + held)) == sorted(ids(many)) and held
    assert train[0].kind == "k" and len(train[0].segments) == 2
    assert all(len(d.segments) == 1 for d in read(source.model_copy(update={"images": False})))


def test_what_other_data_sets_hold_out_is_held_out(tmp_path: Path) -> None:
    splits = ["train", "test", "validation", "heldout", None]
    pq.write_table(pa.table({"texts": [["x"]] * 5, "id": list("abcde"), "split": splits}), tmp_path / "a.parquet")
    source = ParquetSource(path=tmp_path, heldout=0)
    assert ids(read(source)) == ["a", "e"] and ids(read(source, "heldout")) == ["b", "c", "d"]


def test_held_out_by_id_whatever_the_column_says(tmp_path: Path) -> None:
    names = [str(i) for i in range(200)]
    splits = ["heldout" if i % 2 else "train" for i in range(200)]
    pq.write_table(pa.table({"texts": [["x"]] * 200, "id": names, "split": splits}), tmp_path / "a.parquet")
    source = ParquetSource(path=tmp_path, heldout=0.2, split="id")
    train, held = ids(read(source)), ids(read(source, "heldout"))
    assert sorted(train + held) == sorted(names) and len(held) < 70
    assert {int(id) % 2 for id in train} == {int(id) % 2 for id in held} == {0, 1}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_files_are_read_in_turn(tmp_path: Path, kind: str) -> None:
    for name in "abc":
        if kind == "parquet":
            pq.write_table(pa.table({"texts": [[f"{name}{i}"] for i in range(30)]}), tmp_path / f"{name}.parquet")
        else:
            lines = [json.dumps({"text": f"{name}{i}"}) for i in range(30)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    make = {"parquet": ParquetSource, "jsonl": JsonlSource}[kind]
    found = read_source(make(path=tmp_path, heldout=0), "train", 0, SkipCount())
    first = [document.segments[0].text or "" for document in islice(found, 6)]
    assert sorted(first) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert len(list(found)) == 84


def test_tool_calls_in_chats_are_learned_as_the_template_writes_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    chat = Conversation.from_openai(
        [{"role": "user", "content": "Add."}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    )
    document = Document("1", turns(chat), "s", "MIT")
    asked, answered = document.conversation().messages
    assert asked.text == "Add." and answered.text == chat.messages[1].tool_calls[0].text


def test_what_is_read_for_both_splits_is_counted_once(tmp_path: Path) -> None:
    good = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(50))
    (tmp_path / "x.jsonl").write_text(good + "{bad", encoding="utf-8")
    skipped = SkipCount()
    for split in get_args(Split):
        list(read_source(JsonlSource(path=tmp_path, heldout=0.3), split, 0, skipped))
    assert sum(skipped.counts.values()) == 1


@pytest.mark.parametrize("make", [FolderSource, JsonlSource, ParquetSource])
def test_a_missing_or_empty_path_is_named(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist.*--set data.sources.mine.path"):
        read(make(path=tmp_path / "nowhere", name="mine"))
    with pytest.raises(DataError, match="holds no file that this kind of source reads"):
        read(make(path=tmp_path, name="mine"))


@pytest.mark.parametrize("name", ["f", "deep"])
def test_an_unreadable_folder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"{name} could not be read: Permission denied. Change its permissions"):
        read(FolderSource(path=folder))


def test_an_unreadable_file_is_skipped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    skipped = SkipCount()
    assert len(read(FolderSource(path=folder, heldout=0), skipped=skipped)) == 2
    assert skipped.counts["unreadable files"] == 1


def test_a_source_with_nothing_to_train_on_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="no training documents: 1 files that are not UTF-8"):
        write_sources([FolderSource(path=tmp_path, heldout=0)], None, 0, tmp_path / "out", silent)


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"foretell\[hub\]"):
        read(HubSource(dataset="a/b"))


def test_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = ModuleType("datasets")
    calls: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        calls.append((args, options))
        for i in range(1000):
            yield {"text": "x" * 10, "id": f"row {i}", "date": None}
        raise ConnectionError("network is gone")

    monkeypatch.setattr(hub, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    source = HubSource(dataset="a/b", subset="s", license="ODC-By-1.0", max_bytes=100)
    assert len(read(source)) == 10
    assert calls == [(("a/b", "s"), {"split": "train", "streaming": True})]
    with pytest.raises(DataError, match=r"could not be streamed from the hub .network is gone"):
        read(HubSource(dataset="a/b"))


@pytest.mark.realdata
def test_the_real_corpus_by_glob(real_data: Path) -> None:
    skipped = SkipCount()
    held = read(ParquetSource(path=real_data / "corpus" / "textbooks-*.parquet"), "heldout", skipped=skipped)
    assert {d.language for d in held} == {"en", "es", "pl"} and not skipped.counts
    assert len(held) == 25
    images = [s.image for d in held for s in d.segments if s.image is not None]
    assert images and all(max(decode_image(image).size) <= 256 for image in images)
