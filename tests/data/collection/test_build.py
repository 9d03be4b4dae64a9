"""A build: the same bytes however it was run, every record accounted for, images once, clear ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from collectionkit import digests, recipe, sentences, write_input
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretell.data.collection import ledger, work
from foretell.data.collection.places import Places
from foretell.data.collection.run import build, totals
from foretell.data.document import SkipCount
from foretell.data.parquet import read_documents
from foretell.data.sources import read_source
from foretell.errors import DataError, ForetellError, RunError
from foretell.recipe import ParquetSource


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection built by one process."""
    base = tmp_path_factory.mktemp("built")
    build(recipe(write_input(base / "in")), base / "out", workers=1)
    return base


def test_every_record_is_kept_or_removed_for_a_reason(built: Path) -> None:
    found = totals(built / "out")
    assert found["documents_in"] == 12 + 3 + 8
    assert found["removed"] == {"dedup.exact": 1, "read.json": 1}
    assert found["documents_kept"] == 21
    assert found["removed_by"] == {"exact": 1, "read": 1}
    rows = [row for n in range(len(list((built / "out" / "ledger").glob("*.parquet")))) for row in
            ledger.read(Places(built / "out").ledger(n))]  # fmt: skip
    assert Counter(row.reason for row in rows if not row.kept) == {"dedup.exact": 1, "read.json": 1}


def test_a_collection_is_a_source_of_training_with_images_once(built: Path) -> None:
    tars = sorted((built / "out" / "images").glob("*.tar"))
    names = [name for tar in tars for name in subprocess.check_output(["tar", "tf", tar], text=True).split()]
    assert len(names) == len(set(names)) == 5  # four of their own, and one that four documents show
    skipped = SkipCount()
    source = ParquetSource(path=built / "out", heldout=0.0)
    documents = list(read_source(source, "train", 0, skipped))
    assert len(documents) == 21
    assert not skipped.counts
    original = {d.id: d.segments for n in range(2) for d in read_documents(built / "in" / f"part{n}.parquet")}
    assert {d.id: d.segments for d in documents if d.id in original} == original


def test_the_second_document_of_an_id_is_named(built: Path) -> None:
    assert totals(built / "out")["renamed"] == {"t1": 1, "t2": 1}
    ids = [
        id
        for file in sorted((built / "out" / "data").glob("*.parquet"))
        for id in pq.read_table(file)["id"].to_pylist()
    ]
    assert len(ids) == len(set(ids))
    assert "t2~2" in ids
    assert "t1~2" not in ids  # the same text: a duplicate


def test_workers_do_not_change_a_byte(built: Path, tmp_path: Path) -> None:
    build(recipe(built / "in"), tmp_path / "out", workers=3)
    assert digests(tmp_path / "out") == digests(built / "out")


def test_a_task_may_be_done_twice_and_a_build_resumed_anywhere(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = work.Build.do
    places = 0

    def killed(self: work.Build, phase: str, task: int) -> dict[str, object]:
        nonlocal places
        result = done(self, phase, task)
        places += 1
        if places % 5 == 0:  # after the files are there, before the mark is
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(work.Build, "do", killed)
    for _ in range(40):
        try:
            build(recipe(built / "in"), tmp_path / "out", workers=1)
            break
        except KeyboardInterrupt:
            continue
    assert digests(tmp_path / "out") == digests(built / "out")


def test_a_killed_build_goes_on_to_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """SIGKILL of the process, as soon as some tasks are done, again and again."""
    out = tmp_path / "out"
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path; from collectionkit import recipe; from foretell.data.collection.run import build\n"
        "build(recipe(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)\n"
    )
    for kill_at in (3, 14):
        arguments = [sys.executable, "-c", program, str(built / "in"), str(out), str(Path(__file__).parent)]
        process = subprocess.Popen(arguments, env=os.environ)
        while process.poll() is None and len(list(out.glob(".work/done/*/*.json"))) < kill_at:
            time.sleep(0.01)
        process.kill()
        process.wait()
    (out / "data").mkdir(exist_ok=True)
    (out / "data" / ".00000.parquet.x1y2z3").write_bytes(b"PAR1")  # as a kill while a shard is written leaves it
    build(recipe(built / "in"), out, workers=1)
    assert digests(out) == digests(built / "out")
    (out / ".work" / "passes").mkdir(parents=True)  # killed once more, while it cleared up
    build(recipe(built / "in"), out, workers=1)
    assert not (out / ".work").exists()


