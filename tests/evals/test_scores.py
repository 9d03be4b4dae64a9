"""A run's mean and error bar: which method gives it, what counts as invalid, and how epochs become one value."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from foretell.errors import EvalError
from foretell.evals.scores import Scores, group_labels
from foretell.measure.stats import mean_stderr, proportion, student, wilson

KEYS = ("run-1", "model-1", "test-match", "accuracy")


def scores(values: list[float | None], groups: dict[str, str] | None = None) -> Scores:
    return Scores(*KEYS, {f"s.{i}": v for i, v in enumerate(values)}, groups or {})


def test_grades_take_wilson() -> None:
    summary = scores([1, 0, 1, 1, None, 0]).summary()
    assert summary.interval == wilson(3, 5) and summary.estimate == 0.6
    assert summary.stderr == pytest.approx(stats.sem([1, 0, 1, 1, 0]))
    assert (summary.n, summary.groups, summary.invalid, summary.method) == (5, 5, 1, "wilson")


def test_grades_of_groups_take_wilson_of_what_they_are_worth() -> None:
    values: list[float | None] = [1, 1, 0, 0, 1, 1, None, 1]
    groups = {f"s.{i}": "abc"[i // 3] for i in range(7)}  # the last sample stands alone
    summary = scores(values, groups).summary(0.9)
    labels = ["a", "a", "a", "b", "b", "b", "alone"]
    x = [1.0, 1, 0, 0, 1, 1, 1]
    assert summary.interval == proportion(x, labels, 0.9) and summary.stderr == mean_stderr(x, labels)[1]
    assert (summary.n, summary.groups, summary.invalid, summary.method) == (7, 3, 1, "clustered wilson")


def test_other_values_take_the_bootstrap_and_of_groups_or_many_student() -> None:
    x = np.random.default_rng(0).beta(2, 1, 40)
    alone = scores(x.tolist()).summary()
    theirs = stats.bootstrap((np.sort(x),), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    assert alone.method == "bootstrap"
    assert (alone.interval.low, alone.interval.high) == pytest.approx(tuple(theirs.confidence_interval))
    groups = {f"s.{i}": str(i // 4) for i in range(40)}
    together = scores(x.tolist(), groups).summary()
    assert together.method == "clustered student"
    assert together.interval == student(x, [i // 4 for i in range(40)])
    many = scores((np.arange(3000) / 3000).tolist()).summary()
    assert many.method == "student" and many.interval == student(np.arange(3000) / 3000)


def test_groups_of_one_are_no_groups() -> None:
    one_each = {f"s.{i}": str(i) for i in range(6)}
    assert scores([1, 0, 1, 1, 0, 0], one_each).summary() == scores([1, 0, 1, 1, 0, 0]).summary()
    assert group_labels(["a", "b"], {"a": "b"}) is None  # a group may be named as a sample is


def test_invalid_samples_are_counted_or_filled() -> None:
    mixed = scores([1, None, nan, 0])
    assert mixed.summary().invalid == 2 and mixed.valid == {"s.0": 1, "s.3": 0}
    filled = mixed.filled()
    assert filled.summary().estimate == 0.25 and filled.summary().invalid == 0
    nothing = scores([None, None]).summary()
    assert isnan(nothing.estimate) and isnan(nothing.stderr)
    assert (nothing.interval.low, nothing.interval.high, nothing.invalid) == (0, 1, 2)


values = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0, 0.25, 0.7])), min_size=1, max_size=20)


@settings(max_examples=40)
@given(values, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_log_does_not_show(drawn: list[float | None], random: object, grouped: bool) -> None:
    groups = {f"s.{i}": str(i % 3) for i in range(len(drawn))} if grouped else {}
    first = scores(drawn, groups)
    items = list(first.values.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    a, b = first.summary(), Scores(*KEYS, dict(items), groups).summary()
    flat = [(s.estimate, s.stderr, s.interval.low, s.interval.high, s.n, s.groups, s.invalid) for s in (a, b)]
    assert flat[0] == pytest.approx(flat[1], nan_ok=True) and a.method == b.method


def reduced(reducer: str, *draws: list[float | None]) -> tuple[list[float | None], int]:
    found = Scores.reduced(*KEYS, {f"s.{i}": d for i, d in enumerate(draws)}, reducer)
    return list(found.values.values()), found.invalid_draws


def test_epochs_reduce_by_mean_max_and_mode() -> None:
    draws = ([1, 0, 0], [0, 1, None], [None, None, None], [0.5, 0.5, 1])
    assert reduced("mean", *draws) == ([pytest.approx(1 / 3), 0.5, None, pytest.approx(2 / 3)], 1)
    assert reduced("max", *draws) == ([1, 1, None, 1], 1)
    assert reduced("mode", *draws) == ([0, 0, None, 0.5], 1)
    assert reduced("mode", [1, 0, 0, 1]) == ([1], 0)  # a tie goes to the value drawn first
    summary = Scores.reduced(*KEYS, {"a": [1, None], "b": [None, None]}).summary()
    assert (summary.n, summary.invalid, summary.invalid_draws) == (1, 1, 1)


def test_epochs_reduce_by_pass_at_k() -> None:
    draws = ([1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, None, None], [0, None, None, None])
    assert reduced("pass@2", *draws) == ([pytest.approx(0.5), 0, 1, 1, None], 2)
    assert reduced("pass@1", *draws)[0] == pytest.approx([0.25, 0, 0.75, 0.5, 0])


def test_pass_at_k_is_unbiased() -> None:
    """The mean over all outcomes of four draws, with their chances, is 1 − (1 − p)²; that of the best of two is not."""
    p, draws = 0.3, [[float(i >> b & 1) for b in range(4)] for i in range(16)]
    chance = [p ** sum(d) * (1 - p) ** (4 - sum(d)) for d in draws]
    assert np.dot(chance, reduced("pass@2", *draws)[0]) == pytest.approx(1 - (1 - p) ** 2)
    assert np.dot(chance, reduced("max", *draws)[0]) != pytest.approx(1 - (1 - p) ** 2)


@pytest.mark.parametrize(
    ("reducer", "draws", "says"),
    [
        ("median", [1.0], "'median'. Choose mean, mode, max or pass@K"),
        ("pass@0", [1.0], "'pass@0' is no reducer"),
        ("pass@x", [1.0], "'pass@x' is no reducer"),
        ("pass@3", [1.0, 0.0], "'s.0' was drawn 2 times, and pass@3 takes 3"),
        ("pass@1", [0.5], "'s.0' has 0.5"),
    ],
)
def test_reducers_that_cannot_be(reducer: str, draws: list[float | None], says: str) -> None:
    with pytest.raises(EvalError, match=says.replace(".", r"\.")):
        reduced(reducer, draws)
