"""Training end to end: it learns, logs, accumulates, survives bad steps, and resumes to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foretell.data.loader import Loader
from foretell.data.tokenizer import Tokenizer
from foretell.errors import CheckpointError, DataError, RunError, TrainingError
from foretell.model.multimodal import Multimodal
from foretell.model.weights import load_model
from foretell.template import IMAGE
from foretell.train import objective as objectives
from foretell.train.checkpoint import checkpoints
from foretell.train.log import read_log
from foretell.train.objective import NextToken, split

Clock = Callable[..., Callable[[], float]]


def events(out: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["event"] == event]


def numbers(out: Path) -> list[Any]:
    """Every logged number that does not come from a clock."""
    keys = ("event", "step", "tokens", "loss", "bits_per_byte", "lr", "grad_norm", "loss_by_kind", "by_kind", "value")
    lines = [line for line in read_log(out / "log.jsonl") if line["event"] in ("train", "eval", "spike", "nonfinite")]
    return [{key: line[key] for key in keys if key in line} for line in lines]


def weights(out: Path) -> dict[str, bytes]:
    tensors = load_file(out / "checkpoint/model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.fixture(scope="session")
def straight(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run that others are compared with."""
    out = tmp_path_factory.mktemp("straight")
    toy.train(out)
    return out


def test_it_learns_and_the_log_is_complete(toy: Any, straight: Path) -> None:
    train = events(straight, "train")
    assert [line["step"] for line in train] == [4, 8, 12, 16, 20, 24]
    assert train[-1]["loss"] < 0.6 * train[0]["loss"]
    wanted = {"step", "tokens", "loss", "bits_per_byte", "lr", "grad_norm", "tokens_per_s", "matmul_share", "seconds"}
    assert wanted | {"loss_by_kind", "utc"} <= train[0].keys()
    assert set(train[0]["loss_by_kind"]) == {"tile", "count"}
    assert 0 < train[0]["matmul_share"] < 100 and train[-1]["tokens"] == 24 * 512
    middle, end = events(straight, "eval")
    assert middle["step"] == 12 and end["step"] == 24
    assert set(end["by_kind"]["tile"]) == {"loss", "bits_per_byte", "tokens"}
    assert read_log(straight / "log.jsonl")[0]["event"] == "start"
    metrics = events(straight, "end")[0]
    assert metrics["loss"] == end["loss"] and metrics["steps"] == 24 and metrics["flops"] > 0


