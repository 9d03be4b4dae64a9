"""Calibration of multiple-choice answers: is what a model holds likely to that degree true?

Here `right` are the indices of the right choices, (N,), and `probabilities` what the model gives each of K choices,
(N, K), rows summing to 1; where a question has fewer choices, nan stands behind its last one. As in figure 8 of the
GPT-4 Technical Report (arXiv 2303.08774), every choice of every question is a point, its probability beside whether it
is the right one; with `top` only the likeliest choice is, as is usual for classifiers.

Bins are of equal width over [0, 1], bin i of B holding i/B <= p < (i + 1)/B and the last one 1 too, as in torchmetrics;
or with `mass` of equal numbers of points, as scikit-learn's strategy "quantile" parts them: by the quantiles of all
points, those at an edge below it. Choices of exactly 0 and 1 are points like others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foretell.measure.stats import Groups, Interval, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BINS = 10
HOTTEST = 100.0  # a temperature lies between this and its inverse
FLOOR = float(np.finfo(np.float64).eps)  # what a probability counts as in log-loss where it is less
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


def padded(rows: Sequence[Sequence[float]]) -> Floats:
    """Rows of different lengths as an array (N, K), nan behind the last number of each."""
    widest = max(map(len, rows), default=0)
    return np.array([[*row, *[np.nan] * (widest - len(row))] for row in rows], np.float64).reshape(len(rows), widest)


def softmax(logits: Sequence[Sequence[float]] | Floats, temperature: float = 1.0) -> Floats:
    """Probabilities of choices from their log-probabilities or logits, (N, K), each row shifted by any constant.

    −inf is a probability of 0, at any temperature; nan behind a row's numbers is no choice.
    Raises ValueError for other numbers that are not finite, and unless the temperature is above 0.
    """
    return np.asarray(np.exp(log_softmax(logits, temperature)))


def log_softmax(logits: Sequence[Sequence[float]] | Floats, temperature: float = 1.0) -> Floats:
    """The logarithm of `softmax`, without rounding of what is unlikely to 0."""
    z = np.asarray(logits, np.float64)
    shaped = z.ndim == 2 and z.shape[1] > 0
    absent = np.isnan(z)
    if (
        not shaped
        or (z == np.inf).any()
        or not np.isfinite(z).any(axis=1).all()
        or (absent[:, :-1] > absent[:, 1:]).any()
    ):
        raise ValueError(
            f"logits of shape {z.shape} that are not all finite; expected (N, K), with −inf only where a probability "
            "is 0 and nan only behind the last choice of a question"
        )
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; expected one above 0")
    z = (z - np.nanmax(z, axis=1, keepdims=True, initial=-np.inf)) / temperature
    return np.asarray(z - np.log(np.nansum(np.exp(z), axis=1, keepdims=True)))


def reliability(
    probabilities: Floats, right: Sequence[int] | Ints, bins: int = BINS, mass: bool = False
) -> tuple[Bin, ...]:
    """The bins that hold a point, every choice being one, for a reliability diagram."""
    p, y, _ = _points(probabilities, right, False)
    edges = _edges(p, bins, mass)
    place = _place(p, edges, mass)
    found = []
    for i in range(bins):
        held = place == i
        if count := int(held.sum()):
            accuracy = wilson(int(y[held].sum()), count)
            found.append(Bin(float(edges[i]), float(edges[i + 1]), count, float(p[held].mean()), accuracy))
    return tuple(found)


def expected_calibration_error(
    probabilities: Floats, right: Sequence[int] | Ints, bins: int = BINS, top: bool = False, mass: bool = False
) -> float:
    """Mean over all points of |share right − mean probability| of their bin; from 0 to 1.

    Raises ValueError for no question, another shape than (N, K), or a right choice that is none.
    Source: Naeini et al. (2015), AAAI 29:2901, over all choices as in GPT-4's figure 8 (or the likeliest, `top`); bins
    of equal mass as in Nguyen and O'Connor (2015), arXiv 1508.05154.
    """
    return float(_error(_tables(probabilities, right, bins, top, mass, None).sum(axis=0)))


def ece_interval(
    probabilities: Floats,
    right: Sequence[int] | Ints,
    rng: np.random.Generator,
    groups: Groups = None,
    bins: int = BINS,
    top: bool = False,
    mass: bool = False,
    resamples: int = 2000,
) -> Interval:
    """`expected_calibration_error` with its 95 % bootstrap interval: questions, or whole groups, are drawn anew.

    The interval is the basic one, [2e − high, 2e − low] of the resampled errors and never below 0: few questions make
    the error too large, resampled ones are too large once more, and this takes that off instead of adding it. Close to
    perfect calibration it may still lie above the truth; see `chance_error`. Bins of equal mass stay those of all
    points.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, section 5.2.
    """
    tables = _tables(probabilities, right, bins, top, mass, groups)
    estimate = float(_error(tables.sum(axis=0)))
    if len(tables) < 2:
        return Interval(estimate, 0.0, 1.0)
    drawn = np.concatenate([errors for (errors,) in _resampled([tables], rng, resamples)])
    found = _basic(estimate, drawn)
    return Interval(estimate, max(0.0, found.low), max(0.0, found.high))


def ece_change(
    before: Floats,
    after: Floats,
    right: Sequence[int] | Ints,
    rng: np.random.Generator,
    groups: Groups = None,
    bins: int = BINS,
    top: bool = False,
    mass: bool = False,
    resamples: int = 2000,
) -> Interval:
    """The error of `after` less that of `before`, of the same questions, which are drawn together: a paired interval.

    It is the basic one, as of `ece_interval`; [−1, 1] below two groups.
    """
    pair = [_tables(p, right, bins, top, mass, groups) for p in (before, after)]
    first, second = (float(_error(tables.sum(axis=0))) for tables in pair)
    if len(pair[0]) < 2:
        return Interval(second - first, -1.0, 1.0)
    drawn = np.concatenate([b - a for a, b in _resampled(pair, rng, resamples)])
    return _basic(second - first, drawn)


def chance_error(probabilities: Floats, rng: np.random.Generator, bins: int = BINS) -> float:
    """The mean error of these probabilities if they were true: right choices are drawn from them, 200 times.

    Source: consistency resampling of Bröcker and Smith (2007), Weather and Forecasting 22:651.
    """
    edges = np.nan_to_num(probabilities).cumsum(axis=1)
    errors = []
    for _ in range(200):
        drawn = (rng.random((len(edges), 1)) * edges[:, -1:] >= edges).sum(axis=1)
        errors.append(expected_calibration_error(probabilities, drawn, bins))
    return float(np.mean(errors))


def brier_scores(probabilities: Floats, right: Sequence[int] | Ints) -> Floats:
    """Of each question the squared distance of its probabilities from the truth, over all choices: 0 to 2; (N,).

    Source: Brier (1950), Monthly Weather Review 78:1.
    """
    _points(probabilities, right, False)
    told = np.arange(probabilities.shape[1]) == np.asarray(right)[:, None]
    return np.asarray(np.nansum((probabilities - told) ** 2, axis=1))


def log_losses(probabilities: Floats, right: Sequence[int] | Ints) -> Floats:
    """−log p of each question's right choice, in nats; (N,).

    A probability counts as `FLOOR` where it is less, as in scikit-learn, so that a right choice that was held
    impossible costs 36 nats, and not more than all others together ever could.
    """
    _points(probabilities, right, False)
    told = probabilities[np.arange(len(probabilities)), np.asarray(right)]
    return np.asarray(np.abs(np.log(np.clip(told, FLOOR, 1.0))))


def log_loss(probabilities: Floats, right: Sequence[int] | Ints) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities, right).mean())


def fit_temperature(logits: Sequence[Sequence[float]] | Floats, right: Sequence[int] | Ints) -> float:
    """The temperature by which logits, (N, K), are divided to make the right choices likeliest.

    The log-loss is convex in the inverse temperature β, so its slope, the mean of E_β[logit] − logit of the right
    choice, has one root. Between 0.01 and 100: at an end where even that is not enough, as when all is right, or the
    right choice is no likelier than others. 1 where all logits of each question are equal. Questions whose right
    choice has probability 0 are left out: no temperature changes that.
    Raises ValueError as `expected_calibration_error` does.
    Source: Guo et al. (2017), arXiv 1706.04599, section 4.2.
    """
    from scipy.optimize import brentq

    z, y = log_softmax(logits), np.asarray(right)
    _points(np.exp(z), right, False)
    possible = np.isfinite(z[np.arange(len(z)), y])
    z, y = z[possible], y[possible]
    if not len(z):
        return 1.0
    z = z - np.nanmax(z, axis=1, keepdims=True)
    told = z[np.arange(len(z)), y]
    counted = np.where(np.isfinite(z), z, 0.0)  # others have no probability to be weighed with
    if not counted.any():
        return 1.0

    def slope(log_beta: float) -> float:
        p = np.nan_to_num(softmax(z, float(np.exp(-log_beta))))
        return float((np.einsum("nk,nk->n", p, counted) - told).mean())

    low, high = -np.log(HOTTEST), np.log(HOTTEST)
    if slope(low) >= 0:
        return HOTTEST
    return 1 / HOTTEST if slope(high) <= 0 else float(np.exp(-brentq(slope, low, high, xtol=1e-12)))


def in_calibration_split(groups: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """Which values a repair is fitted on: whole groups, about half of them, by the hash of what names them."""
    hashes = (hashlib.sha256(f"calibration/{group}".encode()).digest()[:8] for group in groups)
    return np.array([int.from_bytes(found, "big") < 2**63 for found in hashes], bool)


def _points(probabilities: Floats, right: Sequence[int] | Ints, top: bool) -> tuple[Floats, Floats, Ints]:
    """Probability and truth (0 or 1) of each point, in the order of questions, and points of each question, (N,)."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(right)
    there = ~np.isnan(p)
    if p.ndim != 2 or not p.size or len(y) != len(p) or not ((y >= 0) & (y < there.sum(axis=1))).all():
        raise ValueError(
            f"probabilities of shape {p.shape} and {len(y)} right choices; expected (N, K) and N from 0 to K − 1"
        )
    held = np.where(there, p, 0.0)
    trailing = (there[:, :-1] >= there[:, 1:]).all()
    if not trailing or not ((held >= 0) & (held <= 1 + 1e-9)).all() or not np.allclose(held.sum(axis=1), 1, atol=1e-6):
        raise ValueError("probabilities are not all within [0, 1] with rows that sum to 1; expected those of `softmax`")
    told = np.arange(p.shape[1]) == y[:, None]
    if top:
        likeliest = held.argmax(axis=1)[:, None]
        p, told = np.take_along_axis(p, likeliest, 1), np.take_along_axis(told, likeliest, 1)
        there = np.ones_like(told)
    return p[there], told[there].astype(np.float64), there.sum(axis=1)


