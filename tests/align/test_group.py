"""Two processes fine-tune as one does: the same losses, one log, one result; what cannot be shared says what can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from alignkit import Base, chat, preferences, write_jsonl
from safetensors.torch import load_file

from foretell.align.stages import CONFIGS, Kind, tune
from foretell.errors import TrainingError
from foretell.recipes import check_settings
from foretell.train.log import read_log
from groupkit import launch

SETTINGS = [
    "sequence_length=128", "batch_tokens=512", "micro_batch=2", "epochs=3", "lr=3e-3", "heldout=0.2", "log_every=1",
    "device=cpu", "precision=float32",
]  # fmt: skip
KINDS: tuple[Kind, ...] = ("sft", "reward", "dpo")


def data(folder: Path) -> Path:
    """Rows that every kind can read: rankings beside conversations, in a file each."""
    rows = [row | {"margin": 0.1} for row in preferences(40)]
    write_jsonl(folder / "dialogues.jsonl", ({"messages": chat(row["prompt"], row["chosen"])} for row in rows))
    return write_jsonl(folder / "preferences.jsonl", rows)


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_log(run / kind / "log.jsonl") if line["event"] in ("train", "eval")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [[], ["lora.rank=4"]], ids=["whole", "adapters"])
@pytest.mark.parametrize("spread", [[], ["parallel.shard=2"]], ids=["copies", "shards"])
def test_two_processes_give_the_losses_of_one(
    kind: Kind, more: list[str], spread: list[str], base: Base, tmp_path: Path
) -> None:
    rows = data(tmp_path)
    if kind == "sft":
        rows = tmp_path / "dialogues.jsonl"
    tune(kind, base.folder, rows, tmp_path / "one", check_settings(CONFIGS[kind], SETTINGS + more))
    flags = [flag for setting in SETTINGS + more + spread for flag in ("--set", setting)]
    places = ("--model", base.folder, "--data", rows, "--out", tmp_path / "two")
    first, second = launch("-m", "foretell", kind, *map(str, places), *flags)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "examples in" in first.stdout and not second.stdout + second.stderr
    assert read_log(tmp_path / "two" / kind / "log.jsonl")[0]["processes"] == 2
    alone, shared = (lines(tmp_path / name, kind) for name in ("one", "two"))
    assert len(alone) > 6
    for a, b in zip(alone, shared, strict=True):
        assert (a["event"], a["step"], a["tokens"]) == (b["event"], b["step"], b["tokens"])
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    found = load_file(tmp_path / "two" / kind / "checkpoint/model.safetensors")
    for name, tensor in load_file(tmp_path / "one" / kind / "checkpoint/model.safetensors").items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
def test_what_cannot_be_shared_is_refused(base: Base, tmp_path: Path) -> None:
    places = ("--model", base.folder, "--data", data(tmp_path), "--out", tmp_path / "two")
    uneven = [flag for s in (*SETTINGS, "batch_tokens=384") for flag in ("--set", s)]
    first, second = launch("-m", "foretell", "dpo", *map(str, places), *uneven)
    assert first.returncode == 2 and "3 rows of 128 tokens, which 2 processes cannot share evenly" in first.stderr
    assert "--set batch_tokens=256" in first.stderr and second.returncode != 0


def test_policies_are_trained_by_one_process(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretell.align.policy import Sources, train_policy

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(TrainingError, match="grpo runs as a single process: start it without foretell launch"):
        train_policy("grpo", base.folder, data(tmp_path), tmp_path / "run", None, Sources())
