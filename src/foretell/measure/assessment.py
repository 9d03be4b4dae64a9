"""All there is to say of a model's calibration: assessed, compared with another's on the same questions, and mended.

Logits and right choices are those of `calibration`; groups are of questions that are not independent (one a question;
by default each is its own), which are drawn whole by every bootstrap. Intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from foretell.measure.calibration import (
    BINS,
    FLOOR,
    Bin,
    Floats,
    Ints,
    brier_scores,
    chance_error,
    ece_change,
    ece_interval,
    fit_temperature,
    in_calibration_split,
    log_losses,
    reliability,
    softmax,
)
from foretell.measure.stats import Groups, Interval, bootstrap, paired_bootstrap, paired_difference, proportion

_RESAMPLES = 2000
_WORST_BRIER, _WORST_LOSS = 2.0, -log(FLOOR)  # of a question


@dataclass(frozen=True)
class Assessment:
    """How well probabilities are calibrated.

    questions, points: number of questions and of all their choices. accuracy: share whose likeliest choice is right.
    ece, mass_ece: all-choice error in bins of equal width and of equal mass. by_chance: the first that the same
    probabilities would show if they were perfectly calibrated, which is above 0 since questions are finite. top_ece: of
    the likeliest choices. brier, log_loss: means, see `calibration`. zeros, ones: choices with a probability of exactly
    0 and 1. floored: questions whose right choice counts as 2.2e-16 in the log-loss, since it had less. bins,
    mass_bins: those of the two errors that hold a point.
    """

    questions: int
    points: int
    accuracy: Interval
    ece: Interval
    mass_ece: Interval
    by_chance: float
    top_ece: Interval
    brier: Interval
    log_loss: Interval
    zeros: int
    ones: int
    floored: int
    bins: tuple[Bin, ...]
    mass_bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Change:
    """What the second of two assessments has more than the first, of the same questions; intervals are paired."""

    accuracy: Interval
    ece: Interval
    mass_ece: Interval
    top_ece: Interval
    brier: Interval
    log_loss: Interval


@dataclass(frozen=True)
class Repair:
    """A temperature fitted on `fitted` questions, and all others without and with it."""

    temperature: float
    fitted: int
    before: Assessment
    after: Assessment
    change: Change

    @property
    def ratio(self) -> float:
        """All-choice error after the repair over that before it."""
        return self.after.ece.estimate / self.before.ece.estimate if self.before.ece.estimate else float("nan")


def assess(
    logits: Sequence[Sequence[float]] | Floats,
    right: Sequence[int] | Ints,
    groups: Groups = None,
    seed: int = 0,
    bins: int = BINS,
    temperature: float = 1.0,
) -> Assessment:
    """Everything about the calibration of logits (log-probabilities), (N, K). Raises ValueError as `softmax` does."""
    p, y = softmax(logits, temperature), np.asarray(right)

    def error(top: bool = False, mass: bool = False) -> Interval:
        return ece_interval(p, y, np.random.default_rng(seed), groups, bins, top, mass)

    brier, losses = (
        _bounded(bootstrap(values, np.random.default_rng(seed), groups, resamples=_RESAMPLES), 0, most)
        for values, most in ((brier_scores(p, y), _WORST_BRIER), (log_losses(p, y), _WORST_LOSS))
    )
    return Assessment(
        questions=len(p),
        points=int((~np.isnan(p)).sum()),
        accuracy=proportion(_hits(p, y), groups),
        ece=error(),
        mass_ece=error(mass=True),
        by_chance=chance_error(p, np.random.default_rng(seed), bins),
        top_ece=error(top=True),
        brier=brier,
        log_loss=losses,
        zeros=int((p == 0).sum()),
        ones=int((p == 1).sum()),
        floored=int((p[np.arange(len(p)), y] < FLOOR).sum()),
        bins=reliability(p, y, bins),
        mass_bins=reliability(p, y, bins, mass=True),
    )


def change(
    before: Sequence[Sequence[float]] | Floats,
    after: Sequence[Sequence[float]] | Floats,
    right: Sequence[int] | Ints,
    groups: Groups = None,
    seed: int = 0,
    bins: int = BINS,
    temperatures: tuple[float, float] = (1.0, 1.0),
) -> Change:
    """The change from one model's logits to another's, both (N, K), of the same questions.

    Raises ValueError where they are not the same number, or as `softmax` does.
    """
    p, q, y = softmax(before, temperatures[0]), softmax(after, temperatures[1]), np.asarray(right)
    if p.shape != q.shape:
        raise ValueError(f"logits of shapes {p.shape} and {q.shape}; expected those of the same questions")

    def error(top: bool = False, mass: bool = False) -> Interval:
        return ece_change(p, q, y, np.random.default_rng(seed), groups, bins, top, mass)

    brier, losses = (
        _bounded(
            paired_bootstrap(of(q, y), of(p, y), np.random.default_rng(seed), groups, resamples=_RESAMPLES)[0],
            -most,
            most,
        )
        for of, most in ((brier_scores, _WORST_BRIER), (log_losses, _WORST_LOSS))
    )
    accuracy = paired_difference(_hits(q, y), _hits(p, y), groups=groups)
    return Change(accuracy, error(), error(mass=True), error(top=True), brier, losses)


def repair(
    logits: Sequence[Sequence[float]] | Floats,
    right: Sequence[int] | Ints,
    groups: Sequence[Hashable],
    seed: int = 0,
    bins: int = BINS,
) -> Repair:
    """Fit a temperature on about half of the groups, and assess the others without and with it.

    A temperature keeps the order of choices, so accuracy is the same.
    Raises ValueError where either part would be empty.
    """
    z, y, fitted = np.asarray(logits, np.float64), np.asarray(right), in_calibration_split(groups)
    if fitted.all() or not fitted.any():
        raise ValueError(f"{len(set(groups))} groups leave one side of the calibration split empty; expected more")
    temperature = fit_temperature(z[fitted], y[fitted])
    held = [group for group, used in zip(groups, fitted, strict=True) if not used]
    rest, told = z[~fitted], y[~fitted]
    before, after = (assess(rest, told, held, seed, bins, t) for t in (1.0, temperature))
    shift = change(rest, rest, told, held, seed, bins, (1.0, temperature))
    return Repair(temperature, int(fitted.sum()), before, after, shift)


def _hits(probabilities: Floats, right: Ints) -> Floats:
    """Whether the likeliest choice is the right one, 1 or 0, (N,)."""
    return np.asarray(np.nan_to_num(probabilities, nan=-1.0).argmax(axis=1) == right, np.float64)


def _bounded(found: Interval, low: float, high: float) -> Interval:
    """Where one group says nothing of others, the interval is all that can be."""
    return Interval(found.estimate, max(low, found.low), min(high, found.high))