def _edges(p: Floats, bins: int, mass: bool) -> Floats:
    return np.asarray(np.quantile(p, np.linspace(0, 1, bins + 1)) if mass else np.arange(bins + 1) / bins)


def _place(p: Floats, edges: Floats, mass: bool) -> Ints:
    bins = len(edges) - 1
    if mass:
        return np.asarray(np.searchsorted(edges[1:-1], p))
    return np.asarray(np.minimum((p * bins).astype(np.int64), bins - 1))


def _tables(
    probabilities: Floats, right: Sequence[int] | Ints, bins: int, top: bool, mass: bool, groups: Groups
) -> Floats:
    """(groups, 3, bins): number of points, sum of their probabilities and of their truths; a question is a group where
    none are given."""
    p, y, each = _points(probabilities, right, top)
    names: Sequence[Hashable] = range(len(right)) if groups is None else groups
    if len(names) != len(right):
        raise ValueError(f"{len(names)} groups for {len(right)} questions; expected one a question")
    codes: dict[Hashable, int] = {}
    of = np.repeat([codes.setdefault(name, len(codes)) for name in names], each)
    cell, size = of * bins + _place(p, _edges(p, bins, mass), mass), len(codes) * bins
    sums = [np.bincount(cell, weights, size).reshape(-1, bins) for weights in (None, p, y)]
    return np.stack(sums, axis=1).astype(np.float64)


def _error(tables: Floats) -> Floats:
    """The error of (…, 3, bins) sums."""
    count, probability, truth = np.moveaxis(tables, -2, 0)
    return np.asarray(np.abs(truth - probability).sum(axis=-1) / count.sum(axis=-1))


def _resampled(tables: Sequence[Floats], rng: np.random.Generator, resamples: int) -> Iterator[list[Floats]]:
    """Errors of resamples of the groups, a part of them at a time; the same groups are drawn for each of the tables."""
    count = len(tables[0])
    for start in range(0, resamples, rows := max(1, _AT_ONCE // count)):
        weights = rng.multinomial(count, np.full(count, 1 / count), min(rows, resamples - start))
        yield [_error((weights @ one.reshape(count, -1)).reshape(-1, *one.shape[1:])) for one in tables]


def _basic(estimate: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(estimate, 2 * estimate - float(high), 2 * estimate - float(low))
