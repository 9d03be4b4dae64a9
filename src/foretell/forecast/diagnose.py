"""What speaks against a forecast, and which rungs would mend it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretell.forecast.law import Floats, Means, Point, bend
from foretell.forecast.noise import LN10, Noise, Scatter, jacobian

DRAWS = 4000  # of the bend test's statistic under chance


@dataclass(frozen=True)
class Advice:
    """Why the data do not support the forecast, and what to add. add: (FLOPs of a rung, seeds). cost: FLOPs in all."""

    reason: str
    add: tuple[tuple[float, int], ...] = ()
    cost: float = 0.0


@dataclass(frozen=True)
class LocalExponent:
    """Fall of log loss per log compute between two neighbouring rungs, with its standard error."""

    low_flops: float
    high_flops: float
    exponent: float
    stderr: float


@dataclass(frozen=True)
class Bend:
    """The bend that mends the fit most. turn: change of the local exponent. p: that chance makes one as strong."""

    flops: float
    turn: float
    p: float


def local_exponents(noise: Noise, means: Means) -> tuple[LocalExponent, ...]:
    x, log = means.x, np.log(means.loss)
    exponents = -np.diff(log) / np.diff(x)
    errors = np.sqrt(means.var[1:] + means.var[:-1]) / np.diff(x)
    return tuple(
        LocalExponent(*map(float, row))
        for row in zip(noise.flops[:-1], noise.flops[1:], exponents, errors, strict=True)
    )


def find_bend(noise: Noise, means: Means, point: Point, floor: float | None) -> Bend | None:
    """Whether a change of exponent inside the ladder fits better than chance would have it; None below six rungs.

    The largest F over places between the second rung and the last but one, its distribution by simulation. A floor of
    0 is held there, or a negative one would pass for a bend to a faster fall. Beside a floor that the fit chose, place
    and turn are those of a bent power law without one where that explains the rungs as well: such a floor takes a bend
    to a slower fall upon itself, and what is left of it looks like the opposite bend elsewhere.
    """
    x, sd = means.x, np.sqrt(means.var)
    chosen = floor is None and point.c > 0
    straight = np.stack([np.ones(len(x)), -x], 1) / sd[:, None]
    design = jacobian(point, x, floor if floor is not None or chosen else 0.0) / sd[:, None]
    if len(x) < 6:
        return None
    where = np.linspace(x[1], x[-2], 25)

    def search(design: Floats, seen: Floats) -> tuple[Floats, Floats, Floats]:
        """Beside the design, of each place: the change of exponent and how much it mends; and what is left without."""
        basis = np.linalg.qr(design)[0]
        shapes = -bend(x, where).T / sd[:, None]
        shapes = shapes - basis @ (basis.T @ shapes)
        norms = np.linalg.norm(shapes, axis=0)
        seen = seen - (seen @ basis) @ basis.T
        along = seen @ (shapes / norms)
        return along / norms, along**2, (seen**2).sum(-1)

    def strength(gain: Floats, rest: Floats) -> Floats:
        return np.asarray(gain.max(-1) / (rest - gain.max(-1)))

    _, *chance = search(design, np.random.default_rng(0).standard_normal((DRAWS, len(x))))
    turn, gain, rest = search(design, np.log(means.loss / point.loss(x)) / sd)
    p = (1 + int((strength(*chance) >= strength(gain, rest)).sum())) / (1 + DRAWS)
    if chosen:
        plain = search(straight, np.log(means.loss) / sd)
        least = rest - gain.max()
        if plain[2] - plain[1].max() <= least * len(x) ** (1 / len(x)):  # one parameter less (Schwarz's criterion)
            turn, gain, _ = plain
    at = int(np.argmax(gain))
    return Bend(float(noise.flops[-1] * np.exp(where[at])), float(turn[at]), p)


def amplification(means: Means, point: Point, floor: float | None, decades: float) -> float:
    """Relative error so far beyond the ladder for one unit of independent relative noise on every rung."""
    design, ahead = jacobian(point, means.x, floor), jacobian(point, np.array([decades * LN10]), floor)
    weight = point.weights / means.var
    pull = ahead @ np.linalg.pinv(design.T @ (weight[:, None] * design)) @ (design.T * weight)
    return float(np.linalg.norm(pull))


def advise(
    noise: Noise,
    scatter: Scatter,
    point: Point,
    floor: float | None,
    target: float,
    half_width: float,
    precision: float,
) -> Advice:
    """The cheapest of many ways to add rungs or seeds that should bring the half-width down to `precision`.

    The half-width is taken to shrink as the error of the linearised fit, wander and target noise included, does.
    """

    def seed(flops: Floats | float) -> Floats:
        return np.asarray(np.interp(np.log(flops), np.log(noise.flops), noise.sd))

    def error(flops: Floats, seeds: Floats) -> float:
        var = seed(flops) ** 2 / seeds + scatter.own**2
        design = jacobian(point, np.log(flops / noise.flops[-1]), floor) / np.sqrt(var)[:, None]
        ahead = jacobian(point, np.log(np.array([target / noise.flops[-1]])), floor)[0]
        fitted = ahead @ np.linalg.pinv(design.T @ design) @ ahead
        beyond = scatter.variance(np.log(target / flops.max()))
        return float(np.sqrt(fitted + beyond + scatter.own**2 + seed(target) ** 2))

    now = error(noise.flops, noise.seeds)
    plans: list[tuple[float, tuple[tuple[float, int], ...], float]] = []
    for more in (2, 4, 8):
        add = tuple((float(flops), more) for flops in noise.flops)
        plans.append((more * noise.flops.sum(), add, error(noise.flops, noise.seeds + more)))
    top = noise.flops[-1]
    for reach in 10 ** np.arange(0.25, np.log10(target / top) - 0.3, 0.25):
        for count in (1, 2, 3, 4):
            new = top * reach ** (np.arange(1, count + 1) / count)
            for seeds in (1, 2, 4):
                both = np.append(noise.flops, new), np.append(noise.seeds, np.full(count, float(seeds)))
                plans.append((seeds * new.sum(), tuple((float(flops), seeds) for flops in new), error(*both)))
    enough = [plan for plan in plans if plan[2] / now * half_width <= precision]
    reason = (
        f"the interval is ±{100 * half_width:.2g} % at {target:.3g} FLOPs, and ±{100 * precision:.2g} % was asked for"
    )
    if not enough:
        return Advice(f"{reason}; no ladder below half the target's compute promises that")
    cost, add, _ = min(enough, key=lambda plan: plan[0])
    return Advice(reason, add, float(cost))


def past_the_bend(noise: Noise, found: Bend, least: int = 6) -> Advice:
    """Rungs to add so that enough of them lie above a bend."""
    above = noise.flops[noise.flops > found.flops]
    way = "faster" if found.turn > 0 else "slower"
    reason = (
        f"the law bends near {found.flops:.2g} FLOPs (the loss falls {way} above it; p = {found.p:.1g}), "
        f"so the rungs below that tell nothing about the target; {len(above)} lie above it"
    )
    if len(above) >= least:
        return Advice(f"{reason}: fit those alone")
    ratio = max(float(np.exp(np.median(np.diff(noise.x)))), 1.5)
    add = tuple((float(noise.flops[-1] * ratio**i), 1) for i in range(1, least - len(above) + 1))
    return Advice(reason, add, sum(flops for flops, _ in add))
