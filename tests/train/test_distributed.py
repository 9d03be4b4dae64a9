"""Two processes on gloo do what one does: the same numbers, one log, checkpoints for either, nobody left hanging."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed import HashStore  # type: ignore[attr-defined]

from foretell.errors import DataError, GroupError
from foretell.train.distributed import Group, LeftError
from foretell.train.log import read_log
from groupkit import launch

SCRIPT = """
import os, signal, sys, yaml
from pathlib import Path
from foretell.errors import TrainingError
from foretell.recipe import Recipe
from foretell.train import loop
from foretell.train.distributed import Group
loop.peak_rate = lambda *_: 1e11
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
recipe = Recipe.model_validate(yaml.safe_load((out / "recipe.yaml").read_text()))
def train(name, group, report=lambda *a: None, recipe=recipe):
    places = folder / "pack", folder / "heldout", folder / "tokenizer"
    return loop.pretrain(recipe, *places, out / name, report=report, group=group)
def at(rank, step, act):
    return lambda task, done, total=None, note="": act() if (group.rank, done) == (rank, step) else None
with Group.join() as group:
    train("whole", group)
    try:
        train("stopped", group, at(1, 10, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    except KeyboardInterrupt as error:
        print("stopped:", error)
    train("begun", group)
    uneven = recipe.train.model_copy(update={"batch_tokens": 7 * 64})
    try:
        train("uneven", group, recipe=recipe.model_copy(update={"train": uneven}))
    except TrainingError as error:
        print("uneven:", error)
    try:
        train("abandoned", group, at(1, 3, lambda: os._exit(7)))
    except TrainingError as error:
        print("abandoned:", error)
sys.stdout.flush()
os._exit(0)  # as `foretell` leaves: threads that waited for the lost process would abort a tidy shutdown
"""


@pytest.fixture(scope="module")
def one(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the recipe, and in begun/ a checkpoint of it after step 6."""
    out = tmp_path_factory.mktemp("one")
    toy.train(out / "whole", toy_recipe(toy))
    return out


def toy_recipe(toy: Any) -> Any:
    # Half a batch at a time, so that one process adds gradients up in the order in which two do.
    return toy.recipe(micro_batch=4, eval_every=0.25)


@pytest.fixture(scope="module")
def two(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    out = tmp_path_factory.mktemp("two")
    recipe = toy_recipe(toy)
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))

    def stop(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if done == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        toy.train(out / "begun", recipe, report=stop)
    return out, launch("-c", SCRIPT, str(toy.folder), str(out))


def lines(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["event"] in ("train", "eval")]


def same(left: Path, right: Path) -> None:
    """Equal logs and weights, up to rounding in float32."""
    for a, b in zip(lines(left), lines(right), strict=True):
        for key in ("event", "step", "tokens", "lr"):
            assert a.get(key) == b.get(key)
        for key in ("loss", "bits_per_byte", "grad_norm", "loss_by_kind"):
            if key in a | b:
                assert a[key] == pytest.approx(b[key], rel=1e-5)
    there = load_file(right / "checkpoint/model.safetensors")
    for name, tensor in load_file(left / "checkpoint/model.safetensors").items():
        torch.testing.assert_close(tensor, there[name], rtol=0, atol=2e-6, msg=name)


def test_two_processes_give_the_numbers_of_one(two: Any, one: Path) -> None:
    same(two[0] / "whole", one / "whole")
    end, alone = (read_log(out / "whole/log.jsonl")[-1] for out in (two[0], one))
    assert (end["processes"], alone["processes"]) == (2, 1)
    assert end["flops"] == pytest.approx(alone["flops"]) and end["matmul_rate"] == 2e11


def test_a_signal_to_any_process_ends_all_in_one_checkpoint(two: Any) -> None:
    for process in two[1]:
        assert "Stopped by SIGTERM after step 10 of 24" in process.stdout, process.stderr
    log = read_log(two[0] / "stopped/log.jsonl")
    assert [line["step"] for line in log if line["event"] in ("checkpoint", "stop")] == [10, 10]


def test_a_checkpoint_fits_any_number_of_processes(toy: Any, two: Any, one: Path) -> None:
    same(two[0] / "begun", one / "whole")  # begun by one, finished by two
    toy.train(two[0] / "stopped", toy_recipe(toy))  # begun by two
    same(two[0] / "stopped", one / "whole")


def test_a_lost_process_ends_the_others(two: Any) -> None:
    first, second = two[1]
    assert first.returncode == 0 and second.returncode == 7, first.stderr
    assert "abandoned: Rank 1 of 2 on " in first.stdout and "is gone: killed" in first.stdout


def test_a_batch_that_cannot_be_shared_is_refused(two: Any) -> None:
    assert "makes 7 rows of 64 tokens, which 2 processes cannot share" in two[1][0].stdout


def test_a_whole_run(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.md").write_text(f"The number {i} is followed by {i + 1}. " * 20)
    recipe = toy.recipe(tokens=2 * 512).model_dump(mode="json") | {"tokenizer": {"vocab_size": 320}}
    recipe["data"] |= {"tokens": 2048, "heldout_tokens": 256}
    recipe["data"]["sources"] = [{"kind": "folder", "path": str(tmp_path / "texts"), "heldout": 0.2}]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(recipe))
    out = str(tmp_path / "run")
    first, second = launch("-m", "foretell", "run", str(tmp_path / "toy.yaml"), "--out", out, "--until", "pretrain")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "Stages up to pretrain are done" in first.stdout and not second.stdout + second.stderr
    assert read_log(tmp_path / "run/pretrain/log.jsonl")[0]["processes"] == 2


def test_those_that_wait_are_let_go_when_the_first_process_leaves() -> None:
    store = HashStore()
    first, second = Group(0, 2, store), Group(1, 2, store)
    assert first.share(lambda: ["a"]) == ["a"]
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    assert second.share(lambda: pytest.fail("the first decides")) == ["a"]
    with pytest.raises(LeftError):
        second.share(lambda: None)


def test_an_error_of_one_process_is_that_of_all() -> None:
    store = HashStore()
    first, second = Group(0, 2, store), Group(1, 2, store)
    with pytest.raises(GroupError, match="Rank 0 of 2: no such folder") as own, first:
        raise DataError("no such folder")
    with pytest.raises(GroupError) as other, second:
        second.share(lambda: None)
    assert str(own.value) == str(other.value) and own.value.lasting and other.value.lasting
    assert [own.value.told, other.value.told] == [False, True]  # one of a machine speaks


def test_a_single_process_exchanges_nothing() -> None:
    group, gradient = Group(), torch.ones(3, requires_grad=True)
    group.sum_gradients([gradient])
    assert gradient.grad is None
    assert group.add(1, 2) == group.most(1, 2) == [1, 2]
    assert group.share(lambda: {"a": 1}) == {"a": 1}
    sums = {"n": torch.ones(2)}
    assert group.total(sums)["n"] is sums["n"]
