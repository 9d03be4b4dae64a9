"""Which mixture of sources to train on: a law of losses over shares, fitted on small runs, and what it recommends.

The law of one held-out loss on one rung is L(r) = c + exp(t·r), r the shares of the sources (they sum to 1), after the
data mixing laws of Ye et al. (arXiv 2403.16952). It is fitted on each rung by itself, so that a preference that moves
with compute is seen and not averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import norm, qmc

from foretell.errors import ForecastError
from foretell.measure.stats import Interval

Array = npt.NDArray[np.float64]

_APART = math.log(3)  # a source's odds in the trials that move it alone
_SPREAD = 0.8  # standard deviation of the log-odds in the others
_FLOORS = np.append(0.0, 1 - np.geomspace(1.0, 1e-3, 24)[1:])  # c as a share of the least loss
_DRAWS = 200  # of the bootstrap
_STARTS = 2048  # shares that are looked at before the best of them is improved


@dataclass(frozen=True)
class Trials:
    """What was run. shares: (M, S), the mixture of every trial as it was packed; the first is the recipe's own.
    losses: (R, M, S), of every rung, trial and source's held-out documents. flops: (R,) of a rung's run."""

    sources: tuple[str, ...]
    shares: Array
    losses: Array
    flops: Array

    def __post_init__(self) -> None:
        trials, sources = self.shares.shape
        if self.losses.shape != (len(self.flops), trials, sources) or sources != len(self.sources):
            raise ValueError(f"losses of {self.losses.shape} for {len(self.flops)} rungs, {self.shares.shape} shares")
        if not np.allclose(self.shares.sum(1), 1):
            raise ValueError("the shares of a trial do not sum to 1")


@dataclass(frozen=True)
class Recommendation:
    """shares: (S,) for the target. gain: log of the aim's loss before over after, at the target's compute; rungs: the
    same on each rung, cheapest first, by its law. best: (R, S), what each rung's own law prefers. fit: median absolute
    error of the laws, each trial left out of its fit, as a share of the loss. limited: sources whose share is held down
    by how often they may be read."""

    sources: tuple[str, ...]
    before: Array
    shares: Array
    gain: Interval
    rungs: tuple[Interval, ...]
    best: Array
    fit: float
    limited: tuple[str, ...]


def design(base: Sequence[float], trials: int, seed: int = 0) -> Array:
    """(trials, S) mixtures to be tried: the base, each source with three times and a third of its odds, then mixtures
    whose log-odds are spread around the base by a scrambled Sobol sequence.

    Raises ForecastError for fewer trials than a law needs, which is three more than there are sources, or one source.
    """
    at = np.asarray(base, float) / np.sum(base)
    sources = len(at)
    if sources < 2:
        raise ForecastError("A mixture needs two sources or more; this recipe has one. Add a source to its data.")
    if trials < sources + 3:
        raise ForecastError(
            f"{sources} sources need {sources + 3} trials or more; {trials} were asked for. Raise --trials."
        )
    found = [at]
    for sign in (1, -1):
        found += [_moved(at, sign * _APART * np.eye(sources)[i]) for i in range(sources)]
    spread = qmc.Sobol(sources, seed=seed).random_base2(max(1, math.ceil(math.log2(trials))))
    found += [_moved(at, _SPREAD * norm.ppf(np.clip(row, 1e-3, 1 - 1e-3))) for row in spread]
    return np.stack(found[:trials])


def _moved(at: Array, log_odds: Array) -> Array:
    moved = at * np.exp(log_odds)
    return np.asarray(moved / moved.sum())


def fit_law(shares: Array, losses: Array) -> Array:
    """(1 + S,): floor c and exponents t of L = c + exp(t·r), by least squares of log(L − c) at each c of a grid, the c
    with the least squared error of log L being taken. shares: (M, S). losses: (M,), positive."""
    floors = _FLOORS * losses.min()  # (F,)
    t = np.log(losses - floors[:, None]) @ np.linalg.pinv(shares).T  # (F, S)
    errors = np.sum(np.log((floors[:, None] + np.exp(t @ shares.T)) / losses) ** 2, 1)
    best = int(np.argmin(errors))
    return np.append(floors[best], t[best])


def losses_of(law: Array, shares: Array) -> Array:
    """What a law says of mixtures: shares (..., S) → (...)."""
    return np.asarray(law[0] + np.exp(shares @ law[1:]))


def recommend(
    trials: Trials,
    target: float,
    aim: Mapping[str, float] | None = None,
    most: Mapping[str, float] | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> Recommendation:
    """The mixture with the least weighted loss by the law of the largest rung, and what it brings at `target` FLOPs.

    aim: weight of each source's held-out loss; default the recipe's own shares. most: largest share a source may have
    (how often it may be read). No source goes beyond the shares that were tried.
    The gain at the target is taken to be that of the largest rung. A line of the rungs' gains over the logarithm of
    compute often says far more, or less, many decades on: the interval reaches over both, each with a bootstrap of the
    laws' residuals. The choice is made on the same runs, so that the gain is a little too good: train
    both mixtures on a rung with other seeds to see.
    Raises ForecastError for an aim that names no source, and limits that no mixture can hold.
    """
    sources, base = trials.sources, trials.shares[0]
    if unknown := sorted({*(aim or {}), *(most or {})} - set(sources)):
        raise ForecastError(f"There is no source {unknown[0]!r}; the recipe has {', '.join(sources)}.")
    weight = np.array([(aim or dict(zip(sources, base, strict=True))).get(name, 0.0) for name in sources])
    if weight.min() < 0 or not weight.sum():
        raise ForecastError("The aim weighs no source's loss. Give one a weight above 0, such as --aim NAME=1.")
    weight /= weight.sum()
    low, tried = trials.shares.min(0), trials.shares.max(0)
    high = np.minimum(tried, [(most or {}).get(name, 1.0) for name in sources])
    if high.sum() < 1:
        raise ForecastError(
            f"The sources together are too small: read as often as is allowed they fill {high.sum():.0%} of the "
            "tokens. Raise data.max_epochs, or lower the tokens."
        )
    low = np.minimum(low, high)
    order = np.argsort(trials.flops)
    laws = np.stack([_laws(trials.shares, trials.losses[i]) for i in order])
    random = np.random.default_rng(seed)
    best = np.stack([_least(law, weight, low, high, random) for law in laws])
    chosen = best[-1]
    drawn = np.stack(
        [_redrawn(trials.shares, trials.losses[i], law, random) for i, law in zip(order, laws, strict=True)]
    )
    gains = np.array([_gain(law, weight, base, chosen) for law in laws])  # (R,)
    drawn_gains = np.array([[_gain(law, weight, base, chosen) for law in rung] for rung in drawn])  # (R, B)
    decades = np.log10(trials.flops[order] / target)
    spread = np.maximum(drawn_gains.std(1), 1e-9)
    line = _line(decades, spread)
    tail = 100 * (1 - level) / 2

    def interval(value: float, draws: Array) -> Interval:
        low_, high_ = np.percentile(draws, (tail, 100 - tail))
        return Interval(value, float(min(low_, value)), float(max(high_, value)))

    limited = tuple(n for n, s, h, t in zip(sources, chosen, high, tried, strict=True) if h < t and s > h - 1e-4)
    return Recommendation(
        sources,
        base,
        chosen,
        _over(interval(float(gains[-1]), drawn_gains[-1]), interval(float(line @ gains), line @ drawn_gains)),
        tuple(interval(float(g), d) for g, d in zip(gains, drawn_gains, strict=True)),
        best,
        _left_out(trials),
        limited,
    )


def _over(first: Interval, second: Interval) -> Interval:
    return Interval(first.estimate, min(first.low, second.low), max(first.high, second.high))


def _laws(shares: Array, losses: Array) -> Array:
    """(S, 1 + S): a law for the loss of each source's documents. losses: (M, S)."""
    return np.stack([fit_law(shares, column) for column in losses.T])


