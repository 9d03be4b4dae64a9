"""Sharded runs give the numbers of one process, whatever the layout; their checkpoints fit any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from foretell.data.loader import Loader, balanced
from foretell.errors import TrainingError
from foretell.forecast.rungs import scaled
from foretell.model.adapters import add_adapters
from foretell.model.multimodal import Multimodal
from foretell.model.weights import verify
from foretell.recipe import ModelConfig, ParallelConfig, Recipe
from foretell.train import trainer
from foretell.train.checkpoint import latest
from foretell.train.distributed import Group
from foretell.train.layout import Layout, check_layout, layout
from foretell.train.log import read_log
from foretell.tuning import LoraConfig, SFTConfig

STEPS, LONG = 12, 52
CHANGES = {"tokens": STEPS * 512, "micro_batch": 2, "eval_every": 0.25, "optimizer": {"lr": 3e-3, "tau": 0.2}}


@pytest.fixture(scope="module")
def one(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a single process that the others must equal."""
    out = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SNAPSHOT_EVERY", 5)
        toy.train(out / "plain", toy.recipe(**CHANGES))
        toy.train(out / "low", toy.recipe(**CHANGES, precision="bfloat16"))
    return out


@pytest.fixture(scope="module")
def out(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs of spread.py leave."""
    return spread(toy, tmp_path_factory.mktemp("spread"), STEPS)


def spread(toy: Any, out: Path, steps: int, *only: str) -> Path:
    recipe = toy.recipe(**{**CHANGES, "tokens": steps * 512})
    (out / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json")))
    script = Path(__file__).with_name("spread.py")
    command = [sys.executable, str(script), str(toy.folder), str(out), *only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["event"] in ("train", "eval")]


def assert_same_run(found: Path, expected: Path) -> None:
    for a, b in zip(lines(found), lines(expected), strict=True):
        for key in ("event", "step", "tokens", "lr"):
            assert a.get(key) == b.get(key)
        for key in {"loss", "bits_per_byte", "grad_norm", "loss_by_kind"} & (a.keys() | b.keys()):
            assert a[key] == pytest.approx(b[key], rel=1e-5 if key == "loss" else 1e-4)
    there = load_file(expected / "checkpoint/model.safetensors")
    here = load_file(found / "checkpoint/model.safetensors")
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        # Patches of a tile of one colour are alike: the gradient of where they look is rounding, which Adam scales.
        if not name.startswith("vision.blocks.0.qkv"):
            torch.testing.assert_close(tensor, there[name], rtol=0, atol=2e-6, msg=name)


@pytest.mark.parametrize("name", ["fsdp", "tensor", "always", "never", "hybrid", "rewound"])
def test_every_layout_gives_the_numbers_of_one_process(out: Path, one: Path, name: str) -> None:
    assert_same_run(out / name, one / "plain")


def test_bfloat16_weights_are_those_that_one_process_casts(out: Path, one: Path) -> None:
    """First losses differ by no more than the order of sums. That it is bfloat16 that travels spread.py sees."""
    low, alone = (lines(folder / "low") for folder in (out, one))
    assert low[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4)
    assert low[-1]["loss"] == pytest.approx(alone[-1]["loss"], rel=1e-2)


def test_a_run_cut_off_and_resumed_on_as_many_is_the_same_to_the_bit(out: Path) -> None:
    for a, b in zip(lines(out / "same"), lines(out / "fsdp"), strict=True):
        assert {a[key] == b[key] for key in ("loss", "bits_per_byte", "grad_norm") if key in a} == {True}
    there = load_file(out / "fsdp/checkpoint/model.safetensors")
    for name, tensor in load_file(out / "same/checkpoint/model.safetensors").items():
        assert torch.equal(tensor, there[name]), name


def test_a_checkpoint_of_four_goes_on_on_two_and_one_and_two(out: Path, one: Path) -> None:
    assert_moved(out, STEPS)
    assert_same_run(out / "moved", one / "plain")


@pytest.mark.slow
def test_losses_stay_the_same_over_fifty_steps_on_four_layouts(toy: Any, tmp_path: Path) -> None:
    toy.train(tmp_path / "one", toy.recipe(**{**CHANGES, "tokens": LONG * 512}))
    assert_moved(spread(toy, tmp_path, LONG, "moved"), LONG)
    assert_same_run(tmp_path / "moved", tmp_path / "one")


def assert_moved(out: Path, steps: int) -> None:
    told = [path.read_text() for path in sorted(out.glob("moved.*.txt"))]
    assert len(told) == 4 and all("Stopped by SIGTERM" in text for text in told)
    resumed = [line["step"] for line in read_log(out / "moved/log.jsonl") if line["event"] == "resume"]
    assert resumed == [steps // 4, steps // 2, steps * 3 // 4] and lines(out / "moved")[-1]["step"] == steps


def test_ranks_without_an_image_were_met(toy: Any) -> None:
    """What the layouts above are compared on holds the case in which some processes see no image, and others do."""
    loaders = [Loader(toy.folder / "pack", 4, 3, rank=rank, world=2, balance=True) for rank in range(2)]
    seen = [[len(next(loader).tiles) for _ in range(STEPS)] for loader in loaders]
    for loader in loaders:
        loader.close()
    assert any((a == 0) != (b == 0) for a, b in zip(*seen, strict=True))


def test_checkpoints_are_whole_in_the_end_and_pickled_never(out: Path) -> None:
    pieces = sorted((out / "fsdp/checkpoints").iterdir())[-1]
    manifest = verify(pieces)
    files = {name for name in manifest["files"] if name.startswith("training/shard-")}
    assert len(files) == 2 and not (pieces / "model.safetensors").exists()
    held = []
    for name in files:
        with safe_open(pieces / name, "pt") as file:
            held.append(file.get_slice("decoder.embedding").get_shape())
    assert held == [[160, 32]] * 2
    kinds = {path.suffix for folder in ("checkpoint", "checkpoints") for path in (out / "fsdp" / folder).rglob("*.*")}
    assert kinds <= {".safetensors", ".json", ".yaml"}  # and spread.py unpickles none
    assert {path.name for path in (out / "fsdp/checkpoint").iterdir()} >= {"model.safetensors", "config.json"}


def test_a_checkpoint_without_one_of_its_pieces_is_passed_over(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out / "moved/checkpoints", tmp_path / "checkpoints")
    newest, before = sorted(folder.iterdir(), reverse=True)[:2]
    next(newest.glob("training/shard-*")).unlink()
    told: list[str] = []
    found = latest(folder, told.append)
    assert found is not None and found[0] == before and "lacks training/shard-" in told[0]


def test_a_checkpoint_that_cannot_be_written_ends_every_process(out: Path) -> None:
    told = [path.read_text() for path in sorted(out.glob("full.*.txt"))]
    assert len(told) == 2 and all(text.startswith("RunError: The disk is full") for text in told)
    assert not [path for path in (out / "full/checkpoints").iterdir() if path.name.startswith("step-")]


def test_recomputing_saves_memory_and_changes_no_gradient(out: Path) -> None:
    kept = torch.load(out / "none.grad", weights_only=True)
    for mode in ("selective", "full"):
        for name, gradient in torch.load(out / f"{mode}.grad", weights_only=True).items():
            assert torch.equal(gradient, kept[name]), (mode, name)
    none, selective, full = (int((out / f"{mode}.peak").read_text()) for mode in ("none", "selective", "full"))
    assert full < selective < none and full < 0.7 * none


def test_layouts_that_do_not_fit_are_refused_by_every_process(out: Path) -> None:
    for name, world, words in (
        ("world", 2, "replicate 1 × shard 4 × tensor 1 are 4 processes, but 2 are running"),
        ("heads", 3, "parallel.tensor is 3, which does not divide 2 heads and 2 kv_heads"),
    ):
        told = [path.read_text() for path in out.glob(f"{name}.*.txt")]
        assert len(told) == world and all(text.startswith("TrainingError") and words in text for text in told)


def test_what_tensor_parallelism_cannot_do_yet_is_said() -> None:
    model, place = Multimodal(ModelConfig(width=64, depth=1, head_dim=16)), Layout(tensor=2)
    block = ParallelConfig(tensor=2, sequence=True)
    with pytest.raises(TrainingError, match=r"train\.compile yet"):
        check_layout(model, block, place, 64, compiled=True)
    with pytest.raises(TrainingError, match="rows of 63 tokens over 2"):
        check_layout(model, block, place, 63, compiled=False)
    with pytest.raises(TrainingError, match="compile hides"):
        check_layout(model, ParallelConfig(checkpoint="selective"), Layout(), 64, compiled=True)
    add_adapters(model, LoraConfig(rank=2), 0)
    with pytest.raises(TrainingError, match="adapters"):
        check_layout(model, block, place, 64, compiled=False)
    with pytest.raises(ValidationError, match="set tensor above 1"):
        ParallelConfig(sequence=True)


def test_the_layout_counts_processes_out() -> None:
    assert layout(None, Group(3, 4)) == Layout(replicate=4, rank=3)
    assert layout(ParallelConfig(), Group(3, 4)) == Layout(shard=4, rank=3)
    place = layout(ParallelConfig(replicate=2, tensor=2), Group(5, 8))
    assert (place.shard, place.readers, place.reader, place.shard_rank, place.tensor_rank) == (2, 4, 2, 0, 1)


def test_a_recipe_without_the_block_is_what_it_was(toy: Any) -> None:
    recipe = toy.recipe()
    assert "parallel" not in recipe.model_dump() and "parallel" not in SFTConfig().model_dump()
    spread = Recipe.model_validate({**recipe.model_dump(), "parallel": {"shard": 2}})
    assert Recipe.model_validate(spread.model_dump(mode="json")) == spread
    assert scaled(spread, 64).parallel is None  # rungs of a ladder are trained by one process each


def test_rows_are_shared_so_that_tiles_are_balanced(toy: Any) -> None:
    rng = np.random.default_rng(0)
    for world in (2, 3, 4):
        tiles = rng.integers(0, 17, 24)
        parts = balanced(tiles, world)
        assert sorted(place for part in parts for place in part) == list(range(24)) and {
            len(part) for part in parts
        } == {24 // world}
        held = [tiles[part].sum() for part in parts]
        assert max(held) - min(held) <= 3
    assert balanced(np.zeros(4, np.int64), 2) == [[0, 1], [2, 3]]
    places = [next(Loader(toy.folder / "pack", 4, 3, rank=rank, world=2, balance=True)) for rank in range(2)]
    whole = next(Loader(toy.folder / "pack", 8, 3))
    found = np.concatenate([batch.tokens for batch in places])
    assert sorted(map(bytes, found)) == sorted(map(bytes, whole.tokens))
