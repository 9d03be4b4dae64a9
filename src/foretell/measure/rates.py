"""Named rates of graded replies: what each counts, which way is better, and how it changed between two models."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Literal

import numpy as np

from foretell.measure.stats import (
    Interval,
    independent_ratio,
    is_binary,
    paired_difference,
    proportion,
    student,
)


@dataclass(frozen=True)
class Measure:
    """A rate: the share of records with a grade, among those whose task is `tasks` or begins with it and a dot.

    better: which way is; "zero" for a difference that should not be there. detail: whether it is a part of another one.
    share: whether grades are shares of something themselves, whose mean cannot leave 0 to 1.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    grade: str
    better: Literal["low", "high", "zero"]
    detail: bool = False
    share: bool = False

    def counts(self, task: str) -> bool:
        """Whether records of a task are among its own; without tasks all are."""
        return not self.tasks or any(task == own or task.startswith(f"{own}.") for own in self.tasks)


@dataclass(frozen=True)
class Rate:
    """A measure's value with its 95 % interval, n records of `keys` different keys. n 0: nothing was asked."""

    measure: Measure
    value: Interval
    n: int
    keys: int


@dataclass(frozen=True)
class Change:
    """A measure over the n prompts that both sides answered.

    difference: after − before, paired by prompt. ratio: after / before, where less is better (1 − ratio is the relative
    reduction); None where more is.
    """

    measure: Measure
    n: int
    before: Interval
    after: Interval
    difference: Interval
    ratio: Interval | None

    @property
    def reduction(self) -> Interval | None:
        """Relative reduction, 1 − ratio."""
        if self.ratio is None:
            return None
        return Interval(1 - self.ratio.estimate, 1 - self.ratio.high, 1 - self.ratio.low)

    @property
    def verdict(self) -> str:
        """better or worse where the difference's interval leaves out 0 and one way is better, else open."""
        if self.measure.better == "zero" or self.difference.low <= 0 <= self.difference.high:
            return "open"
        return "better" if (self.difference.low > 0) == (self.measure.better == "high") else "worse"


def rate_of(measure: Measure, values: Sequence[float], keys: Sequence[Hashable]) -> Rate:
    """The mean of grades. keys: one a grade; those of one key are not independent.

    0/1 grades take Wilson's interval for as many as their keys are worth (`stats.proportion`), others Student's.
    """
    return Rate(measure, _interval(values, keys, measure.share), len(values), len(set(keys)))


def change_of(measure: Measure, before: Sequence[float], after: Sequence[float], keys: Sequence[Hashable]) -> Change:
    """What became of a measure; before[i] and after[i] grade the same prompt, and keys are as of `rate_of`."""
    start, end = (_interval(side, keys, measure.share) for side in (before, after))
    difference = paired_difference(after, before, groups=keys)
    shares = is_binary(np.asarray([*before, *after], np.float64))
    ratio = ratio_of(end, start) if measure.better == "low" and shares else None
    return Change(measure, len(before), start, end, difference, ratio)


def ratio_of(a: Interval, b: Interval) -> Interval:
    """Interval of a / b from those of two proportions; not a number, and unbounded, where b is 0.

    It does not shrink to a point where a is 0, as a bootstrap does. That a and b share their prompts is not used: the
    interval is too wide, on the safe side, as far as they go together.
    """
    return independent_ratio(a, b) if b.estimate > 0 else Interval(nan, 0.0, inf)


def _interval(values: Sequence[float], keys: Sequence[Hashable], share: bool) -> Interval:
    if is_binary(np.asarray(values, np.float64)):
        return proportion(values, keys)
    found = student(values, keys)
    return Interval(found.estimate, max(found.low, 0.0), min(found.high, 1.0)) if share else found
