"""The rungs below a run: what is held fixed along a ladder, and what follows by rule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from foretell.errors import ForecastError, RecipeError
from foretell.forecast import rungs
from foretell.forecast.rungs import DataShape, flops, lay, measured, params, scaled, target_digest
from foretell.model.describe import training_flops
from foretell.recipe import ForecastConfig, Recipe
from foretell.recipes import check_recipe


def recipe(**change: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "text",
        "data": {"sources": [{"kind": "python"}], "sequence_length": 128},
        "tokenizer": {"vocab_size": 1024},
        "model": {"width": 256, "depth": 4, "head_dim": 16, "max_length": 128},
        "train": {"tokens": 30_000_000, "batch_tokens": 8192, "optimizer": {"lr": 4e-3}},
        "forecast": {"largest": 0.02},
    }
    for key, value in change.items():
        raw[key] = raw.get(key, {}) | value if isinstance(value, dict) else value
    return check_recipe(raw, "a test")


def test_tokens_stay_in_proportion_to_parameters_and_the_rest_is_kept() -> None:
    target = recipe()
    for width in (16, 48, 128):
        rung = scaled(target, width)
        assert rung.train.tokens / params(rung) == pytest.approx(target.train.tokens / params(target), rel=0.01)
        assert rung.model.ffn_width / width == pytest.approx(target.model.ffn_width / 256, rel=0.05)
        same = {"width": 0, "ffn": 0}
        assert rung.model.model_copy(update=same) == target.model.model_copy(update=same)
        assert rung.data == target.data and rung.tokenizer == target.tokenizer
        rows = rung.train.batch_tokens / 128
        assert rows == round(64 * (params(rung) / params(target)) ** 0.5)
        assert rung.train.optimizer.lr == pytest.approx(4e-3 * math.sqrt(rows / 64))
        assert rung.train.tokens % rung.train.batch_tokens == 0


def test_rate_and_batch_follow_their_exponents() -> None:
    target = recipe(forecast={"batch_exponent": 0.0, "horizon_exponent": 0.25})
    rung = scaled(target, 64)
    assert rung.train.batch_tokens == 8192
    assert rung.train.optimizer.lr == pytest.approx(4e-3 * (params(rung) / params(target)) ** -0.25)


def test_a_ladder_in_depth_keeps_the_width() -> None:
    plans = lay(recipe(model={"width": 64, "depth": 16}, forecast={"depths": [1, 2, 3, 4, 6], "seeds": [1]}))
    assert [plan.recipe.model.depth for plan in plans] == [1, 2, 3, 4, 6]
    assert {plan.recipe.model.width for plan in plans} == {64}


def test_heads_keep_their_size_and_share() -> None:
    target = recipe(model={"q_heads": 32})  # twice the width
    found = [scaled(target, width).model for width in (16, 24, 32)]
    assert [model.heads for model in found] == [2, 3, 4] and {model.head_dim for model in found} == {16}
    between = [scaled(recipe(), width).model for width in (16, 20, 32, 40)]
    assert [(model.q_heads, model.heads) for model in between] == [(None, 1), (2, 2), (None, 2), (3, 3)]


def test_shared_key_heads_keep_their_share() -> None:
    target = recipe(model={"kv_heads": 4})
    assert [scaled(target, width).model.n_kv_heads for width in (16, 64, 128)] == [1, 1, 2]


def test_the_image_tower_follows_in_whole_heads() -> None:
    tower = {"width": 96, "head_dim": 32, "depth": 2}
    target = recipe(model={"width": 128, "vision": tower})
    for width, expected in ((16, 32), (48, 32), (64, 64), (112, 96)):
        found = scaled(target, width).model.vision
        assert found is not None and found.width == expected and found.depth == 2


def test_automatic_rungs_reach_as_far_as_allowed() -> None:
    target = recipe()
    plans = lay(target)
    widths = sorted({plan.recipe.model.width for plan in plans})
    assert widths == [16, 32, 48, 64, 80]
    assert flops(scaled(target, 80)) <= 0.02 * flops(target) < flops(scaled(target, 96))
    assert [plan.seed for plan in plans] == [0, 1, 2, 0, 1, 0, 0, 0]
    assert plans[0].recipe.seed == target.seed  # the target's own order of data
    assert len({plan.recipe.seed for plan in plans[:3]}) == 3 and len({plan.name for plan in plans}) == 8


def test_many_widths_are_thinned_over_the_whole_span() -> None:
    wide = recipe(model={"width": 1024}, forecast={"largest": 0.2, "seeds": [1]})
    plans = lay(wide)
    assert rungs.LEAST < len(plans) <= rungs.MOST and plans[0].recipe.model.width == 16
    assert flops(scaled(wide, plans[-1].recipe.model.width + 16)) > 0.2 * flops(wide)
    gaps = [math.log(b.flops / a.flops) for a, b in itertools.pairwise(plans[3:])]
    assert max(gaps) < 3 * min(gaps)


def test_flops_are_those_that_training_counts() -> None:
    target, data = recipe(model={"vision": {}, "width": 128}), DataShape(40.0, 0.01, 0.7)
    steps = 30_000_000 // 8192
    model = target.model.model_copy(update={"vocab_size": 1024})
    batch = training_flops(model, 8192, 8192 * 0.01, 40.0, 8192 * 0.7)
    assert flops(target, data) == pytest.approx(steps * batch)


@pytest.mark.parametrize(
    ("forecast", "message"),
    [
        ({"widths": [16, 32, 48, 64]}, "4 of the 4 rungs lie below"),
        ({"widths": [16, 32, 48, 64, 80, 256]}, "5 of the 6"),
        ({"largest": 1e-4}, "needs 5 or more"),
    ],
)
def test_too_few_rungs_are_refused(forecast: dict[str, Any], message: str) -> None:
    with pytest.raises(ForecastError, match=message):
        lay(recipe(forecast=forecast))


def test_widths_and_depths_together_are_refused() -> None:
    with pytest.raises(RecipeError, match="scales one of them"):
        recipe(forecast={"widths": [16], "depths": [2]})


def test_the_digest_is_of_what_decides_the_loss() -> None:
    base = target_digest(recipe())
    assert base == target_digest(recipe(examine={"questions": 3}, forecast={"level": 0.8}, train={"keep": 5}))
    for change in ({"train": {"tokens": 31_000_000}}, {"seed": 1}, {"model": {"width": 128}}):
        assert target_digest(recipe(**change)) != base


KINDS = {
    "prose": {"loss": 2.0, "bits_per_byte": 1.0, "tokens": 300},
    "code": {"loss": 1.0, "bits_per_byte": 0.8, "tokens": 100},
}


def test_measured_loss_of_chosen_kinds() -> None:
    """Bits per byte of several kinds: their nats over their bytes, not a mean of ratios."""
    nats = {"prose": 600.0, "code": 100.0}
    sizes = {"prose": 600 / math.log(2), "code": 100 / 0.8 / math.log(2)}
    metrics = {"by_kind": KINDS}
    assert measured(metrics, ForecastConfig(unit="nats per token")) == pytest.approx(700 / 400)
    assert measured(metrics, ForecastConfig()) == pytest.approx(700 / math.log(2) / sum(sizes.values()))
    one = ForecastConfig(kinds=("code",))
    assert measured(metrics, one) == pytest.approx(nats["code"] / math.log(2) / sizes["code"]) == pytest.approx(0.8)
    with pytest.raises(ForecastError, match="no kind 'poetry'; they have code, prose"):
        measured(metrics, ForecastConfig(kinds=("poetry",)))
