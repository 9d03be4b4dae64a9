"""Calibration of multiple-choice answers: is what a model holds likely to that degree true? And its repair.

Here `right` are the indices of the right choices, (N,), and `probabilities` what the model gives each of K choices,
(N, K), rows summing to 1. As in figure 8 of the GPT-4 Technical Report (arXiv 2303.08774), every choice of every
question is a point, its probability beside whether it is the right one; with `top` only the likeliest choice is, as is
usual for classifiers. Bins are of equal width over [0, 1]: bin i of B holds i/B <= p < (i + 1)/B, the last one 1 too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foretell.measure.stats import Groups, Interval, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BINS = 10
HOTTEST = 100.0  # a temperature lies between this and its inverse
_AT_ONCE = 1 << 20  # draws of the bootstrap that are held


@dataclass(frozen=True)
class Bin:
    """Points with a probability in [low, high): how many, their mean probability, and the share that is right.

    accuracy: with Wilson's interval, as if points were independent; those of one question are not quite.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Assessment:
    """How well probabilities are calibrated.

    questions: number of them. accuracy: share whose likeliest choice is right. ece: all-choice error with its
    bootstrap interval. by_chance: the error that the same probabilities would show if they were perfectly calibrated,
    which is above 0 since questions are finite. top_ece: of the likeliest choices. brier, log_loss: see the functions.
    """

    questions: int
    accuracy: float
    ece: Interval
    by_chance: float
    top_ece: Interval
    brier: float
    log_loss: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Repair:
    """A temperature fitted on `fitted` questions, and all others without and with it."""

    temperature: float
    fitted: int
    before: Assessment
    after: Assessment

    @property
    def ratio(self) -> float:
        """All-choice error after the repair over that before it."""
        return self.after.ece.estimate / self.before.ece.estimate if self.before.ece.estimate else float("nan")


def softmax(logits: Sequence[Sequence[float]] | Floats, temperature: float = 1.0) -> Floats:
    """Probabilities of choices from their log-probabilities or logits, (N, K), each row shifted by any constant.

    Raises ValueError unless they are finite and the temperature is above 0.
    """
    return np.asarray(np.exp(_log_softmax(logits, temperature)))


def reliability(
    probabilities: Floats, right: Sequence[int] | Ints, bins: int = BINS, top: bool = False
) -> tuple[Bin, ...]:
    """The bins that hold a point, for a reliability diagram."""
    p, y, _ = _points(probabilities, right, top)
    place = _place(p, bins)
    found = []
    for i in range(bins):
        held = place == i
        if count := int(held.sum()):
            accuracy = wilson(int(y[held].sum()), count)
            found.append(Bin(i / bins, (i + 1) / bins, count, float(p[held].mean()), accuracy))
    return tuple(found)


def expected_calibration_error(
    probabilities: Floats, right: Sequence[int] | Ints, bins: int = BINS, top: bool = False
) -> float:
    """Mean over all points of |share right − mean probability| of their bin; from 0 to 1.

    Raises ValueError for no question, another shape than (N, K), or a right choice that is none.
    Source: Naeini et al. (2015), AAAI 29:2901, over all choices as in GPT-4's figure 8 (or the likeliest, `top`).
    """
    return float(_error(_tables(probabilities, right, bins, top, None).sum(axis=0)))