@given(
    lines=st.lists(
        st.one_of(
            st.just("{"),
            st.just(""),
            st.just("[1]"),
            st.fixed_dictionaries({"text": st.text(max_size=30)}).map(json.dumps),
            st.fixed_dictionaries({"id": st.sampled_from("abc"), "text": st.sampled_from(["x y z", "x  y z", ""])}).map(
                json.dumps
            ),
        ),
        min_size=1,
        max_size=25,
    )
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_is_kept_plus_removed(tmp_path: Path, lines: list[str]) -> None:
    """Whatever comes in, by shard and as a whole, and the files hold what the counts say."""
    folder = tmp_path / str(time.monotonic_ns())
    folder.mkdir()
    (folder / "x.jsonl").write_text("\n".join(lines) + "\n")
    source = {"kind": "jsonl", "name": "x", "path": str(folder / "x.jsonl"), "unit_bytes": 60}
    steps = [{"step": "unicode"}]
    found = build(
        recipe(folder, sources=[source], steps=steps, shard_bytes=100), folder / "out", workers=1
    )  # fmt: skip
    assert found["documents_in"] == found["documents_kept"] + sum(found["removed"].values())
    records = sum(bool(line.strip()) for line in lines)
    assert found["documents_in"] == (records or 1)  # a file without a record counts as one that is empty
    assert records or found["removed"] == {"read.empty": 1}
    files = (folder / "out" / "data").glob("*.parquet")
    assert sum(pq.read_metadata(file).num_rows for file in files) == found["documents_kept"]


def test_a_document_of_which_a_step_leaves_nothing_is_removed(tmp_path: Path) -> None:
    """It would be a row that no reader takes, and every one behind it would be counted wrongly."""
    lines = [json.dumps({"id": "hollow", "text": "\ufeff"}), json.dumps({"id": "whole", "text": sentences(1)})]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    source = {"kind": "jsonl", "name": "x", "path": str(tmp_path / "x.jsonl")}
    found = build(recipe(tmp_path, sources=[source]), tmp_path / "out", workers=1)
    assert found["removed"] == {"unicode.empty": 1}
    assert pq.read_table(tmp_path / "out" / "data" / "00000.parquet")["id"].to_pylist() == ["whole"]


def test_an_optional_source_may_be_missing_and_the_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "whole", "text": sentences(1)}) + "\n")
    here = {"kind": "jsonl", "name": "x", "path": str(tmp_path / "x.jsonl")}
    gone = {"kind": "folder", "name": "manuals", "path": str(tmp_path / "share" / "*" / "*.html")}
    with pytest.raises(ForetellError, match=r"manuals.*Check the path"):
        build(recipe(tmp_path, sources=[here, gone]), tmp_path / "out", workers=1)
    build(recipe(tmp_path, sources=[here, gone | {"optional": True}]), tmp_path / "out", workers=1)
    assert "Optional sources that were not there: manuals" in (tmp_path / "out" / "card.md").read_text()


def test_a_source_that_vanishes_ends_clearly_and_is_resumed(tmp_path: Path) -> None:
    folder = write_input(tmp_path / "in")
    hidden = tmp_path / "hidden"

    def vanish(task: str, finished: float, total: float | None = None, note: str = "") -> None:
        if folder.exists():
            folder.rename(hidden)

    with pytest.raises(ForetellError, match="lines") as caught:
        build(recipe(folder), tmp_path / "out", workers=1, report=vanish)
    assert "again" in str(caught.value)
    hidden.rename(folder)
    assert build(recipe(folder), tmp_path / "out", workers=1)["documents_kept"] == 21


def test_a_full_disk_ends_clearly_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    folder = write_input(tmp_path / "in")
    sync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ForetellError, match=r"disk is full|without a result"):
        build(recipe(folder), tmp_path / "out", workers=1)
    monkeypatch.setattr(os, "fsync", sync)
    assert build(recipe(folder), tmp_path / "out", workers=1)["documents_kept"] == 21


def test_a_place_where_nothing_can_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = recipe(write_input(tmp_path / "in"))
    for on, said in {
        "moon": "no place 'moon' to run on; expected local, ray, slurm, or ray:ADDRESS",
        "local:4": "no place 'local:4'",
        "slurm": "needs a section `slurm` in the recipe",
    }.items():
        with pytest.raises(RunError, match=said):
            build(made, tmp_path / "out", on=on)
    assert not (tmp_path / "out").exists()


def test_another_recipe_or_other_input_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="another recipe"):
        build(recipe(built / "in", exclude=["MIT"]), built / "out", workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        build(recipe(built / "in"), tmp_path / "full", workers=1)
    with pytest.raises(DataError, match="does not exist"):
        build(recipe(tmp_path / "nowhere"), tmp_path / "out", workers=1)


def test_what_is_excluded_stays_out(built: Path, tmp_path: Path) -> None:
    found = build(recipe(built / "in", exclude=["MIT", "a.example.org"]), tmp_path / "out", workers=1)
    assert found["removed"]["excluded.license"] == 4
    assert found["removed"]["excluded.url"] == 4  # i = 1, 5, 7, 11: the others of that host are MIT
    assert "MIT" not in found["licenses"]


def test_images_in_the_rows(built: Path, tmp_path: Path) -> None:
    build(recipe(built / "in", images="inline"), tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "images").exists()
    rows = [row for f in (tmp_path / "out" / "data").glob("*") for row in pq.read_table(f)["images"].to_pylist()]
    assert sum(bool(image and image["bytes"]) for row in rows for image in row) == 8
