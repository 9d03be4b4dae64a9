"""Ranks that are killed, hang or differ: the run starts again and ends with the same numbers, or says who and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import faultkit
from faultkit import foretell
from foretell.recipes import load_recipe
from foretell.train import loop
from foretell.train.log import read_log


def losses(run: Path) -> list[tuple[int, float]]:
    """The loss of each step as the log has it last, since steps after a checkpoint are done again."""
    log = read_log(run / "pretrain/log.jsonl")
    return sorted({line["step"]: line["loss"] for line in log if line["event"] == "train"}.items())


def undisturbed(run: Path, recipe: Path, out: Path) -> Path:
    """The same training in one process, on the data that the run packed."""
    folders = (run / "pack/train", run / "pack/heldout", run / "tokenizer")
    loop.pretrain(load_recipe(str(recipe)), *folders, out / "pretrain")
    return out


def same_bits(run: Path, other: Path) -> None:
    there = load_file(other / "pretrain/checkpoint/model.safetensors")
    for name, tensor in load_file(run / "pretrain/checkpoint/model.safetensors").items():
        assert torch.equal(tensor, there[name]), name
    assert losses(run) == losses(other)


def test_a_run_of_killed_and_hung_ranks_ends_as_an_undisturbed_one(toy: Any, tmp_path: Path) -> None:
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    faults = {
        "0": {"kind": "kill", "rank": 1, "step": 6},
        "1": {"kind": "hang", "rank": 0, "step": 12},
        "2": {"kind": "damage", "rank": 0, "folder": str(run / "pretrain/checkpoints")},
    }
    env = faultkit.environment(tmp_path / "site", faults)
    done = foretell(
        "launch", "--ranks=2", "--threads=1", "--hang=15", recipe, "--out", run, "--until", "pretrain", env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(said) == 2 and "Traceback" not in done.stderr
    assert "Rank 1 of 2 on " in said[0] and "is gone: killed" in said[0] and "(restart 1 of 3)" in said[0]
    assert "Rank 0 of 2 on " in said[1] and "hangs: no progress for 15 s, in " in said[1]
    assert "step-000012" in done.stdout and "Trying the checkpoint before it" in done.stderr
    resumed = [line for line in read_log(run / "pretrain/log.jsonl") if line["event"] == "resume"]
    assert [line["checkpoint"] for line in resumed] == ["step-000006", "step-000011"]
    same_bits(run, undisturbed(run, recipe, tmp_path / "one"))
