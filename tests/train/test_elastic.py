"""Ranks that are killed, hang or differ: the run starts again and ends with the same numbers, or says who and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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


def launched(toy: Any, tmp_path: Path, *own: str, **faults: dict[str, Any]) -> tuple[Path, str, list[str]]:
    """A run that has the same weights and losses as an undisturbed one, what it said, and of that its errors."""
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    env = faultkit.environment(tmp_path / "site", {name.removeprefix("start"): fault for name, fault in faults.items()})
    words = ("launch", "--ranks=2", "--threads=1", *own, recipe, "--out", run, "--until", "pretrain")
    done = foretell(*words, env=env)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    same_bits(run, undisturbed(run, recipe, tmp_path / "one"))
    return run, done.stdout + done.stderr, [line for line in done.stderr.splitlines() if line.startswith("Error")]


def resumed(run: Path) -> list[str]:
    return [line["checkpoint"] for line in read_log(run / "pretrain/log.jsonl") if line["event"] == "resume"]


def test_a_killed_rank_and_a_damaged_checkpoint_change_nothing(toy: Any, tmp_path: Path) -> None:
    damage = {"kind": "damage", "rank": 0, "folder": str(tmp_path / "run/pretrain/checkpoints")}
    run, said, errors = launched(toy, tmp_path, start0={"kind": "kill", "rank": 1, "step": 6}, start1=damage)
    assert len(errors) == 1  # of two processes, one says it
    assert errors[0].startswith("Error: Rank 1 of 2 on ") and "is gone: killed" in errors[0]
    assert errors[0].endswith("torchrun starts the processes again (restart 1 of 3).")
    assert "damaged step-000006" in said and "Trying the checkpoint before it" in said
    assert resumed(run) == ["step-000005"]


@pytest.mark.slow
def test_a_hung_rank_is_named_and_changes_nothing(toy: Any, tmp_path: Path) -> None:
    run, _, errors = launched(toy, tmp_path, "--hang=15", start0={"kind": "hang", "rank": 0, "step": 6})
    assert len(errors) == 1 and "Rank 0 of 2 on " in errors[0]
    assert "hangs: no progress for 15 s, in train/trainer.py, line " in errors[0]
    assert resumed(run) == ["step-000006"]