def _objective(laws: Array, weight: Array, shares: Array) -> Array:
    return np.asarray(sum(w * losses_of(law, shares) for w, law in zip(weight, laws, strict=True) if w))


def _gain(laws: Array, weight: Array, before: Array, after: Array) -> float:
    return float(np.log(_objective(laws, weight, before) / _objective(laws, weight, after)))


def _least(laws: Array, weight: Array, low: Array, high: Array, random: np.random.Generator) -> Array:
    """The shares between low and high with the least objective."""
    starts = np.clip(random.dirichlet(np.ones(len(low)), _STARTS), low, high)
    starts = np.array([_onto(start, low, high) for start in starts])
    first = starts[np.argsort(_objective(laws, weight, starts))[:4]]
    found = [
        minimize(
            lambda r: float(_objective(laws, weight, r)),
            start,
            method="SLSQP",
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "eq", "fun": lambda r: r.sum() - 1},
        )
        for start in first
    ]
    candidates = np.array([*first, *(_onto(each.x, low, high) for each in found)])
    return np.asarray(candidates[np.argmin(_objective(laws, weight, candidates))])


def _onto(shares: Array, low: Array, high: Array) -> Array:
    """Shares within their limits that sum to 1, by filling up or taking off in proportion to what room is left."""
    shares = np.clip(shares, low, high)
    left = 1 - shares.sum()
    room = high - shares if left > 0 else shares - low
    return np.asarray(shares + left * room / max(room.sum(), 1e-12))


def _redrawn(shares: Array, losses: Array, laws: Array, random: np.random.Generator) -> Array:
    """(B, S, 1 + S): laws of losses with residuals drawn anew, those widened by what the fit took up."""
    said = np.stack([losses_of(law, shares) for law in laws], 1)
    free = max(1, len(shares) - laws.shape[1])
    residuals = np.log(losses / said) * math.sqrt(len(shares) / free)
    residuals -= residuals.mean(0)
    draws = random.integers(len(shares), size=(_DRAWS, len(shares)))  # whole rows: a trial's losses err together
    return np.stack([_laws(shares, said * np.exp(residuals[rows])) for rows in draws])


def _line(decades: Array, error: Array) -> Array:
    """(R,): weights of the rungs' gains in the line's value at 0 decades; of one rung, itself."""
    if len(decades) == 1:
        return np.ones(1)
    basis = np.stack([np.ones_like(decades), decades], 1)
    inverse = basis.T / error**2
    return np.asarray(np.linalg.solve(inverse @ basis, inverse)[0])


def _left_out(trials: Trials) -> float:
    errors = []
    for rung in trials.losses:
        for i in range(len(trials.shares)):
            keep = np.arange(len(trials.shares)) != i
            laws = _laws(trials.shares[keep], rung[keep])
            said = np.array([losses_of(law, trials.shares[i]) for law in laws])
            errors += list(np.abs(np.log(said / rung[i])))
    return float(np.median(errors))
