"""Capability along a ladder: pass rates without bias, difficulty buckets, their power laws, and scaling that turns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

from foretell.errors import ForecastError
from foretell.measure.stats import Interval

Floats = npt.NDArray[np.float64]
Measure = Literal["log_loss", "pass_rate"]
_RESAMPLES = 200
_LEAST_RUNGS = 4
_LARGEST = 700.0  # whose exponential is still a float


def unbiased_log_pass_rate(draws: int, passes: int) -> float:
    """Unbiased estimate of log p from sampling until `passes` successes.

    draws: number of samples taken, the last one a success. passes: successes, >= 1.
    Returns ψ(passes) − ψ(draws), in nats.
    Raises ValueError if draws < passes or passes < 1.
    Source: digamma identity for the negative binomial distribution.
    """
    if not 1 <= passes <= draws:
        raise ValueError(f"{passes} passes in {draws} draws; expected 1 <= passes <= draws")
    from scipy.special import digamma

    return float(digamma(passes) - digamma(draws))


@dataclass(frozen=True)
class Tally:
    """How one model did on one problem.

    wanted: the number of passes at which sampling stopped; None where the number of draws was fixed beforehand.
    """

    problem: str
    draws: int
    passes: int
    wanted: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.passes <= self.draws or self.draws < 1 or (self.wanted is not None and self.wanted < 1):
            raise ValueError(f"{self} is no tally; expected 0 <= passes <= draws, and wanted >= 1 or None")

    @property
    def capped(self) -> bool:
        """Whether sampling ended without the wanted passes, so that log p has no unbiased estimate from it alone."""
        return self.wanted is None or self.passes < self.wanted


def tally(problem: str, outcomes: Iterable[bool], wanted: int | None = None) -> Tally:
    """Count outcomes in the order of the draws, up to the pass that was wanted; later ones would bias the estimate."""
    draws = passes = 0
    for outcome in outcomes:
        draws, passes = draws + 1, passes + bool(outcome)
        if passes == wanted:
            break
    return Tally(problem, draws, passes, wanted)


def log_loss(tallies: Sequence[Tally]) -> float:
    """−E[log p] over the problems of a bucket, in nats; inf where nothing passed.

    The mean of the unbiased estimates where sampling reached the wanted passes on all of them. Otherwise ψ(a + b) −
    ψ(a) of the beta distribution of p most likely to have given the tallies, those cut off included.
    """
    return _estimate(tallies, "log_loss")[0]


def pass_rate(tallies: Sequence[Tally]) -> float:
    """E[p] over the problems of a bucket, the mean of the same beta distribution (see `log_loss`)."""
    return exp(-_estimate(tallies, "pass_rate")[0])


def _estimate(tallies: Sequence[Tally], measure: Measure) -> tuple[float, float]:
    """−E[log p] or −log E[p] of these very problems, and the variance that the draws leave in it."""
    from scipy.special import digamma, polygamma

    if not tallies:
        raise ForecastError("A bucket has no problems. Give tallies of at least one.")
    counts = np.array([(t.passes, t.draws - t.passes) for t in tallies], np.float64)
    if not counts[:, 0].any():
        return inf, inf
    reached = measure == "log_loss" and not any(t.capped for t in tallies)
    if not reached and not counts[:, 1].any():
        return 0.0, 0.0
    a, b = (0.0, 0.0) if reached else fit_beta(counts)
    k, n = a + counts[:, 0], a + b + counts.sum(1)  # of each problem's posterior
    if measure == "log_loss":
        value = np.mean(digamma(n) - digamma(k)) if reached else digamma(a + b) - digamma(a)
        return float(value), float((polygamma(1, k) - polygamma(1, n)).sum()) / len(k) ** 2
    mean = a / (a + b)
    return -log(mean), float((k * (n - k) / (n * n * (n + 1))).sum()) / (len(k) * mean) ** 2


def fit_beta(counts: Floats) -> tuple[float, float]:
    """Most likely (a, b) of p ~ Beta(a, b) given rows of passes and failures.

    How sampling stopped does not matter to it: a problem sampled to a pass, to a number of draws or to a cap has the
    same likelihood up to a constant, B(a + passes, b + failures) / B(a, b).
    """
    from scipy.optimize import minimize
    from scipy.special import betaln, digamma, expit, logit, xlogy

    k, m = counts.T
    best = float((xlogy(k, k / (k + m)) + xlogy(m, m / (k + m))).sum())  # near the maximum, so that steps stay visible

    def beta(x: Floats) -> tuple[float, float]:
        return float(expit(x[0]) * np.exp(x[1])), float(expit(-x[0]) * np.exp(x[1]))

    def loss(x: Floats) -> tuple[float, Floats]:
        a, b = beta(x)
        common = digamma(a + b) - digamma(a + b + k + m)
        by_a, by_b = (digamma(a + k) - digamma(a) + common).sum(), (digamma(b + m) - digamma(b) + common).sum()
        slopes = np.array([a * b / (a + b) * (by_a - by_b), a * by_a + b * by_b])
        return best - float((betaln(a + k, b + m) - betaln(a, b)).sum()), -slopes

    # By mean and concentration, since a and b lie along a ridge. Problems that are all alike have no finite optimum:
    # beyond e^14 the beta is a point.
    start = [logit((k.sum() + 0.5) / (k.sum() + m.sum() + 1)), log(2)]
    return beta(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-14, 14), (-7, 14)]).x)


@dataclass(frozen=True)
class Buckets:
    """groups: problems by difficulty, easiest first, in near-equal numbers. unsolved: by no small model."""

    groups: tuple[tuple[str, ...], ...]
    unsolved: tuple[str, ...]


def make_buckets(models: Sequence[Sequence[Tally]], count: int = 6) -> Buckets:
    """Difficulty buckets from small models' tallies: by the mean over models of −log((passes + ½) / (draws + 1)).

    Ties fall by a hash of the name. Take other draws, or other models, for the fit: problems that are in the easiest
    bucket by luck look harder afterwards.
    Raises ForecastError where models met different problems, or fewer were solved than there are buckets.
    """
    met = [{t.problem: t for t in model} for model in models]
    if not met or any(set(m) != set(met[0]) or len(m) != len(model) for m, model in zip(met, models, strict=True)):
        raise ForecastError("The small models were not asked the same problems, once each. Bucket what all were asked.")
    hard = {p: sum(log((m[p].draws + 1) / (m[p].passes + 0.5)) for m in met) for p in met[0]}
    order = sorted(hard, key=lambda p: (round(hard[p], 9), hashlib.sha256(p.encode()).digest()))
    solved = [p for p in order if any(m[p].passes for m in met)]
    if len(solved) < count:
        raise ForecastError(
            f"The small models solved {len(solved)} problems, too few for {count} buckets. Draw more often, or take "
            "easier problems or larger small models."
        )
    cuts = [round(i * len(solved) / count) for i in range(count + 1)]
    groups = tuple(tuple(solved[low:high]) for low, high in pairwise(cuts))
    return Buckets(groups, tuple(p for p in order if p not in set(solved)))


@dataclass(frozen=True)
class PowerLaw:
    """value = alpha · flops^−exponent, fitted as a line in logarithms around `centre`, a mean of the rungs' log flops.

    noise: standard deviation between models of log value, beyond what their draws explain; dof: of Student's t.
    level_error, slope_error: standard errors of the line at the centre and of the exponent. problems: covariance of
    both when the problems are drawn anew. count, draws, wanted: how many problems, and the most draws and the passes
    each was sampled for. left_out: flops of rungs where nothing, or everything, passed.
    """

    alpha: float
    exponent: float
    centre: float
    noise: float
    dof: int
    level_error: float
    slope_error: float
    problems: tuple[tuple[float, float], tuple[float, float]]
    count: int
    draws: int
    wanted: int | None
    left_out: tuple[float, ...] = ()

    def predict(self, flops: float, level: float = 0.9, new_problems: bool = False) -> Interval:
        """The value another model would be measured to have, its own noise and that of its draws included.

        Student's interval; the model is taken to be sampled as the rungs were. It begins at 0 where draws are so few,
        and failures so rare, that none might be met.
        new_problems: whether it is asked other problems of the same kind, instead of the bucket's own.
        """
        from scipy.stats import t

        x = log(flops) - self.centre
        middle = log(self.alpha) - self.exponent * log(flops)
        p = exp(-exp(middle))
        passes = min(self.draws * p, self.wanted or inf)
        sampling = (1 - p) / (passes * self.count) / exp(2 * middle)  # as if all problems were alike
        variance = self.noise**2 + sampling + self.level_error**2 + (self.slope_error * x) ** 2
        if new_problems:
            at = np.array([1.0, x])
            variance += float(at @ np.array(self.problems) @ at)
        half = float(t.ppf((1 + level) / 2, self.dof)) * sqrt(variance)
        low = exp(middle - half)
        if low * passes * self.count < -log((1 - level) / 2):
            low = 0.0  # so few failures are to be expected there that none may be met, which measures 0
        # Where next to nothing would pass, draws tell next to nothing.
        return Interval(exp(middle), low, exp(middle + half) if middle + half < _LARGEST else inf)


def fit_bucket(
    rungs: Sequence[tuple[float, Sequence[Tally]]],
    measure: Measure = "log_loss",
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> PowerLaw:
    """The power law of one bucket.

    rungs: (flops, tallies of the bucket's problems) of each model, two seeds of one size being two rungs.
    measure: −E[log p], or −log E[p], from which exp(−value) is the mean pass rate; where problems differ and pass rates
    are low, the second is no power law.
    Rungs weigh by their draws and by the noise between models (Paule and Mandel 1982); the interval is Student's, with
    the degrees of freedom of a plain line, since resampling few models gives one that is too narrow (Hartung and Knapp
    2001).
    Raises ForecastError for fewer than four models that can be used, or different problems.
    Source of the law: OpenAI (2023), arXiv 2303.08774, section 3.2.
    """
    names = sorted(t.problem for t in rungs[0][1]) if rungs else []
    if any(sorted(t.problem for t in tallies) != names for _, tallies in rungs):
        raise ForecastError("The models of a bucket were asked different problems. Ask each all of its problems.")
    ordered = [(flops, sorted(tallies, key=lambda t: t.problem)) for flops, tallies in rungs]
    found = [(flops, tallies, *_estimate(tallies, measure)) for flops, tallies in ordered]
    used = [entry for entry in found if 0 < entry[2] < inf]
    if len(used) < _LEAST_RUNGS or len({flops for flops, *_ in used}) < 3:
        raise ForecastError(
            f"A bucket's law needs {_LEAST_RUNGS} models of three sizes that pass some draws and fail some; "
            f"{len(used)} do. Add rungs where the bucket is partly solved, or draw more often."
        )
    x, y = np.log([flops for flops, *_ in used]), np.log([value for *_, value, _ in used])
    sampling = np.array([variance / value**2 for *_, value, variance in used])
    dof = len(x) - 2
    between = _between(x, y, sampling, dof)
    weights = 1 / (between + sampling)
    middle = float(np.average(x, weights=weights))
    level, slope = _line(x - middle, y, weights)
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(resamples):
        chosen = rng.integers(len(names), size=len(names))
        again = np.array([_estimate([tallies[i] for i in chosen], measure)[0] for _, tallies, *_ in used])
        if np.all((again > 0) & np.isfinite(again)):
            lines.append(_line(x - middle, np.log(again), weights))
    (a, b), (c, d) = np.cov(np.array(lines).T).tolist() if len(lines) > 1 else ((inf, 0.0), (0.0, inf))
    wanted = {t.wanted for _, tallies, *_ in used for t in tallies}
    return PowerLaw(
        alpha=exp(level - slope * middle),
        exponent=-slope,
        centre=middle,
        noise=sqrt(between),
        dof=dof,
        level_error=1 / sqrt(float(weights.sum())),
        slope_error=1 / sqrt(float((weights * (x - middle) ** 2).sum())),
        problems=((a, b), (c, d)),
        count=len(names),
        draws=max(t.draws for _, tallies, *_ in used for t in tallies),
        wanted=wanted.pop() if len(wanted) == 1 else None,
        left_out=tuple(flops for flops, _, value, _ in found if not 0 < value < inf),
    )


def _line(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Level and slope of a line by weighted least squares; x has weighted mean 0."""
    return float(np.average(y, weights=weights)), float((weights * x * y).sum() / (weights * x * x).sum())


def _between(x: Floats, y: Floats, sampling: Floats, dof: int) -> float:
    """The variance between models that brings the weighted squares about the line to their expectation; 0 at least."""
    from scipy.optimize import brentq

    def scatter(between: float) -> float:
        weights = 1 / (between + sampling)
        centred = x - np.average(x, weights=weights)
        level, slope = _line(centred, y, weights)
        return float((weights * (y - level - slope * centred) ** 2).sum()) / dof

    return 0.0 if scatter(0.0) <= 1 else float(brentq(lambda between: scatter(between) - 1, 0.0, 1e3))


def log_odds(logprobs: Sequence[float] | Floats, right: int) -> float:
    """Log-odds of the right one of several answers, in nats: smooth where accuracy is still at chance.

    logprobs: log-probability of each answer, not necessarily normalised.
    Raises ValueError unless `right` is one of at least two.
    """
    x = np.asarray(logprobs, np.float64)
    if x.ndim != 1 or len(x) < 2 or not 0 <= right < len(x):
        raise ValueError(f"right answer {right} of shape {x.shape}; expected an index into at least two answers")
    return float(x[right] - np.logaddexp.reduce(np.delete(x, right)))


@dataclass(frozen=True)
class Turn:
    """Scaling that reverses. flops: where. before, after: slopes per decade, of opposite sign. p: of the test."""

    flops: float
    before: float
    after: float
    p: float


def find_turn(
    flops: Sequence[float], values: Sequence[float], errors: Sequence[float], size: float = 0.05
) -> Turn | None:
    """A reversal along a ladder: both slopes of a broken line significant, and of opposite sign; None if there is none.

    values, errors: a metric of each model with its standard error; where they scatter more than that, the errors are
    widened to fit. Each inner rung, and the middle between two, is tried as the break; p is corrected (Bonferroni).
    Raises ForecastError for fewer than five models or an error that is not positive.
    Source: the two-lines test of Simonsohn (2018), doi 10.1177/2515245918805755.
    """
    x, y, sigma = (np.asarray(v, np.float64) for v in (np.log10(flops), values, errors))
    fit = x.shape == y.shape == sigma.shape and np.isfinite(y).all() and (sigma > 0).all()
    if len({*x.tolist()}) < 5 or not fit:
        raise ForecastError(
            f"A reversal is looked for in {len(x)} models; it needs five sizes, each with a finite value and its error."
        )
    from scipy.stats import norm, t

    inner = np.unique(x)[1:-1]
    breaks = np.unique([*inner, *(inner[1:] + inner[:-1]) / 2])
    best: Turn | None = None
    for at in breaks:
        design = np.stack([np.ones_like(x), np.minimum(x - at, 0), np.maximum(x - at, 0)], 1) / sigma[:, None]
        covariance = np.linalg.inv(design.T @ design)
        fitted = covariance @ design.T @ (y / sigma)
        dof = len(x) - 3
        scatter = float(((y / sigma - design @ fitted) ** 2).sum()) / dof
        z = np.abs(fitted[1:]) / np.sqrt(np.diag(covariance)[1:] * max(scatter, 1.0))
        tail = t.sf(z, dof) if scatter > 1 else norm.sf(z)
        p = min(float(tail.max()) * 2 * len(breaks), 1.0)
        if fitted[1] * fitted[2] < 0 and p < min(size, best.p if best else 1.0):
            best = Turn(float(10**at), float(fitted[1]), float(fitted[2]), p)
    return best
