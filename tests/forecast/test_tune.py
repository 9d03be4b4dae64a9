"""Tuning on surfaces whose lowest point, and how it moves with compute, are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from foretell.errors import ForecastError
from foretell.forecast.rungs import RungPlan, flops, scaled
from foretell.forecast.tune import Trend, Tuning, lowest, tune, tune_page
from foretell.recipe import Recipe
from foretell.recipes import load_recipe, recipe_yaml

WIDTHS = (96, 160, 288)


@pytest.fixture(scope="module")
def target() -> Recipe:
    return load_recipe(
        "quickstart", ["model.width=768", "model.vision=null", "train.tokens=4e8", "train.batch_tokens=65536"]
    )


class Surface:
    """Loss over the settings, bowls in their logarithms. The lowest point is `at` times the rule's at the target, and
    goes with compute to the power `drift` beside the rule. depth: of each bowl; noise: standard deviation."""

    def __init__(
        self,
        target: Recipe,
        at: Mapping[str, float] = {},
        drift: Mapping[str, float] = {},
        depth: Mapping[str, float] = {},
        noise: float = 1e-4,
        diverges_above: float = math.inf,
    ) -> None:
        self.target, self.at, self.drift, self.depth = target, at, drift, depth
        self.noise, self.above, self.random = noise, diverges_above, np.random.default_rng(5)
        self.runs: list[RungPlan] = []

    def best(self, setting: str, flops_: float) -> float:
        """Octaves from the rule."""
        share = flops_ / flops(self.target)
        return math.log2(self.at.get(setting, 1.0)) + self.drift.get(setting, 0.0) * math.log2(share)

    def __call__(self, runs: Sequence[RungPlan]) -> dict[str, float]:
        self.runs += runs
        return {run.name: self._loss(run) for run in runs}

    def _loss(self, run: RungPlan) -> float:
        rule, train = scaled(self.target, run.recipe.model.width), run.recipe.train
        cost = flops(rule)
        octaves = {
            "batch": math.log2(train.batch_tokens / rule.train.batch_tokens),
            "tau": math.log2(train.optimizer.tau / rule.train.optimizer.tau),
        }
        octaves["lr"] = math.log2(train.optimizer.lr / rule.train.optimizer.lr) - octaves["batch"] / 2
        if octaves["lr"] > self.above:
            return math.nan
        bowls = sum(self.depth.get(name, 0.01) * (at - self.best(name, cost)) ** 2 for name, at in octaves.items())
        return 40 * cost**-0.1 + 1.5 + bowls + self.noise * float(self.random.standard_normal())


def by_name(tuning: Tuning) -> dict[str, Trend]:
    return {trend.setting: trend for trend in tuning.trends}


def test_a_drifting_optimum_is_carried_to_the_target(target: Recipe) -> None:
    surface = Surface(target, at={"lr": 0.6, "batch": 2.0, "tau": 1.5}, drift={"lr": -0.15, "batch": 0.12, "tau": -0.1})
    found = tune(target, surface, widths=WIDTHS)
    train, optimizer = found.recipe.train, found.recipe.train.optimizer
    assert train.batch_tokens == pytest.approx(2.0 * 65536, rel=0.25)
    assert optimizer.lr / math.sqrt(train.batch_tokens / 65536) == pytest.approx(0.6 * 4e-3, rel=0.25)
    assert optimizer.tau == pytest.approx(1.5 * 0.2, rel=0.25)
    # Compute goes with tokens to the power of nearly two, and exponents are over tokens.
    power = math.log(flops(target) / flops(scaled(target, 96))) / math.log(4e8 / scaled(target, 96).train.tokens)
    assert found.recipe.forecast is not None and 1.7 < power < 2.1
    assert found.recipe.forecast.batch_exponent == pytest.approx(0.5 + 0.12 * power, abs=0.04)
    assert found.recipe.forecast.horizon_exponent == pytest.approx(0.15 * power, abs=0.04)
    assert found.runs == len({run.name for run in surface.runs}) == len(surface.runs)
    assert found.flops == pytest.approx(sum(run.flops for run in surface.runs))


def test_the_tuned_rule_gives_each_rung_its_own_best(target: Recipe) -> None:
    """The rungs of the tuned recipe land where the surface is lowest, not only the target."""
    surface = Surface(target, at={"lr": 0.6, "batch": 2.0}, drift={"lr": -0.15, "batch": 0.12}, noise=1e-5)
    tuned = tune(target, surface, widths=WIDTHS).recipe
    for width in (96, 288, 512):
        rung, rule = scaled(tuned, width).train, scaled(target, width)
        cost = flops(rule)
        batch = math.log2(rung.batch_tokens / rule.train.batch_tokens)
        assert batch == pytest.approx(surface.best("batch", cost), abs=0.3)
        rate = math.log2(rung.optimizer.lr / rule.train.optimizer.lr) - batch / 2
        assert rate == pytest.approx(surface.best("lr", cost), abs=0.3)


def test_what_does_not_move_keeps_the_rule_and_what_is_flat_is_kept(target: Recipe) -> None:
    surface = Surface(target, at={"lr": 2.0, "tau": 3.0}, depth={"batch": 0.0, "tau": 1e-5}, noise=1e-3)
    found = tune(target, surface, widths=WIDTHS)
    trends = by_name(found)
    assert trends["lr"].slope == 0 and "no more than its error" in trends["lr"].said
    assert trends["lr"].value == pytest.approx(8e-3, rel=0.15)
    assert "flat on 3 of 3 rungs: kept" in trends["tau"].said and found.recipe.train.optimizer.tau == 0.2
    assert found.recipe.train.batch_tokens == 65536
    assert found.recipe.forecast is not None and found.recipe.forecast.batch_exponent == 0.5


def test_a_far_optimum_is_walked_to_and_divergence_is_a_wall(target: Recipe) -> None:
    far = tune(target, Surface(target, at={"lr": 1 / 20}), widths=WIDTHS[:2])
    assert by_name(far)["lr"].value == pytest.approx(4e-3 / 20, rel=0.2)
    walled = tune(target, Surface(target, at={"lr": 0.7}, diverges_above=0.5), widths=WIDTHS[:2])
    assert by_name(walled)["lr"].value == pytest.approx(0.7 * 4e-3, rel=0.25)


def test_one_bowl_that_tells_gives_a_level_and_no_movement(target: Recipe) -> None:
    class Half(Surface):
        def _loss(self, run: RungPlan) -> float:
            self.depth = {"lr": 0.01 if run.recipe.model.width == WIDTHS[0] else 0.0, "batch": 0.0, "tau": 0.0}
            return super()._loss(run)

    trend = by_name(tune(target, Half(target, at={"lr": 2.0}), widths=WIDTHS))["lr"]
    assert trend.slope == 0 and trend.value == pytest.approx(8e-3, rel=0.15)
    assert trend.said == "flat on 2 of 3 rungs: its level is taken"


def test_seeds_are_averaged(target: Recipe) -> None:
    surface = Surface(target, noise=0)
    assert {run.seed for run in (tune(target, surface, widths=WIDTHS[:2], seeds=3), surface.runs)[1]} == {0, 1, 2}


def test_without_widths_rungs_between_a_ten_thousandth_and_a_three_hundredth_are_taken(target: Recipe) -> None:
    surface = Surface(target)
    tune(target, surface)
    shares = sorted({flops(scaled(target, run.recipe.model.width)) / flops(target) for run in surface.runs})
    assert len(shares) == 3 and shares[0] >= 1e-4 and shares[-1] <= 1 / 300


@pytest.mark.parametrize("widths", [(), (128,), (96, 128)])
def test_too_few_rungs_below_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ForecastError, match=r"The search needs two rungs or more below .* --widths"):
        tune(load_recipe("quickstart"), lambda runs: {}, widths=widths)


def test_decay_that_is_off_stays_off() -> None:
    recipe = load_recipe(
        "quickstart", ["model.width=768", "train.optimizer.tau=0", "train.tokens=4e8", "model.vision=null"]
    )
    found = tune(recipe, lambda runs: dict.fromkeys((run.name for run in runs), 2.0), widths=(96, 160))
    assert found.recipe.train.optimizer.tau == 0 and [trend.setting for trend in found.trends] == ["lr", "batch"]


def test_the_lowest_point_has_an_honest_error() -> None:
    """On bowls that are steeper on one side, as a learning rate's are, the truth lies within two stated errors."""
    random, hits, told = np.random.default_rng(0), 0, 0
    x = np.arange(-2, 3)
    for _ in range(400):
        at, tilt = random.uniform(-0.8, 0.8), random.uniform(-0.2, 0.2)
        losses = 2 + 0.02 * (x - at) ** 2 * (1 + tilt * (x - at)) + 0.002 * random.standard_normal(5)
        best, error = lowest(x, losses, float(np.std(0.002 * random.standard_normal(3), ddof=1)))
        told += best is not None
        hits += best is not None and error is not None and abs(best - at) <= 2 * error
    assert told > 0.9 * 400 and hits >= 0.9 * told