def ece_interval(
    probabilities: Floats,
    right: Sequence[int] | Ints,
    rng: np.random.Generator,
    groups: Groups = None,
    bins: int = BINS,
    top: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """`expected_calibration_error` with a bootstrap interval: questions, or whole groups of them, are drawn anew.

    The interval is the basic one, [2e − high, 2e − low] of the resampled errors and never below 0: few questions make
    the error too large, resampled ones are too large once more, and this takes that off instead of adding it. Close to
    perfect calibration it may still lie above the truth; see `chance_error`.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, section 5.2.
    """
    tables = _tables(probabilities, right, bins, top, groups)
    count, estimate = len(tables), float(_error(tables.sum(axis=0)))
    if count < 2:
        return Interval(estimate, 0.0, 1.0)
    flat = tables.reshape(count, -1)
    errors = []
    for start in range(0, resamples, rows := max(1, _AT_ONCE // count)):
        weights = rng.multinomial(count, np.full(count, 1 / count), min(rows, resamples - start))
        errors.append(_error((weights @ flat).reshape(-1, *tables.shape[1:])))
    low, high = np.quantile(np.concatenate(errors), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, max(0.0, 2 * estimate - float(high)), max(0.0, 2 * estimate - float(low)))


def chance_error(
    probabilities: Floats, rng: np.random.Generator, bins: int = BINS, top: bool = False, resamples: int = 200
) -> float:
    """The mean error of these probabilities if they were true: right choices are drawn from them.

    Source: consistency resampling of Bröcker and Smith (2007), Weather and Forecasting 22:651.
    """
    edges = probabilities.cumsum(axis=1)
    errors = []
    for _ in range(resamples):
        drawn = (rng.random((len(edges), 1)) * edges[:, -1:] >= edges).sum(axis=1)
        errors.append(expected_calibration_error(probabilities, drawn, bins, top))
    return float(np.mean(errors))


def brier_score(probabilities: Floats, right: Sequence[int] | Ints) -> float:
    """Mean over questions of the squared distance of their probabilities from the truth, over all choices: 0 to 2.

    Source: Brier (1950), Monthly Weather Review 78:1.
    """
    p, y, _ = _points(probabilities, right, False)
    return float(((p - y) ** 2).sum() / len(probabilities))


def log_loss(probabilities: Floats, right: Sequence[int] | Ints) -> float:
    """Mean of −log p of the right choices, in nats; infinite where one is held impossible."""
    _points(probabilities, right, False)
    with np.errstate(divide="ignore"):
        return float(-np.log(probabilities[np.arange(len(probabilities)), np.asarray(right)]).mean())


def fit_temperature(logits: Sequence[Sequence[float]] | Floats, right: Sequence[int] | Ints) -> float:
    """The temperature by which logits, (N, K), are divided to make the right choices likeliest.

    The log-loss is convex in the inverse temperature β, so its slope, the mean of E_β[logit] − logit of the right
    choice, has one root. Between 0.01 and 100: at an end where even that is not enough, as when all is right, or the
    right choice is no likelier than others. 1 where all logits of each question are equal.
    Raises ValueError as `expected_calibration_error` does.
    Source: Guo et al. (2017), arXiv 1706.04599, section 4.2.
    """
    from scipy.optimize import brentq

    z = _log_softmax(logits)
    _points(np.exp(z), right, False)
    z = z - z.max(axis=1, keepdims=True)
    told = z[np.arange(len(z)), np.asarray(right)]
    if not z.any():
        return 1.0

    def slope(log_beta: float) -> float:
        p = softmax(z, float(np.exp(-log_beta)))
        return float((np.einsum("nk,nk->n", p, z) - told).mean())

    low, high = -np.log(HOTTEST), np.log(HOTTEST)
    if slope(low) >= 0:
        return HOTTEST
    return 1 / HOTTEST if slope(high) <= 0 else float(np.exp(-brentq(slope, low, high, xtol=1e-12)))


def in_calibration_split(groups: Sequence[Hashable], share: float = 0.5) -> npt.NDArray[np.bool_]:
    """Which values a repair is fitted on: whole groups, about `share` of them, by the hash of what names them."""
    hashes = (hashlib.sha256(f"calibration/{group}".encode()).digest()[:8] for group in groups)
    return np.array([int.from_bytes(found, "big") < share * 2**64 for found in hashes], bool)


def assess(
    logits: Sequence[Sequence[float]] | Floats,
    right: Sequence[int] | Ints,
    groups: Groups = None,
    seed: int = 0,
    bins: int = BINS,
    temperature: float = 1.0,
) -> Assessment:
    """Everything about the calibration of logits (log-probabilities), (N, K). groups: as of `ece_interval`."""
    p = softmax(logits, temperature)
    all_choices, top = (
        ece_interval(p, right, np.random.default_rng(seed), groups, bins, only_top) for only_top in (False, True)
    )
    return Assessment(
        len(p),
        float((p.argmax(axis=1) == np.asarray(right)).mean()),
        all_choices,
        chance_error(p, np.random.default_rng(seed), bins),
        top,
        brier_score(p, right),
        log_loss(p, right),
        reliability(p, right, bins),
    )


def repair(
    logits: Sequence[Sequence[float]] | Floats,
    right: Sequence[int] | Ints,
    groups: Sequence[Hashable],
    seed: int = 0,
    bins: int = BINS,
    share: float = 0.5,
) -> Repair:
    """Fit a temperature on about `share` of the groups, and assess the others without and with it.

    A temperature keeps the order of choices, so accuracy is the same.
    Raises ValueError where either part would be empty.
    """
    z, y, fitted = np.asarray(logits, np.float64), np.asarray(right), in_calibration_split(groups, share)
    if fitted.all() or not fitted.any():
        raise ValueError(f"{len(set(groups))} groups leave one side of the calibration split empty; expected more")
    temperature = fit_temperature(z[fitted], y[fitted])
    held = [group for group, used in zip(groups, fitted, strict=True) if not used]
    before, after = (assess(z[~fitted], y[~fitted], held, seed, bins, t) for t in (1.0, temperature))
    return Repair(temperature, int(fitted.sum()), before, after)


def _log_softmax(logits: Sequence[Sequence[float]] | Floats, temperature: float = 1.0) -> Floats:
    z = np.asarray(logits, np.float64)
    if z.ndim != 2 or not np.isfinite(z).all() or not temperature > 0:
        raise ValueError(
            f"logits of shape {z.shape} at temperature {temperature}; expected finite ones, (N, K), and one above 0"
        )
    z = (z - z.max(axis=1, keepdims=True, initial=-np.inf)) / temperature
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def _points(probabilities: Floats, right: Sequence[int] | Ints, top: bool) -> tuple[Floats, Floats, int]:
    """Probability and truth (0 or 1) of each point, in the order of questions, and points a question."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(right)
    if p.ndim != 2 or not p.size or len(y) != len(p) or not ((y >= 0) & (y < p.shape[1])).all():
        raise ValueError(
            f"probabilities of shape {p.shape} and {len(y)} right choices; expected (N, K) and N from 0 to K − 1"
        )
    if not ((p >= 0) & (p <= 1 + 1e-9)).all() or not np.allclose(p.sum(axis=1), 1, atol=1e-6):
        raise ValueError("probabilities are not all within [0, 1] with rows that sum to 1; expected those of `softmax`")
    told = np.arange(p.shape[1]) == y[:, None]
    if top:
        likeliest = p.argmax(axis=1)[:, None]
        p, told = np.take_along_axis(p, likeliest, 1), np.take_along_axis(told, likeliest, 1)
    return p.ravel(), told.ravel().astype(np.float64), p.shape[1]


def _place(p: Floats, bins: int) -> Ints:
    return np.asarray(np.minimum((p * bins).astype(np.int64), bins - 1))


def _tables(probabilities: Floats, right: Sequence[int] | Ints, bins: int, top: bool, groups: Groups) -> Floats:
    """(groups, 3, bins): number of points, sum of their probabilities and of their truths; a question is a group where
    none are given."""
    p, y, each = _points(probabilities, right, top)
    names: Sequence[Hashable] = range(len(right)) if groups is None else groups
    if len(names) != len(right):
        raise ValueError(f"{len(names)} groups for {len(right)} questions; expected one a question")
    codes: dict[Hashable, int] = {}
    of = np.repeat([codes.setdefault(name, len(codes)) for name in names], each)
    cell, size = of * bins + _place(p, bins), len(codes) * bins
    sums = [np.bincount(cell, weights, size).reshape(-1, bins) for weights in (None, p, y)]
    return np.stack(sums, axis=1).astype(np.float64)


def _error(tables: Floats) -> Floats:
    """The error of (…, 3, bins) sums."""
    count, probability, truth = np.moveaxis(tables, -2, 0)
    return np.asarray(np.abs(truth - probability).sum(axis=-1) / count.sum(axis=-1))
