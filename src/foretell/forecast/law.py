"""The forms of a scaling law, each fitted as a weighted set of laws, in closed form but for its exponent.

All are L = a·e^(−b·x − turn·bend(x)) + c, with x the natural log of compute over that of the top rung. Given the other
parameters `a` (and c) are linear, so the likelihood is profiled over a grid of exponents. Noise is relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]

EXPONENTS = (0.003, 2.0)  # per unit of log compute; Kaplan et al. and everyone since lie between 0.02 and 0.5
SHARPNESS = 0.25 * np.log(10)  # a bend takes about half a decade to either side
TURN = 0.5  # prior sd of a bend's change of exponent, as a share of the exponent
DRAWS = 24  # of the laws with one floor and one place of the bend
ROUNDING = 2e-5  # relative: losses are reported with four or five digits, so no noise is smaller
HUBER = 1.345  # standard deviations at which a residual begins to lose weight; 95 % efficient (Huber 1981)


@dataclass(frozen=True)
class Means:
    """What is fitted: one point a distinct compute, in rising order.

    x: log(compute / that of the top rung), natural. loss: mean over seeds. var: relative variance of that mean, up to
    one common factor. dof: degrees of freedom with which that factor is known to be 1; 0 if var holds only ratios.
    """

    x: Floats
    loss: Floats
    var: Floats
    dof: float

    def __len__(self) -> int:
        return len(self.x)

    def upto(self, count: int) -> Means:
        """The lowest `count` rungs, x still counted from this ladder's top."""
        return Means(self.x[:count], self.loss[:count], self.var[:count], self.dof)

    @property
    def weight(self) -> Floats:
        """Of squared absolute residuals, so that relative ones have unit variance."""
        return np.asarray(1 / (self.var * self.loss**2))

    @property
    def known(self) -> float:
        """Sum of squares that stands for what is known of the common factor beforehand."""
        return self.dof + ROUNDING**2 / float(np.exp(np.log(self.var).mean()))


@dataclass(frozen=True)
class Laws:
    """A weighted set of laws; each field has one value a law. spread: relative standard deviation of a."""

    weight: Floats
    a: Floats
    b: Floats
    c: Floats
    turn: Floats
    where: Floats
    spread: Floats

    def excess(self, x: Floats | float) -> Floats:
        """Loss above the floor at each x: shape (laws, len(x))."""
        x = np.atleast_1d(np.asarray(x, np.float64))
        return np.asarray(self.a[:, None] * np.exp(-self.b[:, None] * x - self.turn[:, None] * bend(x, self.where)))

    def loss(self, x: Floats | float) -> Floats:
        return np.asarray(self.excess(x) + self.c[:, None])

    def scaled(self, factor: float) -> Laws:
        return replace(self, weight=self.weight * factor)

    def pick(self, index: npt.NDArray[Any], weight: Floats) -> Laws:
        """Some of the laws, with new weights."""
        return Laws(weight, *(getattr(self, field.name)[index] for field in fields(Laws)[1:]))


def join(parts: Sequence[Laws]) -> Laws:
    return Laws(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Laws)))


def bend(x: Floats, where: Floats) -> Floats:
    """0 well below `where`, x − where well above it: shape (len(where), len(x)).

    Source: one break of a smoothly broken power law (Caballero et al., arXiv 2210.14891), of fixed sharpness.
    """
    return np.asarray(SHARPNESS * np.logaddexp(0, (x - where[:, None]) / SHARPNESS))


@dataclass(frozen=True)
class Point:
    """The one best law, by profile and IRLS-Huber. rss: of residuals in standard deviations. weights: Huber's."""

    a: float
    b: float
    c: float
    rss: float
    weights: Floats

    def loss(self, x: Floats | float) -> Floats:
        return np.asarray(self.a * np.exp(-self.b * np.asarray(x, np.float64)) + self.c)


def best(means: Means, floor: float | None = None) -> Point:
    """L = a·C^−b + c with c >= 0 (or c = floor) that minimises Huber's loss of the relative residuals.

    Source: Huber, Robust Statistics (1981), iteratively reweighted least squares.
    """
    huber = np.ones(len(means))
    for _ in range(30):
        a, b, c = _profile(means, means.weight * huber, floor)
        residual = (a * np.exp(-b * means.x) + c - means.loss) * np.sqrt(means.weight)
        free = max(len(means) - (2 if floor is not None else 3), 1)
        scale = max(1.4826 * float(np.median(np.abs(residual))) * np.sqrt(len(means) / free), 1e-300)
        if means.dof:  # seeds told the noise: a ladder of few rungs is no better judge of it
            scale = max(scale, 1.0)
        scale = max(scale, np.sqrt(means.known) if not means.dof else 0.0)
        renewed = np.minimum(1, HUBER * scale / np.maximum(np.abs(residual), 1e-300))
        done = float(np.abs(renewed - huber).max()) < 1e-6
        huber = renewed
        if done:
            break
    return Point(a, b, c, float(huber @ residual**2), huber)


