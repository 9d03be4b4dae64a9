"""What makes rungs depart from a law: seed noise, errors of single rungs, and an exponent that wanders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretell.forecast.law import HUBER, Floats, Means, Point, best
from foretell.forecast.table import Rung, same_compute

LN10 = float(np.log(10))
FALL = np.linspace(-0.5, 4.0, 46)  # of log variance per decade of compute
FALL_PRIOR = (1.0, 1.5)  # mean and sd: from none at large scale to three or four among very small models
OWN = np.geomspace(3e-5, 0.1, 18)  # relative error of a rung that its seeds share
FAR, LEAST = 3.0, 7  # a rung is doubted from so many standard deviations on, in a ladder of so many rungs
WANDER = np.geomspace(0.003, 0.3, 9)  # change of the local exponent over a decade, as a share of it
WANDER_PRIOR = (0.03, 1.0)  # median, and sd of the logarithm


@dataclass(frozen=True)
class Noise:
    """Of each distinct compute: FLOPs, mean loss, number of seeds, relative sd of one run. dof: behind that sd."""

    flops: Floats
    loss: Floats
    seeds: Floats
    sd: Floats
    dof: float

    @property
    def x(self) -> Floats:
        return np.asarray(np.log(self.flops / self.flops[-1]))


def seed_noise(rungs: tuple[Rung, ...]) -> Noise:
    """Noise from repeated seeds. Without any, sd is 0 on every rung and dof 0: the residuals have to tell.

    Log variance is linear in log compute; its slope, of which few repeats tell little, is averaged over a wide prior.
    Averaging the variance itself leaves the noise of rungs far above the repeated ones on the high side.
    """
    groups = same_compute(rungs)
    flops = np.array([np.mean([rung.flops for rung in group]) for group in groups])
    loss = np.array([np.mean([rung.loss for rung in group]) for group in groups])
    seeds = np.array([float(len(group)) for group in groups])
    free = seeds - 1
    if not free.any():
        return Noise(flops, loss, seeds, np.zeros(len(flops)), 0.0)
    squares = np.array([np.var([rung.loss for rung in group]) for group in groups]) * seeds / loss**2 + free * 1e-12
    decades = np.log10(flops / flops[0])
    level = (squares * np.exp(FALL[:, None] * decades)).sum(1) / free.sum()  # most likely at the lowest rung
    log = -0.5 * free.sum() * np.log(level) + 0.5 * FALL * (free @ decades)
    log -= 0.5 * ((FALL - FALL_PRIOR[0]) / FALL_PRIOR[1]) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    sd = np.sqrt(weight @ (level[:, None] * np.exp(-FALL[:, None] * decades)))
    return Noise(flops, loss, seeds, sd, float(free.sum()))


def jacobian(point: Point, x: Floats, floor: float | None) -> Floats:
    """Change of log loss per unit of log a, b and (unless it is known) c: shape (len(x), 2 or 3)."""
    loss = point.loss(x)
    share = (loss - point.c) / loss
    return np.stack([share, -share * x] + ([1 / loss] if floor is None else []), 1)


def walk(x: Floats) -> Floats:
    """Covariance of log loss at each x when its exponent is a random walk of unit variance a decade.

    x: natural log of compute above where the walk starts. Between s <= t it is s²(3t − s)/6, in decades.
    """
    low, high = np.minimum.outer(x, x) / LN10, np.maximum.outer(x, x) / LN10
    return np.asarray(LN10**2 * low**2 * (3 * high - low) / 6)


@dataclass(frozen=True)
class Scatter:
    """own: relative sd that all seeds of a rung share (all of the noise where no seed is repeated).

    wander: weight of each size in WANDER. slope: local exponent of the loss at the top rung.
    """

    own: float
    wander: Floats
    slope: float

    def growth(self, x: Floats | float) -> Floats:
        """Relative variance of the loss at x above the top rung, for each size of wander: it grows as distance³."""
        decades = np.maximum(np.asarray(x, np.float64), 0)[..., None] / LN10
        return np.asarray((WANDER * self.slope * LN10) ** 2 * decades**3 / 3)

    def variance(self, x: Floats | float) -> Floats:
        return np.asarray(self.growth(x) @ self.wander)


def scatter(noise: Noise, floor: float | None = None) -> tuple[Scatter, Means]:
    """The two sizes that seeds leave open, from how the rungs depart from the law; and the rungs with their errors.

    A rung far from all others, by Huber's weight of it, gets an error that makes it likely: one that went wrong must
    neither bend the law nor make the others look noisy.

    Every error of a rolling back-test is a combination of the same n − k contrasts of the residuals; their likelihood
    is that of all back-tests at once, with the correlation between them (restricted maximum likelihood).
    """
    x, seed = noise.x, noise.sd**2 / noise.seeds
    point = best(Means(x, noise.loss, seed + (1e-6 if noise.dof else 1.0), noise.dof), floor)
    doubt = np.maximum(1, HUBER / FAR / point.weights) ** 2 if len(x) >= LEAST else np.ones(len(x))
    design = jacobian(point, x, floor)
    contrast = np.linalg.svd(design)[0][:, design.shape[1] :]
    seen = contrast.T @ (noise.loss / point.loss(x) - 1)
    slope = max(point.b * (1 - point.c / float(point.loss(0.0))), 1e-4)
    path = contrast.T @ walk(x - x[0]) @ contrast * slope**2
    own = OWN[:, None, None, None] ** 2 * (contrast.T * doubt @ contrast)
    cov = contrast.T * (seed * doubt) @ contrast + own + WANDER[:, None, None] ** 2 * path
    log = -0.5 * np.linalg.slogdet(cov)[1] - 0.5 * np.einsum("i,abij,j->ab", seen, np.linalg.inv(cov), seen)
    log = log - 0.5 * (np.log(WANDER / WANDER_PRIOR[0]) / WANDER_PRIOR[1]) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    found = Scatter(float(np.sqrt(weight.sum(1) @ OWN**2)), weight.sum(0), slope)
    return found, Means(x, noise.loss, (seed + found.own**2) * doubt, noise.dof)
