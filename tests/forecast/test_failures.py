from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from foretell.forecast.failures import daly, with_failures, young


def test_young_is_the_optimum_of_first_order() -> None:
    save, mtbf = 10.0, 1e6
    waste = minimize_scalar(lambda t: save / t + t / (2 * mtbf), bounds=(1, 1e6), method="bounded").x
    assert young(save, mtbf) == pytest.approx(waste, rel=1e-4) == math.sqrt(2e7)


@pytest.mark.parametrize(("save", "mtbf"), [(1.0, 1e4), (30.0, 3600.0), (300.0, 3600.0)])
def test_daly_is_where_the_expected_time_is_least(save: float, mtbf: float) -> None:
    best = minimize_scalar(
        lambda t: with_failures(1e6, t, save, 60.0, mtbf), bounds=(1, 1e5), method="bounded", options={"xatol": 1e-3}
    )
    assert daly(save, mtbf) == pytest.approx(best.x, rel=0.02)
    assert abs(daly(save, mtbf) - best.x) < abs(young(save, mtbf) - best.x)


def test_saving_that_takes_longer_than_a_failure_lets_wait() -> None:
    assert daly(100.0, 10.0) == 10.0


def test_without_failures_only_saving_is_added() -> None:
    assert with_failures(1000.0, 100.0, 5.0, 60.0, math.inf) == 1050.0
    assert with_failures(1000.0, 100.0, 5.0, 60.0, 1e12) == pytest.approx(1050.0)
    assert with_failures(1000.0, 1e6, 5.0, 60.0, 1.0) == math.inf


def test_the_formula_is_what_a_simulation_gives() -> None:
    """A segment of work and its checkpoint, begun again at each failure, a restart that can fail too."""
    rng, mtbf, interval, save, restart = np.random.default_rng(0), 1000.0, 400.0, 50.0, 80.0
    total = 0.0
    for _ in range(4000):
        while (fails := rng.exponential(mtbf)) < interval + save:
            total += fails
            while (again := rng.exponential(mtbf)) < restart:
                total += again
            total += restart
        total += interval + save
    assert total == pytest.approx(with_failures(4000 * interval, interval, save, restart, mtbf), rel=0.02)


def test_llama_3_would_have_trained_nine_tenths_of_its_time() -> None:
    """419 failures in 54 days; a checkpoint of 4.9 TB by 2,048 nodes at 2 GB/s; the report says more than 90 %."""
    mtbf, save = 54 * 86400 / 419, 12 * 405e9 / (2048 * 2e9)
    wall = with_failures(54 * 86400, daly(save, mtbf), save, 600.0, mtbf)
    assert 54 * 86400 / wall > 0.9
