"""Seed noise, errors of single rungs and the wandering exponent, against simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from foretell.forecast import noise as noises
from foretell.forecast.noise import LN10, Noise
from foretell.forecast.table import Rung


def repeated(sd: list[float], seeds: int, rng: np.random.Generator) -> tuple[Rung, ...]:
    return tuple(
        Rung(10.0 ** (12 + i), float((3 - 0.3 * i) * (1 + s * rng.standard_normal())), k)
        for i, s in enumerate(sd)
        for k in range(seeds)
    )


def test_equal_noise_is_pooled() -> None:
    """Of 39 degrees of freedom a rung, a line through the log variances is known to 9 % of sd at its ends."""
    rng = np.random.default_rng(1)
    draws = [noises.seed_noise(repeated([0.01] * 5, 40, rng)) for _ in range(60)]
    found = draws[0]
    assert found.dof == 5 * 39
    error = np.log([draw.sd / 0.01 for draw in draws])
    assert error.mean(0) == pytest.approx(np.zeros(5), abs=0.04)
    expected = np.sqrt(2 / 39 * (1 / 5 + np.arange(-2.0, 3) ** 2 / 10)) / 2
    assert error.std(0) == pytest.approx(expected, rel=0.4)
    assert found.loss == pytest.approx([3, 2.7, 2.4, 2.1, 1.8], rel=0.01)


def test_noise_that_falls_with_compute_is_followed_to_rungs_without_repeats() -> None:
    sd = [0.03, 0.017, 0.0095, 0.0053, 0.003]
    rungs = repeated(sd, 30, np.random.default_rng(2))
    only_low = tuple(rung for rung in rungs if rung.flops < 1e15 or rung.seed == 0)
    assert noises.seed_noise(rungs).sd == pytest.approx(sd, rel=0.2)
    assert noises.seed_noise(only_low).sd == pytest.approx(sd, rel=0.5)


def test_noise_far_above_the_repeats_is_put_high_rather_than_low() -> None:
    found = noises.seed_noise(
        (*repeated([0.02], 4, np.random.default_rng(3)), *(Rung(10.0**i, 2.0) for i in (13, 14, 15)))
    )
    assert found.sd[-1] > 0.1 * found.sd[0]


def test_without_repeats_nothing_is_known() -> None:
    found = noises.seed_noise(repeated([0.01] * 5, 1, np.random.default_rng(4)))
    assert found.dof == 0 and not found.sd.any()


def test_nearly_equal_computes_are_one_rung() -> None:
    found = noises.seed_noise((Rung(1e12, 2.0), Rung(1.001e12, 2.1, 1), Rung(2e12, 1.9)))
    assert found.seeds.tolist() == [2, 1]
    assert found.loss.tolist() == [2.05, 1.9]
    assert noises.seed_noise((Rung(1e12, 2.0), Rung(1.01e12, 1.99), Rung(2e12, 1.9))).seeds.tolist() == [1, 1, 1]


def test_walk_is_the_integral_of_a_random_walk() -> None:
    """Its covariance against simulated paths, and its variance against d³/3."""
    rng = np.random.default_rng(5)
    steps = 300
    slope = np.cumsum(rng.standard_normal((20000, steps)), axis=1) * np.sqrt(2 / steps)  # two decades
    path = np.cumsum(slope, axis=1) * (2 / steps) * LN10
    x = np.array([0.5, 1.0, 2.0]) * LN10
    seen = np.cov(path[:, [74, 149, 299]].T)
    expected = noises.walk(x)
    assert seen == pytest.approx(expected, rel=0.05)
    assert np.diag(expected) == pytest.approx(LN10**2 * np.array([0.5, 1, 2]) ** 3 / 3)


def ladder(wander: float, own: float, rng: np.random.Generator) -> Noise:
    x = np.linspace(-5, 0, 12) * LN10
    path = np.linalg.cholesky(noises.walk(x - x[0] + 1e-3)) @ rng.standard_normal(12)
    loss = 2 * np.exp(-0.1 * x + wander * 0.1 * path + own * rng.standard_normal(12))
    return Noise(1e18 * np.exp(x), loss, np.ones(12), np.full(12, 1e-5), 50.0)


def test_sizes_of_scatter_are_told_from_the_ladder() -> None:
    rng = np.random.default_rng(6)

    def typical(wander: float, own: float) -> tuple[float, float]:
        found = [noises.scatter(ladder(wander, own, rng), 0.0)[0] for _ in range(20)]
        return (
            float(np.median([np.exp(f.wander @ np.log(noises.WANDER)) for f in found])),
            float(np.median([f.own for f in found])),
        )

    straight, wandering, scattered = typical(0, 3e-4), typical(0.2, 3e-4), typical(0, 5e-3)
    assert straight[0] < 0.02 and wandering[0] > 0.1 and scattered[0] < wandering[0] / 2
    assert straight[1] == pytest.approx(3e-4, rel=0.5)
    assert scattered[1] == pytest.approx(5e-3, rel=0.3)


def test_growth_is_nothing_inside_the_ladder_and_cubic_beyond() -> None:
    found, _ = noises.scatter(ladder(0.05, 1e-3, np.random.default_rng(7)), 0.0)
    assert found.variance(-1.0) == 0
    assert found.variance(2 * LN10) == pytest.approx(8 * float(found.variance(LN10)))
    assert found.wander.sum() == pytest.approx(1)


@pytest.mark.parametrize("dof", [0.0, 50.0])
def test_a_rung_that_went_wrong_is_doubted_and_the_others_are_not(dof: float) -> None:
    sound = ladder(0, 1e-3, np.random.default_rng(8))
    loss = np.where(np.arange(12) == 4, 1.05, 1) * sound.loss
    found, means = noises.scatter(Noise(sound.flops, loss, sound.seeds, sound.sd, dof), 0.0)
    assert 0.05 / noises.FAR / 1.5 < np.sqrt(means.var[4]) < 0.05
    assert np.delete(means.var, 4) == pytest.approx(np.full(11, found.own**2), rel=0.5)
    assert found.own < 3e-3
    _, before = noises.scatter(Noise(sound.flops, sound.loss, sound.seeds, sound.sd, dof), 0.0)
    assert before.var.max() < 1.5 * before.var.min()
