"""A build on Slurm: an sbatch on the path that runs each job at once, after those it depends on, as a cluster would."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from collectionkit import digests, recipe, write_input

from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.run import build, totals
from foretell.errors import RunError

pytest.importorskip("datatrove")

# What is asked for in a job's head is written down; a job whose parent failed does not run, and counts as failed.
SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
here = pathlib.Path(__file__).parent
script = pathlib.Path(sys.argv[-1]).read_text()
number = len(list(here.glob("*.job"))) + 1
after = [old for word in sys.argv if word.startswith("--dependency=afterok:") for old in re.findall("[0-9]+", word)]
ok = all((here / f"{{old}}.job").read_text().startswith("ok") for old in after)
array = re.search("--array=0-([0-9]+)", script)
if "launch_pickled_pipeline" in script:
    for rank in range(int(array[1]) + 1):
        made = {{**os.environ, "SLURM_ARRAY_TASK_ID": str(rank), "RUN_OFFSET": "0", "SLURM_NODELIST": "localhost"}}
        done = subprocess.run(["bash", sys.argv[-1]], env=made, capture_output=True, text=True)
        (here / f"{{number}}.{{rank}}.log").write_text(done.stdout + done.stderr)
        ok = ok and done.returncode == 0
(here / f"{{number}}.job").write_text(("ok" if ok else "failed") + "\\n" + " ".join(sys.argv[1:-1]) + "\\n" + script)
print("Submitted batch job", number)
"""
SRUN = """#!/bin/bash
exec launch_pickled_pipeline "${@: -1}"
"""
SCONTROL = "#!/bin/sh\necho localhost\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "bin"
    (place / "venv" / "bin").mkdir(parents=True)
    (place / "venv" / "bin" / "activate").write_text("export ACTIVATED=1\n")
    stubs = {"sbatch": SBATCH.format(python=sys.executable), "srun": SRUN, "scontrol": SCONTROL}
    for name, text in stubs.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{python}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return place


def small(folder: Path, place: Path) -> CollectionRecipe:
    """Two shards, no pass but that of ids: each task is a process here, and takes its time to start."""
    slurm = {"partition": "cpu", "cpus": 2, "memory_gb": 6, "workers": 8, "venv": str(place / "venv"),
             "arguments": {"account": "text"}}  # fmt: skip
    sources = [{"kind": "jsonl", "name": "lines", "path": str(folder / "a.jsonl"), "unit_bytes": 10_000}]
    return recipe(folder, sources=sources, passes=[], shard_bytes=10_000, images="inline", slurm=slurm)


def test_the_jobs_of_a_build_make_the_same_bytes(cluster: Path, tmp_path: Path) -> None:
    made = small(write_input(tmp_path / "in"), cluster)
    assert build(made, tmp_path / "slurm", on="slurm") == {}
    assert totals(tmp_path / "slurm") == build(made, tmp_path / "local", workers=1)
    assert digests(tmp_path / "slurm") == digests(tmp_path / "local")
    told = [(cluster / f"{n}.job").read_text() for n in range(1, len(list(cluster.glob("*.job"))) + 1)]
    jobs = [text for text in told if "launch_pickled_pipeline" in text]
    names = [re.search("job-name=kit-(.+)", text) for text in jobs]
    assert [name[1] for name in names if name] == ["read", "00-ids-sketch", "00-ids-merge", "write", "finish"]
    for line in ("array=0-1%8", "partition=cpu", "cpus-per-task=2", "mem-per-cpu=3G", "time=04:00:00", "account=text"):
        assert f"#SBATCH --{line}\n" in jobs[0]
    assert f"source {cluster / 'venv' / 'bin' / 'activate'}\n" in jobs[0]
    assert all("--dependency=afterok:" in text.split("\n")[1] for text in jobs[1:])


@pytest.mark.slow  # each task is a process that imports datatrove
def test_a_task_that_fails_ends_the_jobs_after_it_and_the_same_command_goes_on(cluster: Path, tmp_path: Path) -> None:
    folder = write_input(tmp_path / "in")
    made = small(folder, cluster)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunError, match="sbatch"):
        patch.setenv("PATH", "")
        build(made, tmp_path / "out", on="slurm")
    folder.rename(tmp_path / "away")
    build(made, tmp_path / "out", on="slurm")
    with pytest.raises(RunError, match="not finished"):
        totals(tmp_path / "out")
    assert [(cluster / f"{n}.job").read_text().split()[0] for n in (1, 3, 5)] == ["failed"] * 3
    (tmp_path / "away").rename(folder)
    build(made, tmp_path / "out", on="slurm")
    assert totals(tmp_path / "out")["documents_in"] == 15