def _profile(means: Means, weight: Floats, floor: float | None) -> tuple[float, float, float]:
    low, high = np.log(EXPONENTS)
    for _ in range(9):
        grid = np.linspace(low, high, 65)
        a, c, rss = _linear(means.x, means.loss, weight, np.exp(grid), floor)
        i = int(np.argmin(rss))
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, 64)]
    return float(a[i]), float(np.exp(grid[i])), float(c[i])


def _linear(x: Floats, loss: Floats, weight: Floats, b: Floats, floor: float | None) -> tuple[Floats, Floats, Floats]:
    """(a, c) of each exponent, weighted least squares with c >= 0, and the residual sum of squares.

    loss: shape (…, rungs); the results have (…, exponents).
    """
    g = np.exp(-b[:, None] * x)
    given = floor or 0.0
    a = (loss - given) @ (g * weight).T / (g**2 @ weight)
    c = np.full_like(a, given)
    if floor is None:
        mean = g @ weight / weight.sum()
        centred = g - mean[:, None]
        free = loss @ (centred * weight).T / (centred**2 @ weight)
        above = (loss @ weight / weight.sum())[..., None] - free * mean
        a, c = np.where(above < 0, a, free), np.maximum(above, 0)
    return a, c, ((a[..., None] * g + c[..., None] - loss[..., None, :]) ** 2) @ weight


def powers(means: Means, floor: float = 0.0) -> tuple[Laws, float]:
    """Power laws above a given floor, with their log evidence."""
    low, high = np.log(EXPONENTS)
    for _ in range(4):
        grid = np.linspace(low, high, 60)
        b = np.exp(grid)
        laws, log = _weigh(means, b, np.full(60, floor), 1 / 60 * (high - low) / np.log(EXPONENTS[1] / EXPONENTS[0]))
        low, high = _zoom(grid, log)
    return _finish(laws, log)


def floored(means: Means) -> tuple[Laws, float]:
    """Power laws above an unknown floor between 0 and the lowest loss, with their log evidence."""
    low, high = np.log(EXPONENTS)
    z = np.linspace(-1, 1, 21)
    n, w, y = len(means), means.weight, means.loss
    for _ in range(4):
        grid = np.linspace(low, high, 40)
        b = np.exp(grid)
        # Given b, the floor is a t variable: its nodes are laid where that has its mass and the floor is allowed.
        g = np.exp(-b[:, None] * means.x)
        mean_g = g @ w / w.sum()
        centred = g - mean_g[:, None]
        a = centred @ (w * (y - y @ w / w.sum())) / (centred**2 @ w)
        centre = y @ w / w.sum() - a * mean_g
        rss = ((a[:, None] * g + centre[:, None] - y) ** 2) @ w
        precision = w.sum() - (g @ w) ** 2 / (g**2 @ w)
        sd = np.sqrt((means.known + rss) / (means.dof + max(n - 2, 1)) / precision)
        top = float(y.min())
        bottom = np.clip(centre - 6 * sd, 0, 0.98 * top)
        reach = np.where(centre > 0, centre + 6 * sd, 6 * sd / (1 + np.abs(centre) / sd))
        reach = np.clip(reach, bottom + 0.01 * np.minimum(sd, top), top)
        c = bottom[:, None] + (reach - bottom)[:, None] * (z + 1) / 2
        cell = (reach - bottom)[:, None] / 21 / top * np.ones(21)
        prior = cell.ravel() / 40 * (high - low) / np.log(EXPONENTS[1] / EXPONENTS[0])
        laws, log = _weigh(means, np.repeat(b, 21), c.ravel(), prior)
        low, high = _zoom(grid, np.logaddexp.reduce(log.reshape(40, 21), axis=1))
    return _finish(laws, log)


