"""Intervals against scipy, published tables and exact enumeration."""

from __future__ import annotations

from itertools import product
from math import comb, nan

import numpy as np
import pytest
from scipy import stats

from foretell.measure.stats import mean_stderr, paired_difference, wilson


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("passed", "total"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (81, 263), (900, 1000)])
def test_wilson_is_that_of_scipy(passed: int, total: int, confidence: float) -> None:
    mine = wilson(passed, total, confidence)
    theirs = stats.binomtest(passed, total).proportion_ci(confidence, "wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert mine.estimate == passed / total and 0 <= mine.low <= mine.estimate <= mine.high <= 1


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_table_of_newcombe_1998(passed: int, total: int, low: float, high: float) -> None:
    interval = wilson(passed, total)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_edges() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def grades(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    cells = ((1, 1, both), (1, 0, only_a), (0, 1, only_b), (0, 0, neither))
    return [a for a, _, n in cells for _ in range(n)], [b for _, b, n in cells for _ in range(n)]


def test_paired_difference_gives_the_approval_ratings_of_agresti() -> None:
    """Categorical Data Analysis, table 10.1: 880 of 1600 against 944 of 1600, −0.04 with (−0.06, −0.02)."""
    interval = paired_difference(*grades(794, 86, 150, 570))
    assert interval.estimate == pytest.approx(-0.04)
    assert (round(interval.low, 2), round(interval.high, 2)) == (-0.06, -0.02)


@pytest.mark.parametrize("cells", [(0.4, 0.1, 0.1, 0.4), (0.6, 0.3, 0.05, 0.05), (0.5, 0.02, 0.02, 0.46)])
def test_paired_difference_keeps_its_coverage_with_15_questions(cells: tuple[float, ...]) -> None:
    n, covered = 15, 0.0
    difference = cells[1] - cells[2]
    for only_a, only_b in product(range(n + 1), repeat=2):
        if only_a + only_b <= n:
            rest = n - only_a - only_b
            ways = comb(n, only_a) * comb(n - only_a, only_b)
            chance = ways * cells[1] ** only_a * cells[2] ** only_b * (cells[0] + cells[3]) ** rest
            interval = paired_difference(*grades(rest, only_a, only_b, 0))
            covered += chance * (interval.low <= difference <= interval.high)
    assert covered >= 0.945


def test_paired_difference_of_equal_and_of_opposite_grades() -> None:
    equal = paired_difference([1, 0, 1, 1], [1, 0, 1, 1])
    assert equal.estimate == 0 and equal.low < 0 < equal.high
    assert paired_difference([1] * 30, [0] * 30).low > 0.8 and paired_difference([1] * 30, [0] * 30).high <= 1
    assert paired_difference([1, 1], [0, 0]).low < 0  # two questions prove nothing
    assert (paired_difference([], []).low, paired_difference([], []).high) == (-1, 1)
    with pytest.raises(ValueError, match="shapes"):
        paired_difference([1], [1, 0])


def test_paired_difference_of_other_grades_is_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200), rng.random(200)
    interval = paired_difference(a, b)
    low, high = stats.norm.interval(0.95, (a - b).mean(), stats.sem(a - b))
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_mean_stderr() -> None:
    x = np.random.default_rng(1).normal(size=60)
    assert mean_stderr(x) == pytest.approx((x.mean(), stats.sem(x)))
    assert mean_stderr([2.0]) == pytest.approx((2.0, nan), nan_ok=True)