def test_bits_per_byte_is_nats_over_bytes_of_the_targets(toy: Any, straight: Path) -> None:
    model = load_model(straight / "checkpoint")
    tokenizer = Tokenizer.load(toy.folder / "tokenizer")
    nats, count, size = 0.0, 0, 0
    for batch in Loader.fixed(toy.folder / "heldout", 2, 10**6):
        logits = model(*objectives.inputs(batch, torch.device("cpu"))).detach()
        targets = torch.from_numpy(batch.targets).flatten()
        nats += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum"))
        kept = batch.targets[batch.targets >= 0]
        count, size = count + len(kept), size + int(tokenizer.token_bytes[kept].sum())
    end = events(straight, "eval")[-1]
    assert end["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert end["bits_per_byte"] == pytest.approx(nats / np.log(2) / size, rel=1e-5)


def test_final_checkpoint_loads_with_its_tokenizer(straight: Path) -> None:
    names = {path.name for path in (straight / "checkpoint").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "recipe.yaml", "manifest.json"} <= names
    assert "training" not in names
    Tokenizer.load(straight / "checkpoint")


def test_accumulation_equals_one_big_batch(toy: Any) -> None:
    batch = Loader.fixed(toy.folder / "pack", 8, 1)[0]
    tokenizer = Tokenizer.load(toy.folder / "tokenizer")
    shape = toy.recipe().model.model_copy(
        update={"vocab_size": tokenizer.vocab_size, "image_token": tokenizer.special(IMAGE), "zero_init_outputs": False}
    )
    objective = NextToken(["count", "tile"], tokenizer.token_bytes)
    # Rows with very different numbers of targets: a mean of means would differ.
    targets = batch.targets.copy()
    targets[:3, 5:] = -100
    batch = replace(batch, targets=targets)
    found = []
    for rows in (8, 3, 1):
        model = Multimodal(shape, torch.Generator().manual_seed(0))
        parts = list(split(batch, rows, shape.image_token, 4))
        assert sum(len(part.tiles) for part in parts) == len(batch.tiles) > 0
        for part in parts:
            total, _ = objective.loss(model, part, torch.device("cpu"))
            (total / objective.weight(batch)).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for other in found[1:]:
        for name, grad in found[0].items():
            torch.testing.assert_close(other[name], grad, rtol=1e-4, atol=1e-6)


def test_resuming_from_any_clock_is_exact(toy: Any, straight: Path, tmp_path: Path, clock_at: Clock) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        toy.train(out, clock=clock_at(3, 10), report=interrupt_at(14))
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-000010", "step-000014"]
    toy.train(out, clock=clock_at(5))
    assert weights(out) == weights(straight)
    assert numbers(out) == numbers(straight)
    assert events(out, "resume")[0]["step"] == 14


def interrupt_at(step: int, number: int = signal.SIGTERM) -> Callable[..., None]:
    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return report


KILLED = """
import os, signal, sys, yaml
from pathlib import Path
from foretell.recipe import Recipe
from foretell.train import loop, objective
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
loop.peak_rate = lambda *_: 1e11
calls, inner = [], objective.NextToken.loss
def loss(self, *args):
    calls.append(0)
    value = inner(self, *args)
    if len(calls) == 18:  # 8 rows in parts of 4: the first evaluation comes later, so this is step 9, part 2
        os.kill(os.getpid(), signal.SIGKILL)
    return value
objective.NextToken.loss = loss
recipe = Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text()))
recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"micro_batch": 4})})
ticks = iter(range(10**6))
clock = lambda: 86400.0 * (next(ticks) >= 6)
loop.pretrain(recipe, folder / "pack", folder / "heldout", folder / "tokenizer", out, clock=clock)
"""


def test_sigkill_in_mid_step_then_resume_is_bit_exact(toy: Any, tmp_path: Path) -> None:
    recipe = toy.recipe(micro_batch=4)
    toy.train(tmp_path / "whole", recipe)
    out = tmp_path / "killed"
    alike = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums are cut between threads
    command = [sys.executable, "-c", KILLED, str(toy.folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=alike)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-000006"]
    assert events(out, "train")[-1]["step"] == 8  # logged beyond the checkpoint, and written again on resuming
    assert not (out / "checkpoint").exists()
    with (out / "log.jsonl").open("a") as stream:
        stream.write('{"event": "train", "step": 9, "lo')
    toy.train(out, recipe)
    assert weights(out) == weights(tmp_path / "whole")
    assert numbers(out) == numbers(tmp_path / "whole")


def test_interrupts_end_in_a_checkpoint(toy: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"Stopped by SIGINT after step 2 of 24.*same command"):
        toy.train(tmp_path, report=interrupt_at(2, signal.SIGINT))
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-000002"]
    assert events(tmp_path, "stop")[0]["signal"] == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before


def test_keeps_the_last_n(toy: Any, tmp_path: Path, clock_at: Clock) -> None:
    toy.train(tmp_path, toy.recipe(keep=3), clock=clock_at(2, 5, 9, 14))
    assert len(checkpoints(tmp_path / "checkpoints")) == 3
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-000024"


def test_a_finished_run_is_only_evaluated_again(toy: Any, straight: Path, tmp_path: Path) -> None:
    first = toy.train(tmp_path)
    again = toy.train(tmp_path)
    assert again["loss"] == first["loss"] and weights(tmp_path) == weights(straight)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_falls_back(
    damage: str, toy: Any, straight: Path, tmp_path: Path, clock_at: Clock
) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, clock=clock_at(4), report=interrupt_at(9))
    file = tmp_path / "checkpoints/step-000009/training/state.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-100])
    else:
        file.unlink()
    said: list[str] = []
    toy.train(tmp_path, report=lambda task, done, total=None, note="": said.append(note))
    assert any("state.safetensors" in note and "before it" in note for note in said)
    assert events(tmp_path, "resume")[0]["step"] == 4
    assert weights(tmp_path) == weights(straight)


def test_all_checkpoints_damaged(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, report=interrupt_at(2))
    (tmp_path / "checkpoints/step-000002/manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="All 1 checkpoints"):
        toy.train(tmp_path)


def test_a_checkpoint_of_another_shape_is_refused(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, report=interrupt_at(2))
    recipe = toy.recipe()
    wider = recipe.model_copy(update={"model": recipe.model.model_copy(update={"width": 64})})
    with pytest.raises(CheckpointError, match=r"model.width is 64, and 32 there"):
        toy.train(tmp_path, wider)


def test_disk_full_in_mid_checkpoint(
    toy: Any, straight: Path, tmp_path: Path, clock_at: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foretell.train import checkpoint

    inner = checkpoint.write_tensors
    calls: list[Path] = []

    def full(path: Path, tensors: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        inner(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(RunError, match="disk is full"):
        toy.train(tmp_path, clock=clock_at(3, 7))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000003"]
    monkeypatch.undo()
    toy.train(tmp_path)
    assert weights(tmp_path) == weights(straight)


def poison(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], float]) -> None:
    """Multiply the loss of the n-th training batch (from 1) by bad(n)."""
    inner, calls = NextToken.loss, [0]

    def loss(self: NextToken, *args: Any) -> Any:
        total, sums = inner(self, *args)
        if not torch.is_grad_enabled():
            return total, sums
        calls[0] += 1
        return total * bad(calls[0]), sums

    monkeypatch.setattr(NextToken, "loss", loss)


@pytest.mark.parametrize("watch", ["skip", "off"])
def test_a_nan_step_never_reaches_the_weights(
    watch: str, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda n: float("nan") if n in (5, 6) else 1.0)
    metrics = toy.train(tmp_path, toy.recipe(watch=watch))
    assert np.isfinite(metrics["loss"]) and metrics["dropped_steps"] == 2
    assert [line["step"] for line in events(tmp_path, "nonfinite")] == [5, 6]
    assert events(tmp_path, "nonfinite")[0]["value"] == "nan"
    assert all(np.isfinite(line["loss"]) for line in events(tmp_path, "train"))


def test_nan_for_good_gives_up_with_advice(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda n: float("inf") if n > 4 else 1.0)
    with pytest.raises(TrainingError, match=r"8 bad steps in a row.*Lower train.optimizer.lr"):
        toy.train(tmp_path)
    assert "bad steps" in events(tmp_path, "stop")[0]["reason"]


@pytest.mark.parametrize("watch", ["skip", "rewind"])
def test_a_spike_is_skipped_or_rewound_also_across_a_resume(
    watch: str, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.recipe(watch=watch, tokens=60 * 512, eval_every=0)
    poison(monkeypatch, lambda n: 50.0 if n == 45 else 1.0)
    toy.train(tmp_path / "a", recipe)
    spike = events(tmp_path / "a", "spike")
    assert len(spike) == 1 and spike[0]["action"] == watch and spike[0]["step"] == 45
    assert spike[0]["sigmas"] > 8
    assert events(tmp_path / "a", "train")[-1]["tokens"] == (60 if watch == "skip" else 105) * 512
    monkeypatch.undo()
    if watch == "rewind":
        assert spike[0]["to_step"] == 0
    poison(monkeypatch, lambda n: 50.0 if n == 45 else 1.0)
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path / "b", recipe, report=interrupt_at(40))
    monkeypatch.undo()
    poison(monkeypatch, lambda n: 50.0 if n == 5 else 1.0)
    toy.train(tmp_path / "b", recipe)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_after_a_rewind_the_newest_checkpoint_is_the_one_written_last(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_at: Clock
) -> None:
    recipe = toy.recipe(watch="rewind", tokens=60 * 512, eval_every=0, keep=1)
    poison(monkeypatch, lambda n: 50.0 if n == 45 else 1.0)
    toy.train(tmp_path / "a", recipe)
    monkeypatch.undo()
    poison(monkeypatch, lambda n: 50.0 if n == 45 else 1.0)
    met: list[float] = []

    def again(task: str, done: float, total: float | None = None, note: str = "") -> None:
        met.append(done)
        if met.count(20) == 2:
            interrupt_at(20)(task, done, total, note)

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path / "b", recipe, clock=clock_at(40), report=again)
    assert [path.name for path in checkpoints(tmp_path / "b/checkpoints")] == ["step-000020"]
    monkeypatch.undo()
    toy.train(tmp_path / "b", recipe)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_bfloat16_trains(toy: Any, tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(precision="bfloat16"))
    train = events(tmp_path, "train")
    assert train[-1]["loss"] < 0.6 * train[0]["loss"]
    assert load_file(tmp_path / "checkpoint/model.safetensors")["decoder.embedding"].dtype == torch.float32


def test_settings_that_cannot_work(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"train.tokens is 500"):
        toy.train(tmp_path, toy.recipe(tokens=500))
    with pytest.raises(DataError, match="fewer than one batch"):
        toy.train(tmp_path, toy.recipe(batch_tokens=512_000, tokens=10**9))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TrainingError, match=r"no C\+\+ compiler"):
        toy.train(tmp_path, toy.recipe(compile=True))
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="set to cuda"):
            toy.train(tmp_path, toy.recipe(device="cuda"))


def test_log_is_json_a_line(straight: Path) -> None:
    for text in (straight / "log.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