def test_noise_without_a_bowl_is_called_flat() -> None:
    random, x = np.random.default_rng(1), np.arange(-2, 3)
    told = 0
    for _ in range(400):
        noise = 0.01 * random.standard_normal(8)
        told += lowest(x, 2 + noise[:5], float(np.std(noise[5:], ddof=1)))[0] is not None
    assert told < 0.1 * 400


def test_ends_and_too_few_points() -> None:
    falling = [3.0, 2.9, 2.8, 2.7, 2.6]
    assert lowest(range(5), falling, 0.01) == (4.0, 1.0)
    assert lowest(range(5), falling, 1.0) == (None, None)
    assert lowest([0, 1, 2], [1.0, 0.5, 1.0], 0.0) == (None, None)
    assert lowest([0, 1, 2, 3], [1.0, 0.5, 1.0, math.inf], 0.0) == (None, None)
    shuffled = lowest([2, 0, 1, -1, -2], [2.04, 2.0, 2.01, 2.01, 2.04], 1e-3)
    assert shuffled == pytest.approx((0.0, 0.1), abs=0.02)


def test_the_page_shows_every_bowl(target: Recipe) -> None:
    html = tune_page(tune(target, Surface(target, at={"lr": 2.0}), widths=WIDTHS), "bits per byte")
    assert all(f"width {width}" in html for width in WIDTHS)
    assert "Learning rate" in html and "Weight-decay time-scale" in html


def test_command(
    target: Recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import typer

    from foretell import pipeline
    from foretell.cli import app, ladder
    from foretell.forecast import tune as room

    (tmp_path / "target.yaml").write_text(recipe_yaml(target))
    given = load_recipe(tmp_path / "target.yaml")
    surface = Surface(given, at={"lr": 2.0})
    monkeypatch.setattr(pipeline, "run_recipe", lambda *_: {})
    monkeypatch.setattr(ladder, "_packed", lambda recipe, folder: (recipe, None))
    monkeypatch.setattr(room, "trained", lambda *_: surface)
    out, run = tmp_path / "tuned.yaml", tmp_path / "run"
    line = ["forecast", "tune", str(tmp_path / "target.yaml"), "--out", str(out), "--run", str(run)]
    widths = [word for width in WIDTHS for word in ("--width", str(width))]
    typer.main.get_command(app.app).main([*line, *widths], standalone_mode=False)
    said = capsys.readouterr().out
    assert "Learning rate: 0.004 → 0.00" in said and "lowest, octaves from the rule" in said
    assert load_recipe(out).train.optimizer.lr == pytest.approx(8e-3, rel=0.15)
    assert (run / "tune" / "index.html").is_file()
