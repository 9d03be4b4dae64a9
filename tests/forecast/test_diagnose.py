"""What speaks against a forecast: local exponents, bends, amplified noise, and what would mend it."""

from __future__ import annotations

import numpy as np
import pytest

from foretell.forecast import diagnose, law
from foretell.forecast import noise as noises
from foretell.forecast.law import Floats, Means
from foretell.forecast.noise import LN10, Noise


def rungs(x: Floats, loss: Floats, sd: float = 1e-3, seeds: int = 1) -> tuple[Noise, Means]:
    n = len(x)
    noise = Noise(1e16 * np.exp(x), loss, np.full(n, float(seeds)), np.full(n, sd), 20.0)
    return noise, Means(x, loss, noise.sd**2 / noise.seeds, 20.0)


def decades(span: float, count: int) -> Floats:
    return np.linspace(-span, 0, count) * LN10


@pytest.mark.parametrize(
    ("span", "floor", "expected"), [(1, None, 36), (4, None, 5), (4, 1.5, 1)], ids=["1 decade", "4", "4, floor known"]
)
def test_noise_is_amplified_as_the_design_says(span: float, floor: float | None, expected: float) -> None:
    """Four decades beyond the ladder: about 36 from one decade, 5 from four, 1 where the floor is known."""
    x = decades(span, 10)
    _, means = rungs(x, 1.5 + np.exp(-0.12 * x))
    found = diagnose.amplification(means, law.best(means, floor), floor, 4)
    assert found == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize("floor", [None, 1.5])
def test_amplification_is_what_refitting_noisy_ladders_shows(floor: float | None) -> None:
    x, sd = decades(4, 10), 3e-4
    rng = np.random.default_rng(1)
    true = 1.5 + np.exp(-0.12 * x)
    _, means = rungs(x, true, sd)
    ahead = law.resampled(means, rng, 3000, floor).loss(2 * LN10)[:, 0]
    found = diagnose.amplification(means, law.best(means, floor), floor, 2)
    dof_factor = np.sqrt((20 + 10) / (20 + 10 - (3 if floor is None else 2)))  # the resampled scale is estimated
    assert ahead.std() / ahead.mean() / sd == pytest.approx(found, rel=0.2 * dof_factor)


def test_a_noisy_rung_pulls_less() -> None:
    x = decades(2, 8)
    _, even = rungs(x, 1.5 + np.exp(-0.12 * x))
    uneven = Means(even.x, even.loss, np.geomspace(100, 1, 8) * 1e-6, 20.0)
    for means in (even, uneven):
        design = noises.jacobian(law.best(means), x, None) / np.sqrt(means.var)[:, None]
        ahead = noises.jacobian(law.best(means), np.array([2 * LN10]), None)[0]
        pull = ahead @ np.linalg.inv(design.T @ design) @ (design.T / np.sqrt(means.var))
        assert diagnose.amplification(means, law.best(means), None, 2) == pytest.approx(np.linalg.norm(pull), rel=1e-3)


def test_local_exponents_of_a_power_law() -> None:
    x = decades(3, 7)
    noise, means = rungs(x, 3 * np.exp(-0.1 * x), 2e-3, 4)
    found = diagnose.local_exponents(noise, means)
    assert [each.exponent for each in found] == pytest.approx([0.1] * 6)
    assert found[0].stderr == pytest.approx(2e-3 / 2 * np.sqrt(2) / (LN10 / 2))
    assert (found[0].low_flops, found[-1].high_flops) == pytest.approx((1e13, 1e16))


def strength(x: Floats, loss: Floats, sd: float) -> diagnose.Bend:
    noise, means = rungs(x, loss, sd)
    found = diagnose.find_bend(noise, means, law.best(means), None)
    assert found is not None
    return found


@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_straight_ladders_are_rarely_called_bent(floor: float) -> None:
    x, rng = decades(4, 9), np.random.default_rng(2)
    true = floor + np.exp(-0.1 * x)
    p = np.array([strength(x, true * (1 + 2e-3 * rng.standard_normal(9)), 2e-3).p for _ in range(120)])
    assert (p < 0.05).mean() <= 0.1  # binomial(120, 0.05) exceeds 12 once in a hundred times
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.17)


@pytest.mark.parametrize("turn", [0.08, -0.06])
def test_a_bend_is_found_where_it_is(turn: float) -> None:
    x, rng = decades(4, 10), np.random.default_rng(3)
    true = np.exp(-0.1 * x - turn * law.bend(x, np.array([-2 * LN10]))[0])
    found = strength(x, true * (1 + 5e-4 * rng.standard_normal(10)), 5e-4)
    assert found.p < 0.01
    assert found.turn == pytest.approx(turn, rel=0.1)
    assert np.log10(found.flops) == pytest.approx(14, abs=0.2)


@pytest.mark.parametrize("turn", [0.08, -0.09])
def test_a_bend_above_a_floor_is_told_with_its_direction(turn: float) -> None:
    """The change of the exponent of the loss is less there than that of the loss above the floor."""
    x, rng = decades(4, 10), np.random.default_rng(3)
    true = 0.8 + np.exp(-0.1 * x - turn * law.bend(x, np.array([-2 * LN10]))[0])
    found = strength(x, true * (1 + 5e-4 * rng.standard_normal(10)), 5e-4)
    assert found.p < 0.01
    assert 0.2 < found.turn / turn < 1
    assert np.log10(found.flops) == pytest.approx(14, abs=0.5)


def test_too_short_a_ladder_tells_nothing_of_bends() -> None:
    x = decades(2, 5)
    noise, means = rungs(x, 1 + np.exp(-0.1 * x))
    assert diagnose.find_bend(noise, means, law.best(means), None) is None


def test_advice_after_a_bend_leaves_enough_rungs_above_it() -> None:
    noise, _ = rungs(decades(3, 7), 3 * np.exp(-0.1 * decades(3, 7)))
    told = diagnose.past_the_bend(noise, diagnose.Bend(3e14, 0.05, 0.001))
    above = [*(c for c in noise.flops if c > 3e14), *(c for c, _ in told.add)]
    assert len(above) == 6 and told.cost == pytest.approx(sum(c for c, _ in told.add))
    assert told.add[0][0] == pytest.approx(1e16 * 10**0.5) and "3e+14" in told.reason
    early = diagnose.past_the_bend(noise, diagnose.Bend(2e13, 0.05, 0.001), least=5)
    assert not early.add and "fit those alone" in early.reason


def test_advice_names_the_cheapest_rungs_that_suffice() -> None:
    x = decades(2, 6)
    noise, means = rungs(x, 1.5 + np.exp(-0.12 * x), 3e-3)
    point = law.best(means)
    spread = noises.Scatter(1e-4, np.eye(9)[0], 0.05)
    told = diagnose.advise(noise, spread, point, None, 1e18, 0.08, 0.03)
    assert told.add and told.cost == pytest.approx(sum(c * seeds for c, seeds in told.add))
    assert told.cost < 0.5e18 * 4 and "±8 %" in told.reason and "±3 %" in told.reason
    looser = diagnose.advise(noise, spread, point, None, 1e18, 0.08, 0.06)
    assert 0 < looser.cost < told.cost
    hopeless = diagnose.advise(noise, spread, point, None, 1e18, 0.08, 1e-5)
    assert not hopeless.add and "no ladder below half" in hopeless.reason
