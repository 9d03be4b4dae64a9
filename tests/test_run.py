"""Stages: skipped when done, resumed when cut off, rebuilt when what they depend on changed, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import AlarmError, RunError
from foretell.run import PARTIAL, Stage, lock, read_manifest, run_stages, status


class Bench:
    """Three fake stages, a → b → c, plus d on its own; notes which were built."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.config: dict[str, dict[str, Any]] = {n: {"value": n} for n in "abcd"}
        self.built: list[str] = []
        self.fail: str | None = None
        self.outside = 0

    def stages(self) -> list[Stage]:
        def make(name: str, inputs: tuple[str, ...]) -> Stage:
            def build(folders: Mapping[str, Path], out: Path) -> dict[str, Any]:
                self.built.append(name)
                text = "".join((folders[i] / "out.txt").read_text() for i in inputs)
                (out / "half.txt").write_text("half")
                if self.fail == name:
                    raise KeyboardInterrupt
                (out / "out.txt").write_text(text + str(self.config[name]["value"]))
                return {"length": len(text)}

            return Stage(name, self.config[name], build, inputs, (lambda: self.outside) if name == "a" else None)

        return [make("a", ()), make("b", ("a",)), make("c", ("b",)), make("d", ())]

    def run(self, **more: Any) -> list[str]:
        self.built = []
        run_stages(self.run_dir, self.stages(), recipe_text="name: fake\n", name="fake", seed=3, **more)
        return self.built

    def states(self) -> dict[str, str]:
        return {s.name: s.state for s in status(self.run_dir, self.stages())}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "run")


def test_a_second_run_builds_nothing(bench: Bench) -> None:
    assert bench.run() == ["a", "b", "c", "d"]
    assert bench.run() == []
    assert set(bench.states().values()) == {"done"}


def test_until_stops_after_the_named_stage(bench: Bench) -> None:
    assert bench.run(until="b") == ["a", "b"]
    assert bench.states() == {"a": "done", "b": "done", "c": "missing", "d": "missing"}
    with pytest.raises(RunError, match="no stage 'zzz'; the stages are a, b, c, d"):
        bench.run(until="zzz")


def test_a_change_rebuilds_what_depends_on_it_and_nothing_else(bench: Bench) -> None:
    bench.run()
    bench.config["b"] = {"value": "B"}
    assert bench.states() == {"a": "done", "b": "stale", "c": "stale", "d": "done"}
    assert bench.run() == ["b", "c"]
    assert (bench.run_dir / "c" / "out.txt").read_text() == "aBc"


def test_an_equal_output_leaves_later_stages_alone(bench: Bench) -> None:
    bench.run()
    bench.config["b"] = {"value": "b", "comment": "changes the key, not the output"}
    assert bench.run() == ["b"]


def test_material_from_outside_is_part_of_the_key(bench: Bench) -> None:
    bench.run()
    bench.outside = 1
    assert bench.run() == ["a"]


def test_a_missing_or_shortened_output_is_rebuilt(bench: Bench) -> None:
    bench.run()
    (bench.run_dir / "d" / "out.txt").unlink()
    assert bench.states()["d"] == "stale"
    assert bench.run() == ["d"]
    (bench.run_dir / "a" / "out.txt").write_text("")
    assert bench.run() == ["a"]


def test_a_damaged_stage_keeps_what_is_whole(bench: Bench) -> None:
    bench.run()
    (bench.run_dir / "b" / "mine.txt").write_text("whole")
    (bench.run_dir / "b" / "out.txt").write_text("cut")
    assert bench.run()[0] == "b"
    assert (bench.run_dir / "b" / "mine.txt").exists() and bench.states()["b"] == "done"


def test_what_only_serves_resuming_is_no_output(tmp_path: Path) -> None:
    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        (out / "steps").mkdir(exist_ok=True)
        (out / "steps" / "x").write_text(str(time.time_ns()))
        (out / "out").write_text("1")
        return {}

    def run() -> dict[str, Any]:
        stages = [Stage("a", {}, build, scratch="steps")]
        return run_stages(tmp_path / "run", stages, recipe_text="name: fake\n", name="fake", seed=0)["a"]

    first = run()
    assert [file["path"] for file in first["files"]] == ["out"]
    shutil.rmtree(tmp_path / "run" / "a" / "steps")
    assert run() == first


def test_what_a_killed_process_was_writing_is_removed(bench: Bench) -> None:
    bench.fail = "b"
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    (bench.run_dir / "b" / ".out.txt.x1y2").write_text("half")
    (bench.run_dir / "b" / "sub" / ".part.old").mkdir(parents=True)
    bench.fail = None
    bench.run()
    manifest = read_manifest(bench.run_dir / "b")
    assert manifest and [file["path"] for file in manifest["files"]] == ["half.txt", "out.txt"]


