"""The forms against closed forms, scipy and brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import gammaln

from foretell.forecast import law
from foretell.forecast.law import Floats, Laws, Means

X = np.linspace(-8, 0, 9)


def points(loss: Floats, var: float | Floats = 1.0, dof: float = 0.0) -> Means:
    return Means(X[-len(loss) :], loss, np.broadcast_to(var, loss.shape).astype(float), dof)


def true(x: Floats, a: float = 1.0, b: float = 0.2, c: float = 1.5) -> Floats:
    return np.asarray(a * np.exp(-b * x) + c)


@pytest.mark.parametrize(("b", "c"), [(0.02, 0.0), (0.1, 1.5), (0.5, 0.3), (1.2, 4.0)])
def test_noiseless_law_is_recovered(b: float, c: float) -> None:
    for floor in (None, c):
        found = law.best(points(true(X, 0.7, b, c)), floor)
        assert (found.a, found.b, found.c) == pytest.approx((0.7, b, c), rel=1e-6, abs=1e-6)


def test_least_squares_is_that_of_scipy() -> None:
    """Residuals of one size leave Huber nothing to do, so the two must agree."""
    loss = true(X) * (1 + 1e-3 * np.array([1, -1, -1, 1, 1, -1, -1, 1, 1]))
    found = law.best(points(loss))
    theirs, _ = curve_fit(true, X, loss, p0=(1, 0.2, 1.5), sigma=loss, xtol=1e-15, ftol=1e-15)
    assert (found.weights == 1).all()
    assert (found.a, found.b, found.c) == pytest.approx(tuple(theirs), rel=1e-5)


def test_weights_are_those_of_the_noise() -> None:
    sd = np.geomspace(0.02, 0.001, 9)
    loss = true(X) * (1 + sd * np.array([1, -1, -1, 1, 1, -1, -1, 1, 1]))
    found = law.best(points(loss, sd**2))
    theirs, _ = curve_fit(true, X, loss, p0=(1, 0.2, 1.5), sigma=sd * loss, xtol=1e-15, ftol=1e-15)
    assert (found.a, found.b, found.c) == pytest.approx(tuple(theirs), rel=1e-5)


def test_a_floor_is_never_negative() -> None:
    """A loss that falls ever faster asks for one; the power law without floor is what is left."""
    loss = np.exp(-0.2 * X - 0.01 * (X + 8) ** 2)
    found = law.best(points(loss))
    theirs, _ = curve_fit(lambda x, a, b: a * np.exp(-b * x), X, loss, p0=(0.6, 0.2), sigma=loss)
    assert found.c == 0
    assert (found.weights == 1).all()
    assert (found.a, found.b) == pytest.approx(tuple(theirs), rel=1e-5)


def test_one_bad_rung_does_not_move_the_law() -> None:
    loss = true(X) * (1 + 1e-3 * np.array([1, -1, 0.5, -0.5, 1, -1, 0.5, -1, 1]))
    loss[4] *= 1.1
    robust = law.best(points(loss)).loss(4.0)
    plain, _ = curve_fit(true, X, loss, p0=(1, 0.2, 1.5), sigma=loss)
    assert abs(robust / true(4.0) - 1) < 0.01 < abs(true(4.0, *plain) / true(4.0) - 1)


def brute(means: Means, floors: Floats) -> tuple[float, float, float]:
    """Log evidence, mean and sd of the loss at x = 3, by summing over a grid of (a, b, c) with a common scale."""
    low, high = np.log(law.EXPONENTS)
    grid = np.linspace(low, high, 350)
    rest = means.loss - floors[:, None]
    cell_c = 1.0 if len(floors) == 1 else (floors[1] - floors[0]) / means.loss.min()
    nu = means.dof + len(means)
    log, value = [], []
    a = np.linspace(0.3, 2.5, 300)
    for b in np.exp(grid):
        g = np.exp(-b * means.x)
        square = ((rest[:, None, :] - a[:, None] * g) ** 2 / means.loss**2 / means.var).sum(-1)
        log.append(gammaln(nu / 2) - nu / 2 * np.log(means.known + square))
        value.append(a * np.exp(-b * 3) + floors[:, None])
    weight = np.array(log)
    top = weight.max()
    weight = np.exp(weight - top)
    cell = cell_c * (grid[1] - grid[0]) / (high - low) * (a[1] - a[0]) / means.loss[-1]
    mean = float((weight * value).sum() / weight.sum())
    sd = float(np.sqrt((weight * (np.array(value) - mean) ** 2).sum() / weight.sum()))
    return float(np.log(weight.sum() * cell) + top), mean, sd


@pytest.mark.parametrize("dof", [0.0, 12.0])
def test_evidence_and_spread_are_those_of_brute_force(dof: float) -> None:
    rng = np.random.default_rng(3)
    loss = true(X, 1.0, 0.2, 0.6) * (1 + 0.01 * rng.standard_normal(9))
    means = points(loss, 1e-4, dof)
    floors = np.linspace(0, loss.min(), 81)[:-1] + loss.min() / 160
    for (laws, evidence), expected in (
        (law.powers(means), brute(means, np.zeros(1))),
        (law.floored(means), brute(means, floors)),
    ):
        values, weight = laws.loss(3.0)[:, 0], laws.weight
        assert weight.sum() == pytest.approx(1)
        mean = weight @ values
        sd = np.sqrt(weight @ ((values - mean) ** 2 + (laws.spread * laws.excess(3.0)[:, 0]) ** 2))
        assert evidence == pytest.approx(expected[0], abs=0.1)
        assert mean == pytest.approx(expected[1], rel=2e-3)
        assert sd == pytest.approx(expected[2], rel=0.1)


def test_a_bent_ladder_is_found_and_followed() -> None:
    bent = np.exp(-0.1 * X - 0.15 * law.bend(X, np.array([-4.0]))[0])
    rng = np.random.default_rng(5)
    means = points(bent * (1 + 1e-3 * rng.standard_normal(9)))
    laws, evidence = law.broken(means)
    assert evidence > law.floored(means)[1] + 5 and evidence > law.powers(means)[1] + 5
    ahead = float(laws.weight @ laws.loss(2.0)[:, 0])
    assert ahead == pytest.approx(float(np.exp(-0.25 * 2 - 0.15 * 4)), rel=0.02)


def test_a_bend_above_a_floor_is_followed_with_an_error_as_large_as_said() -> None:
    x = np.linspace(-8, 0, 12)
    bent = 0.6 + 0.4 * np.exp(-0.15 * x - 0.15 * law.bend(x, np.array([-3.5]))[0])
    true = 0.6 + 0.4 * float(np.exp(-0.3 * 3 - 0.15 * 3.5))
    rng = np.random.default_rng(7)
    means = Means(x, bent * (1 + 1e-3 * rng.standard_normal(12)), np.full(12, 1e-6), 30.0)
    laws, evidence = law.broken(means)
    values = laws.loss(3.0)[:, 0]
    mean = float(laws.weight @ values)
    sd = float(np.sqrt(laws.weight @ (values - mean) ** 2))
    assert evidence > law.floored(means)[1] + 10
    assert abs(mean - true) < 3 * sd < 0.06 * true


def test_a_free_floor_is_every_given_one_in_turn() -> None:
    rng = np.random.default_rng(8)
    loss = 0.5 + 0.5 * np.exp(-0.15 * X - 0.1 * law.bend(X, np.array([-3.5]))[0])
    means = points(loss * (1 + 5e-3 * rng.standard_normal(9)), 25e-6, 20.0)
    floors = (np.arange(80) + 0.5) / 80 * 0.95 * float(means.loss.min())
    given = [law.broken(means, float(c))[1] for c in floors]
    assert law.broken(means)[1] == pytest.approx(np.logaddexp.reduce(given) + np.log(0.95 / 80), abs=0.1)


@pytest.mark.parametrize("form", [law.floored, law.broken])
def test_the_scale_of_the_noise_is_nothing_to_the_choice_of_a_form(form: Callable[[Means], tuple[Laws, float]]) -> None:
    """Where seeds do not tell it: only the residuals do."""
    rng = np.random.default_rng(5)
    loss = np.exp(-0.1 * X) * (1 + 1e-2 * rng.standard_normal(9))
    odds = [form(points(loss, var))[1] - law.powers(points(loss, var))[1] for var in (1e-8, 1e-6, 1e-4)]
    assert odds == pytest.approx([odds[0]] * 3, abs=1e-6)


def test_spread_is_what_the_noise_leaves_of_a() -> None:
    """Nine rungs of almost one compute tell the loss there by a third of the noise."""
    x = np.linspace(-0.01, 0, 9)
    loss = 2.0 * (1 + 1e-2 * np.array([1, -1, 1, -1, 0, 1, -1, 1, -1]))
    laws, _ = law.powers(Means(x, loss, np.full(9, 1e-4), 1e6), 0.0)
    assert np.sqrt(laws.weight @ laws.spread**2) == pytest.approx(1e-2 / 3, rel=0.05)


def test_a_straight_ladder_gives_bends_little_weight() -> None:
    rng = np.random.default_rng(6)
    means = points(np.exp(-0.1 * X) * (1 + 1e-3 * rng.standard_normal(9)))
    assert law.broken(means)[1] < law.powers(means)[1]


@pytest.mark.parametrize("floor", [None, 1.5])
def test_bootstrap_spreads_as_error_propagation_says(floor: float | None) -> None:
    sd = np.geomspace(4e-4, 1e-4, 9)
    means = points(true(X), sd**2, 1e6)
    laws = law.resampled(means, np.random.default_rng(0), 4000, floor)
    loss = laws.loss(2.0)[:, 0]
    design = np.stack([np.exp(-0.2 * X), -X * np.exp(-0.2 * X)] + ([np.ones(9)] if floor is None else []), 1)
    design /= (sd * true(X))[:, None]
    ahead = np.array([np.exp(-0.4), -2 * np.exp(-0.4), 1])[: design.shape[1]]
    expected = np.sqrt(ahead @ np.linalg.inv(design.T @ design) @ ahead)
    assert loss.mean() == pytest.approx(true(2.0), abs=3 * expected / 60)
    assert loss.std() == pytest.approx(expected, rel=0.06)
