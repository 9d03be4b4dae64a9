"""Rounds drawn by other processes: what this one would have drawn, though one is killed, and how old they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base, preferences, write_jsonl
from safetensors.torch import load_file

from foretell.align import drawers
from foretell.align.drawers import Drawers, Drawn, Files, Part, draw, make_engine
from foretell.align.episodes import Player, request_seed
from foretell.align.examples import PromptRow, read_prompts
from foretell.align.packing import require_template
from foretell.align.policy import Sources, train_policy
from foretell.align.rewarding import Part as Reward
from foretell.align.samples import Sample
from foretell.align.stages import open_base
from foretell.errors import GraderError, RecipeError
from foretell.model.adapters import choose_trained
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig
from foretell.recipes import check_settings
from foretell.train.log import read_log
from foretell.tuning import LoraConfig, PPOConfig, RolloutConfig

SMALL: dict[str, Any] = {
    "device": "cpu", "precision": "float32", "rounds": 3, "prompts": 5, "samples": 2, "minibatches": 2, "lr": 1e-3,
    "max_tokens": 8, "heldout": 0.0, "checkpoint_minutes": 1e9,
}  # fmt: skip


def lengths(samples: list[Sample]) -> list[float]:
    return [float(len(sample.reply)) for sample in samples]


def killed_once(part: Part) -> Drawn:
    """`draw`, whose process is killed at the second part of the second round, the first time."""
    mark = part.base.parent / "killed"
    if part.number == 1 and part.first and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(part)


def test_two_processes_draw_what_one_does_though_one_is_killed(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawers, "draw", killed_once)
    (base.folder.parent / "killed").unlink(missing_ok=True)
    rows = read_prompts(write_jsonl(tmp_path / "prompts.jsonl", preferences(5)))
    asked = [(i, row) for i, row in enumerate(rows) if isinstance(row, PromptRow)]
    settings = PPOConfig(**SMALL, rollout=RolloutConfig(workers=2))
    opened, told = open_base(base.folder, "cpu"), list[str]()
    engine = make_engine(opened, settings)
    player = Player(engine, require_template(opened.template, ""), 256, settings.max_tokens, logprobs=True)
    report = lambda task, done, total=None, note="": told.append(note)  # noqa: E731
    elsewhere = Drawers(opened.model, base.folder, settings, tmp_path, report)
    try:
        for number in range(2):
            found = elsewhere.begin(number, asked, number).result()
            here = player.play(asked, 2, lambda i, number=number: request_seed(settings.seed, number, i))  # type: ignore[misc]
            assert [[one[key] for key in ("row", "ids", "drawn", "replies", "finished")] for one in found] == [
                [one.row, one.ids, one.drawn, one.replies, one.finished] for one in here
            ]
            assert [one["numbers"]["sampled"] for one in found] == [one.numbers["sampled"].tolist() for one in here]
            with torch.no_grad():  # what is learned in between is seen
                for parameter in opened.model.parameters():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        assert len(told) == 1 and "ended from outside" in told[0] and "1 of 2" in told[0]
        folder = elsewhere._files.folder
        assert [path.name for path in folder.iterdir()] == ["1.safetensors"]
    finally:
        elsewhere.close()
        engine.close()
    assert not folder.exists()


def test_of_a_model_with_adapters_only_they_travel(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawers.signal, "signal", lambda *_: None)  # this process hears interrupts all the same
    rows = read_prompts(write_jsonl(tmp_path / "prompts.jsonl", preferences(3)))
    asked = tuple((i, row) for i, row in enumerate(rows) if isinstance(row, PromptRow))
    settings = PPOConfig(**SMALL, lora=LoraConfig(rank=2, targets=("q_proj", "down_proj")), rollout=RolloutConfig())
    opened = open_base(base.folder, "cpu", frozen=True)
    choose_trained(opened.model, settings)
    with torch.no_grad():
        for parameter in (p for p in opened.model.parameters() if p.requires_grad):
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    files = Files(opened.model, tmp_path / "weights", near=False)
    found = draw(Part(base.folder, files.write(4, 3), settings, 2, 0, asked))
    assert all(".adapters." in name for name in load_file(tmp_path / "weights/4.safetensors"))
    engine = make_engine(opened, settings)
    player = Player(engine, require_template(opened.template, ""), 256, settings.max_tokens)
    here = player.play(asked, 2, lambda i: request_seed(settings.seed, 2, i))
    engine.close()
    assert [one["ids"] for one in found] == [one.ids for one in here]


@pytest.mark.parametrize(("staleness", "near"), [(0, True), (8, False)])
def test_weights_lie_where_there_is_room_for_all_versions_that_draw(
    staleness: int, near: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Multimodal(ModelConfig(vocab_size=64, width=32, depth=1, max_length=16))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(drawers, "_SHARED", tmp_path / "shared")
    monkeypatch.setattr(drawers.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * size))
    written = Files(model, tmp_path / "run", near=True).write(3, 3 - staleness)
    assert written.is_relative_to(tmp_path / "shared") == near


def run(base: Base, prompts: Path, out: Path, reward: Any = lengths, **rollout: Any) -> list[dict[str, Any]]:
    settings = PPOConfig(**SMALL, rollout=RolloutConfig(**rollout) if rollout else None)
    train_policy("ppo", base.folder, prompts, out, settings, Sources(parts=(Reward("length", reward),)))
    return [line for line in read_log(out / "ppo" / "log.jsonl") if line["event"] == "train"]


def test_a_run_with_a_drawer_learns_what_one_without_does_though_cut_off(base: Base, tmp_path: Path) -> None:
    prompts, calls = write_jsonl(tmp_path / "prompts.jsonl", preferences(12)), [0]

    def failing(samples: list[Sample]) -> list[float]:
        calls[0] += 1
        if calls[0] == 3:
            raise GraderError("The grader does not answer.")
        return lengths(samples)

    alone = run(base, prompts, tmp_path / "alone")
    with pytest.raises(GraderError):
        run(base, prompts, tmp_path / "apart", failing, workers=1)
    apart = run(base, prompts, tmp_path / "apart", failing, workers=1)
    assert "mismatch" not in alone[0] and [line["staleness"] for line in apart] == [0] * 6
    assert [line["reward"] for line in apart] == [line["reward"] for line in alone]
    assert max(line["mismatch"]["largest"] for line in apart) < 1e-3
    assert apart[0]["mismatch"]["weight"] == pytest.approx(1, abs=1e-4)
    one, other = (load_file(tmp_path / name / "ppo/checkpoint/model.safetensors") for name in ("alone", "apart"))
    for name, weight in one.items():
        assert torch.allclose(other[name], weight, atol=1e-4), name
    assert not (tmp_path / "apart/ppo/.rollout").exists()
    # The place decides nothing, so that a run may go on elsewhere; without it the settings are those of before.
    settings = PPOConfig(**SMALL)
    assert "rollout" not in settings.deciding
    two = settings.model_copy(update={"rollout": RolloutConfig(workers=2, on="ray")})
    assert two.deciding["rollout"] == RolloutConfig().deciding


def test_rounds_drawn_ahead_are_no_older_than_allowed(base: Base, tmp_path: Path) -> None:
    prompts = write_jsonl(tmp_path / "prompts.jsonl", preferences(12))
    log = run(base, prompts, tmp_path / "run", workers=1, max_staleness=1, importance_cap=1.5)
    assert [line["staleness"] for line in log] == [0, 0, 1, 1, 1, 1]
    old, fresh = log[2]["mismatch"], log[0]["mismatch"]
    assert old["logprob"] > 10 * fresh["logprob"] and 0 < old["effective"] < 1
    assert np.isfinite([line["loss"] for line in log]).all()


def test_a_server_needs_a_folder() -> None:
    with pytest.raises(RecipeError, match=r"rollout\.folder"):
        check_settings(PPOConfig, ["rollout.on=http://localhost:8000/v1"])