def test_an_interrupted_stage_keeps_its_folder_and_is_entered_again(bench: Bench) -> None:
    bench.fail = "b"
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.states() == {"a": "done", "b": "partial", "c": "missing", "d": "missing"}
    (bench.run_dir / "b" / "mine.txt").write_text("resumed from here")
    bench.fail = None
    assert bench.run() == ["b", "c", "d"]
    assert (bench.run_dir / "b" / "mine.txt").exists()
    assert not (bench.run_dir / "b" / PARTIAL).exists()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyboardInterrupt("Stopped by SIGINT."), "stopped"),
        (AlarmError("Beyond most_kl."), "ended by an alarm"),
        (RunError("No grader."), "failed"),
        (ValueError("A defect."), "failed"),
    ],
)
def test_the_status_says_how_a_stage_ended(tmp_path: Path, error: BaseException, why: str) -> None:
    told: list[tuple[str, str]] = []

    def tell() -> None:
        (found,) = status(tmp_path / "run", stages)
        told.append((found.why.partition(";")[0], found.ended))

    def build(folders: Mapping[str, Path], out: Path) -> dict[str, Any]:
        tell()
        raise error

    stages = [Stage("a", {}, build)]
    for _ in range(2):
        with pytest.raises(type(error)):
            run_stages(tmp_path / "run", stages, recipe_text="name: fake\n", name="fake", seed=0)
        tell()
    assert told == [("running", ""), (why, str(error))] * 2
    (tmp_path / "run/a" / PARTIAL).write_text(json.dumps({"key": "", "started": "2026-01-01", "seconds": 1.0}))
    tell()
    assert told[-1] == ("cut off", "")  # killed: nobody could say why


def test_what_a_changed_stage_left_is_removed_when_its_rebuild_starts(bench: Bench) -> None:
    bench.fail = "b"
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    (bench.run_dir / "b" / "old.txt").write_text("of the old configuration")
    bench.fail, bench.config["b"] = None, {"value": "new"}
    bench.run()
    assert not (bench.run_dir / "b" / "old.txt").exists()


def test_the_manifest_tells_the_lineage(bench: Bench) -> None:
    bench.run()
    a, b = read_manifest(bench.run_dir / "a"), read_manifest(bench.run_dir / "b")
    assert a and b
    assert b["inputs"] == {"a": a["output"]} and b["seed"] == 3 and b["metrics"] == {"length": 1}
    assert b["size"] == sum(f["size"] for f in b["files"]) and b["code"] and b["started"] <= b["finished"]


def test_a_killed_process_leaves_a_run_that_resumes(bench: Bench) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from foretell.run import Stage, run_stages
        def a(inputs, out):
            (out / "out.txt").write_text("a")
            return {}
        def b(inputs, out):
            (out / "half.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        stages = [Stage("a", {"value": "a"}, a, (), lambda: 0), Stage("b", {"value": "b"}, b, ("a",))]
        run_stages(Path(sys.argv[1]), stages, recipe_text="name: fake\\n", name="fake", seed=3)
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(bench.run_dir)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert bench.states() == {"a": "done", "b": "partial", "c": "missing", "d": "missing"}
    assert bench.run() == ["b", "c", "d"]  # and the lock of the dead process did not stand in the way


def test_one_process_a_run(bench: Bench) -> None:
    bench.run()
    with lock(bench.run_dir), pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
        bench.run()
    assert bench.run() == []


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"])
def test_a_lost_machine_holds_the_lock_against_all_but_its_own_job(
    bench: Bench, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run()
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(variable, "7")
    with lock(bench.run_dir):
        held = json.loads((bench.run_dir / ".lock").read_text()) | {"host": "elsewhere"}
    for job, free in (("8", False), ("none", False), ("7", True)):
        (bench.run_dir / ".lock").write_text(json.dumps(held))
        monkeypatch.setenv(variable, job)
        if free:
            with lock(bench.run_dir):
                pass
        else:
            with pytest.raises(RunError, match=r"in use by process .* on elsewhere"), lock(bench.run_dir):
                pass


def test_a_reused_process_id_does_not_hold_the_lock(bench: Bench) -> None:
    bench.run()
    with lock(bench.run_dir):
        held = json.loads((bench.run_dir / ".lock").read_text())
    (bench.run_dir / ".lock").write_text(json.dumps({**held, "born": "1"}))
    assert bench.run() == []


def test_a_folder_of_another_run_or_of_no_run_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    with pytest.raises(RunError, match="holds a run of recipe 'fake', not 'other'"):
        run_stages(bench.run_dir, bench.stages(), recipe_text="name: other\n", name="other", seed=0)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not empty and holds no run"):
        run_stages(tmp_path / "home", bench.stages(), recipe_text="name: fake\n", name="fake", seed=0)
    with pytest.raises(RunError, match="not a run directory"):
        status(tmp_path / "home", bench.stages())


def test_a_full_disk_is_said_and_what_was_done_stays(bench: Bench) -> None:
    def full(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", str(out / "x"))

    bench.run(until="a")
    stages = [bench.stages()[0], Stage("b", {}, full, ("a",))]
    with pytest.raises(RunError, match="The disk is full"):
        run_stages(bench.run_dir, stages, recipe_text="name: fake\n", name="fake", seed=0)
    assert bench.run() == ["b", "c", "d"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="No permission"):
        Bench(tmp_path / "run").run()


def test_an_error_names_the_whole_path(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    bench.config["a"]["value"] = "new"

    def refuse(path: Path) -> None:  # as rmtree does where it may not remove: the name alone
        raise PermissionError(errno.EACCES, "Permission denied", "out.txt")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(RunError, match=rf"No permission to write {bench.run_dir}/a\."):
        bench.run()


def test_a_recipe_that_is_no_text_is_of_another_run(bench: Bench) -> None:
    bench.run()
    (bench.run_dir / "recipe.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="holds a run of recipe"):
        bench.run()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        Bench(tmp_path / "file" / "run").run()
