"""Whether critiques help judges: agreement with what is known to be true, with and without them.

Which judgements are assisted is drawn by item within each judge, so judges are compared with themselves. What is told
holds for these judges; prompts are the sample.
Source of the question: Saunders et al. (2022), Self-critiquing models for assisting human evaluators, arXiv 2206.05802.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp, inf, log, nan, sqrt
from statistics import median

import numpy as np

from foretell.measure.stats import Interval, independent_difference, proportion


@dataclass(frozen=True)
class Verdict:
    """A judgement of a battle in which one reply is right and the other wrong. agrees: whether it names the right one;
    a tie does not."""

    judge: str
    group: Hashable
    assisted: bool
    agrees: bool
    seconds: float | None = None


@dataclass(frozen=True)
class Arm:
    """agreement: share of verdicts that name the right reply. seconds: the median; None where no time is known."""

    agreement: Interval
    n: int
    seconds: float | None


@dataclass(frozen=True)
class Effect:
    """difference: assisted less alone, within judges, by prompts as clusters; p of none. time: the factor by which
    assistance lengthens a judgement (geometric mean), None where times are not known or too few."""

    alone: Arm
    assisted: Arm
    difference: Interval
    p: float
    time: Interval | None


def effect_of(verdicts: Sequence[Verdict]) -> Effect:
    """Agreement in both arms, and what lies between them."""
    alone, helped = ([v for v in verdicts if v.assisted == arm] for arm in (False, True))
    difference, p = within_judges(
        [float(v.agrees) for v in verdicts], [v.assisted for v in verdicts], [v.judge for v in verdicts],
        [v.group for v in verdicts],
    )  # fmt: skip
    arms = arm_of(alone), arm_of(helped)
    if difference.low == difference.high:  # where all verdicts of an arm are alike, their spread says nothing
        difference = independent_difference(arms[1].agreement, arms[0].agreement)
    timed = [v for v in verdicts if v.seconds]
    time, _ = within_judges(
        [log(v.seconds or 1.0) for v in timed], [v.assisted for v in timed], [v.judge for v in timed],
        [v.group for v in timed],
    )  # fmt: skip
    factor = None if not np.isfinite([time.estimate, time.low, time.high]).all() else Interval(
        exp(time.estimate), exp(time.low), exp(time.high)
    )  # fmt: skip
    return Effect(*arms, difference, p, factor)


def within_judges(
    values: Sequence[float], treated: Sequence[bool], judges: Sequence[Hashable], groups: Sequence[Hashable]
) -> tuple[Interval, float]:
    """Mean difference between treated and not, with an effect of each judge taken out, 95 %, and its two-sided p.

    Least squares with a constant for each judge; the error is cluster-robust by group with the factor G / (G − 1), and
    t of G − 1 degrees of freedom. With one judge and groups of one it is the difference of means, with Welch's error
    but for that factor. Unbounded, with p 1, where no judge has both arms or fewer than two groups were seen.
    Source: Cameron and Miller (2015), Journal of Human Resources 50:317, sections II.B and III.A.
    """
    from scipy.special import stdtr, stdtrit

    y, t = np.asarray(values, np.float64), np.asarray(treated, np.float64)
    for judge in set(judges):
        own = np.array([one == judge for one in judges])
        y[own] -= y[own].mean()
        t[own] -= t[own].mean()
    power = float(t @ t)
    codes: dict[Hashable, int] = {}
    index = [codes.setdefault(group, len(codes)) for group in groups]
    if power < 1e-12 or len(codes) < 2:
        return Interval(nan, -inf, inf), 1.0
    estimate = float(t @ y) / power
    sums = np.bincount(index, t * (y - estimate * t))
    degrees = len(codes) - 1
    error = sqrt(len(codes) / degrees * float(sums @ sums)) / power
    half = float(stdtrit(degrees, 0.975)) * error
    p = 1.0 if not estimate else float(2 * stdtr(degrees, -abs(estimate) / error)) if error else 2.0**-degrees
    return Interval(estimate, estimate - half, estimate + half), p


def arm_of(verdicts: Sequence[Verdict]) -> Arm:
    """Agreement over all of these verdicts, prompts as clusters, and the median time."""
    told = [v.seconds for v in verdicts if v.seconds is not None]
    agreement = proportion([float(v.agrees) for v in verdicts], [v.group for v in verdicts])
    return Arm(agreement, len(verdicts), median(told) if told else None)