def broken(means: Means, floor: float | None = None) -> tuple[Laws, float]:
    """Power laws whose exponent changes inside the ladder, with their log evidence; above any floor, or the given one.

    The log of the excess is linear in log a, b and the change of exponent. Given the floor and where the bend is, these
    are drawn from their normal distribution (the same standard draws every time).
    """
    n, x, top = len(means), means.x, float(means.loss.min())
    where = np.linspace(x[1], x[-2], 13)
    low, high = 0.0, 0.95 * top
    for _ in range(3 if floor is None else 1):
        floors = np.linspace(low, high, 9) if floor is None else np.array([floor])
        cell = (high - low) / 8 / top if floor is None else 1.0
        excess = np.maximum(means.loss - floors[:, None], 1e-3 * means.loss)
        z, sd = np.log(excess), np.sqrt(means.var) * means.loss / excess
        weight = 1 / sd**2 / (1 / sd**2).sum(1, keepdims=True)
        centred = x - (weight * x).sum(1, keepdims=True)
        slope = np.maximum(-(weight * centred * z).sum(1) / (weight * centred**2).sum(1), EXPONENTS[0])[:, None]
        plain = np.stack([np.ones((len(where), n)), np.tile(-x, (len(where), 1)), -bend(x, where)], -1)
        design, seen = plain / sd[:, None, :, None], (z / sd)[:, None, :, None]
        ridge = np.zeros((len(floors), len(where)))
        for _ in range(3):  # the prior of the turn is in units of the noise, which is estimated with it
            normal = design.mT @ design
            normal[..., 2, 2] += ridge
            theta = np.linalg.solve(normal, design.mT @ seen)
            rss = ((design @ theta - seen) ** 2).sum((2, 3))
            scale2 = (means.known + rss) / (means.dof + max(n - 3, 1))
            ridge = scale2 / (TURN * slope) ** 2
        nu = means.dof + n
        log = (
            gammaln((nu - 2) / 2)
            + 1.5 * np.log(np.pi)
            - np.linalg.slogdet(normal)[1] / 2
            - (nu - 2) / 2 * np.log(means.known + rss + ridge * theta[..., 2, 0] ** 2)
            + np.log(ridge / np.pi) / 2
            - np.log(slope * np.log(EXPONENTS[1] / EXPONENTS[0]))
            # The priors of a and of the floor are even up to the lowest loss, as in the other forms.
            + np.log1p(-floors[:, None] / means.loss[-1])
            + np.log(cell / len(where))
        )
        low, high = _zoom(floors, np.logaddexp.reduce(log, axis=1))
    evidence = float(np.logaddexp.reduce(log, axis=None))
    draws = np.random.default_rng(0).standard_normal((DRAWS, 3))
    spread = np.linalg.cholesky(np.linalg.inv(normal) * scale2[..., None, None])
    log_a, b, turn = np.moveaxis(theta[..., None, :, 0] + draws @ spread.mT, -1, 0)  # of shape (floors, places, draws)
    weight = np.exp(log - evidence)[..., None] / DRAWS
    parts = weight, np.exp(log_a), b, floors[:, None, None], turn, where[:, None], 0.0
    kept = np.broadcast_to(weight > 1e-4 * weight.max(), b.shape)
    return Laws(*(np.broadcast_to(part, b.shape)[kept] for part in parts)), evidence


def resampled(means: Means, rng: np.random.Generator, count: int, floor: float | None = None) -> Laws:
    """Seed bootstrap: every mean drawn anew with its noise, the law of least squares fitted to each such ladder.

    Where seeds do not tell the noise, its scale is that of the residuals and itself redrawn (so draws are t).
    """
    n, w = len(means), means.weight
    point = best(means, floor)
    free = means.dof + max(n - (2 if floor is not None else 3), 1)
    scale = np.sqrt((means.known + point.rss) / rng.chisquare(free, count))
    drawn = point.loss(means.x) * (1 + scale[:, None] * np.sqrt(means.var) * rng.standard_normal((count, n)))
    low, high = np.log(EXPONENTS)
    rows = np.arange(count)
    for _ in range(3):
        grid = np.linspace(low, high, 80)
        tried, floors, rss = _linear(means.x, drawn, w, np.exp(grid), floor)
        i = np.argmin(rss, axis=1)
        low, high = grid[max(i.min() - 1, 0)], grid[min(i.max() + 1, 79)]
    a, b, c = tried[rows, i], np.exp(grid)[i], floors[rows, i]
    kept = a > 0
    zero = np.zeros(int(kept.sum()))
    return Laws(zero + 1 / max(len(zero), 1), a[kept], b[kept], c[kept], zero, zero, zero)


def _weigh(means: Means, b: Floats, c: Floats, prior: Floats | float) -> tuple[Laws, Floats]:
    """Laws of given exponents and floors, `a` integrated over, with their log weights (evidence times prior)."""
    g, w = np.exp(-b[:, None] * means.x), means.weight
    sharp = g**2 @ w
    rest = means.loss - c[:, None]
    a = (g * rest) @ w / sharp
    square = means.known + ((rest - a[:, None] * g) ** 2) @ w
    nu = means.dof + len(means)
    log = gammaln((nu - 1) / 2) + 0.5 * np.log(np.pi) - np.log(sharp) / 2 - (nu - 1) / 2 * np.log(square)
    log = np.where(a > 0, log + np.log(prior) - np.log(means.loss[-1]), -np.inf)
    spread = np.sqrt(square / max(nu - 1, 1) / sharp) / np.maximum(a, 1e-300)
    zero = np.zeros(len(b))
    return Laws(np.ones(len(b)), a, b, c, zero, zero, spread), log


def _zoom(grid: Floats, log: Floats) -> tuple[float, float]:
    kept = np.flatnonzero(log > log.max() - 14)
    return float(grid[max(kept[0] - 1, 0)]), float(grid[min(kept[-1] + 1, len(grid) - 1)])


def _finish(laws: Laws, log: Floats) -> tuple[Laws, float]:
    """Laws that matter, weights summing to 1, and the log evidence of all."""
    evidence = float(np.logaddexp.reduce(log))
    weight = np.exp(log - evidence)
    kept = weight > 1e-4 * weight.max()
    return laws.pick(kept, weight[kept] / weight[kept].sum()), evidence
