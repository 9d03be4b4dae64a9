"""Average precision is scikit-learn's, and its interval covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.measure.ranking import average_precision, resampled

rows = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40)


@given(rows)
def test_it_is_scikit_learns(made: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import average_precision_score

    true, scores = [one for one, _ in made], [score / 3 for _, score in made]
    found = average_precision(true, scores)
    if any(true):
        assert found == pytest.approx(average_precision_score(true, scores), rel=1e-12)
    else:
        assert math.isnan(found)


def test_known_rankings() -> None:
    assert average_precision([1, 1, 0, 0], [4, 3, 2, 1]) == 1
    assert average_precision([0, 0, 0, 1], [4, 3, 2, 1]) == 1 / 4
    assert average_precision([1, 0, 1, 0], [0, 0, 0, 0]) == 1 / 2  # who says the same of all is at chance
    with pytest.raises(ValueError, match="as many of either"):
        average_precision([1, 0], [1.0])


def test_the_interval_is_that_of_a_mean_where_the_figure_is_one() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    found = resampled(lambda taken: float(x[taken].mean()), range(200), np.random.default_rng(0))
    half = 1.96 * x.std() / math.sqrt(200)
    assert found.estimate == pytest.approx(x.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_groups_are_drawn_whole() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=40), 5)
    figure = lambda taken: float(x[taken].mean())  # noqa: E731
    alone = resampled(figure, range(200), np.random.default_rng(0))
    together = resampled(figure, [i // 5 for i in range(200)], np.random.default_rng(0))
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(5), rel=0.15)


def test_without_enough_to_draw_from_it_is_unbounded() -> None:
    one = resampled(lambda taken: float(taken.mean()), ["a", "a"], np.random.default_rng(0))
    assert one.estimate == 0.5 and one.low == -math.inf and one.high == math.inf
    rare = resampled(lambda taken: 1.0 if len(taken) == len(set(taken.tolist())) else math.nan, range(30),
                     np.random.default_rng(0))  # fmt: skip
    assert rare.estimate == 1 and rare.low == -math.inf
