"""A run with a forecast: ladder, record, training under the watch, outcome; and what a late or altered record does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import ForecastError
from foretell.forecast import ledger
from foretell.forecast.register import read
from foretell.pipeline import forecasting
from foretell.recipe import Recipe
from foretell.run import Stage, run_stages, silent
from foretell.train import loop
from toy import Toy
from toy import toy as toy

WIDTHS = [16, 32, 48, 64, 80]


def recipe(toy: Toy, **forecast: Any) -> Recipe:
    raw = toy.recipe(tokens=60 * 512, log_every=1).model_dump(mode="json")
    raw["model"] |= {"width": 96, "vision": raw["model"]["vision"] | {"width": 48}}
    return Recipe.model_validate(
        raw | {"tokenizer": {"vocab_size": 320}, "forecast": {"widths": WIDTHS, "seeds": [1], **forecast}}
    )


def go(toy: Toy, run_dir: Path, recipe: Recipe, began: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """The stages of the pipeline from the pack on, the toy's folders standing for the ones before."""

    def copy(*names: str) -> Any:
        def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
            for name in names:
                to = out if names == ("tokenizer",) else out / {"pack": "train"}.get(name, name)
                shutil.copytree(toy.folder / name, to, dirs_exist_ok=True)
            return {}

        return build

    def train(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        observe = forecasting.observer(recipe, out)
        assert observe is not None
        if began is not None:
            began.append(recipe.name)
        return toy.train(out, recipe, observe=observe)

    stages = [
        Stage("tokenizer", {}, copy("tokenizer")),
        Stage("pack", {}, copy("pack", "heldout")),
        forecasting.ladder_stage(recipe, {}, silent, workers=1),
        forecasting.forecast_stage(recipe),
        Stage("pretrain", {"seed": recipe.seed}, train, ("pack", "tokenizer"), scratch="checkpoints"),
        forecasting.outcome_stage(recipe),
    ]
    return run_stages(run_dir, stages, recipe_text="name: toy\n", name="toy", seed=recipe.seed)


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "peak_rate", lambda *_: 1e11)


@pytest.fixture(scope="module")
def finished(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "peak_rate", lambda *_: 1e11)
        run_dir = tmp_path_factory.mktemp("run") / "run"
        go(toy, run_dir, recipe(toy))
    return run_dir


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def metrics(run_dir: Path, stage: str) -> dict[str, Any]:
    return dict(json.loads((run_dir / stage / "manifest.json").read_text())["metrics"])


def test_record_is_older_than_the_run_and_has_its_outcome(toy: Toy, finished: Path) -> None:
    record = read(finished / "forecasts" / "toy-001.json")
    assert record.utc < forecasting.first_step(finished / "pretrain" / "log.jsonl")
    assert record.raw["curve"] is not None and len(record.table().rungs) == len(WIDTHS)
    outcome, trained = metrics(finished, "outcome"), metrics(finished, "pretrain")
    assert outcome["loss"] == pytest.approx(trained["bits_per_byte"], rel=1e-9)
    assert [o.measured for o in record.outcomes] == [outcome["loss"]]
    assert outcome["error"] == pytest.approx(outcome["value"] / outcome["loss"] - 1)
    assert record.target == pytest.approx(trained["flops"], rel=0.03)
    assert "outcome" in (finished / "outcome" / "index.html").read_text()


def test_a_second_run_does_nothing(toy: Toy, run_dir: Path) -> None:
    began: list[str] = []
    before = (run_dir / "forecasts" / ledger.LEDGER).read_bytes()
    go(toy, run_dir, recipe(toy), began)
    assert not began and (run_dir / "forecasts" / ledger.LEDGER).read_bytes() == before


def test_a_record_made_later_is_kept_but_not_used(toy: Toy, run_dir: Path) -> None:
    """Other settings of the forecast, once the run is trained: it is still held against the older record."""
    began: list[str] = []
    done = go(toy, run_dir, recipe(toy, level=0.8), began)
    assert not began
    assert done["forecast"]["metrics"]["record"] == "toy-002.json"
    assert done["outcome"]["metrics"]["record"] == "toy-001.json" and done["outcome"]["metrics"]["level"] == 0.9
    assert len(read(run_dir / "forecasts" / "toy-001.json").outcomes) == 1


def test_a_run_that_began_before_its_only_record_is_refused(toy: Toy, run_dir: Path) -> None:
    shutil.rmtree(run_dir / "forecasts")
    for stage in ("forecast", "outcome"):
        shutil.rmtree(run_dir / stage)
    with pytest.raises(ForecastError, match="not before the run's first step"):
        go(toy, run_dir, recipe(toy))


def test_a_record_that_was_altered_stops_the_run(toy: Toy, run_dir: Path) -> None:
    path = run_dir / "forecasts" / "toy-001.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"level":0.9', '"level":0.8'))
    shutil.rmtree(run_dir / "pretrain")
    with pytest.raises(ForecastError, match="altered"):
        go(toy, run_dir, recipe(toy))


def test_a_change_of_what_decides_the_loss_needs_a_new_record(toy: Toy, run_dir: Path) -> None:
    changed = recipe(toy).model_copy(update={"seed": 11})
    done = go(toy, run_dir, changed)
    assert done["outcome"]["metrics"]["record"] == "toy-002.json"
    assert read(run_dir / "forecasts" / "toy-001.json").outcomes and done["pretrain"]["seed"] == 11
