"""Rates of graded replies: shares and means, their changes, and which way is better."""

from __future__ import annotations

import math

import pytest

from foretell.measure.rates import Measure, change_of, rate_of, ratio_of
from foretell.measure.stats import Interval, paired_difference, student, wilson

LOW = Measure("x", "X", ("a",), "x", "low")


def test_tasks_are_counted_by_their_beginning() -> None:
    assert LOW.counts("a") and LOW.counts("a.b") and not LOW.counts("ab") and not LOW.counts("b.a")
    assert Measure("y", "Y", (), "y", "high").counts("anything")


def test_shares_take_wilson_and_other_values_student() -> None:
    assert rate_of(LOW, [1, 0, 0, 0], list("pqrs")).value == wilson(1, 4)
    values = [0.1, 0.4, 0.3]
    assert rate_of(LOW, values, list("pqr")).value == student(values, list("pqr"))
    share = Measure("x", "X", (), "x", "low", share=True)
    assert rate_of(LOW, [0, 0, 0.5], list("pqr")).value.low < 0
    assert rate_of(share, [0, 0, 0.5], list("pqr")).value.low == 0
    assert rate_of(share, [0, 0, 0.5], list("pqr")).value.high == rate_of(LOW, [0, 0, 0.5], list("pqr")).value.high
    nothing = rate_of(LOW, [], [])
    assert nothing.n == 0 and math.isnan(nothing.value.estimate) and (nothing.value.low, nothing.value.high) == (0, 1)


def test_changes() -> None:
    before, after, keys = [1.0] * 20, [0.0] * 18 + [1.0] * 2, list(range(20))
    change = change_of(LOW, before, after, keys)
    assert change.difference == paired_difference(after, before, groups=keys)
    assert change.verdict == "better" and change.reduction is not None
    assert change.reduction.estimate == pytest.approx(0.9)
    assert change_of(Measure("x", "X", (), "x", "high"), before, after, keys).verdict == "worse"
    zero = change_of(Measure("x", "X", (), "x", "zero"), before, after, keys)
    assert zero.verdict == "open" and zero.ratio is None
    assert change_of(LOW, [0.5, 0.25], [0.5, 0.75], [1, 2]).ratio is None


def test_the_ratio_to_nothing_has_no_bounds() -> None:
    found = ratio_of(Interval(0.5, 0.2, 0.8), Interval(0.0, 0.0, 0.1))
    assert math.isnan(found.estimate) and (found.low, found.high) == (0, math.inf)
