"""From a ladder to a forecast: loss at any compute, with its interval and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from foretell.errors import ForecastError
from foretell.forecast import backtest, law
from foretell.forecast.diagnose import (
    Advice,
    LocalExponent,
    advise,
    amplification,
    find_bend,
    local_exponents,
    past_the_bend,
)
from foretell.forecast.law import Floats, Laws, Means
from foretell.forecast.noise import LN10, WANDER, Noise, Scatter, scatter, seed_noise
from foretell.forecast.table import LadderTable, read_table
from foretell.measure.stats import Interval

FEWEST = 5  # distinct computes
BOOTSTRAP = 0.3  # share of the ensemble that comes of redrawn seeds, the rest of the profile likelihood
DRAWS = 100  # of the bootstrap
KEPT = 200  # laws in a forecast
LEVEL = 0.9
BEND_P, BEND_TURN = 0.01, 0.15  # a bend that counts: by chance, and as a share of the local exponent


@dataclass(frozen=True)
class Prediction:
    """Loss at a compute, in the table's unit; low and high bound it with probability `level`."""

    flops: float
    loss: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class RungDiagnostics:
    """One distinct compute: mean loss and seeds, the fit, its relative residual, relative noise of one run."""

    flops: float
    loss: float
    seeds: int
    fitted: float
    residual: float
    noise: float


@dataclass(frozen=True)
class BackTest:
    """The rungs up to `fitted_to` FLOPs predict the one at `flops`. error: relative. decades: how far ahead."""

    fitted_to: float
    flops: float
    decades: float
    loss: float
    predicted: float
    low: float
    high: float
    error: float


@dataclass(frozen=True)
class Diagnostics:
    """What the fit says of itself.

    bend_p: probability that chance bends a straight ladder as much (1 where it is too short to tell); bend_flops,
    bend_turn: where, and by how much the local exponent changes there. amplification: relative error at the target,
    `decades` beyond the ladder (1 where none was named), for one unit of relative noise on every rung. wander: change
    of the local exponent over a decade, as a share of it, that the ladder leaves likely.
    """

    rungs: tuple[RungDiagnostics, ...]
    local_exponents: tuple[LocalExponent, ...]
    bend_p: float
    bend_flops: float | None
    bend_turn: float
    amplification: float
    decades: float
    wander: float
    back_tests: tuple[BackTest, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """Result of `fit`.

    weights: of the forms in the ensemble. parameters: a, b, c of L(C) = a·C^−b + c with 90 % intervals. refusal: why
    the data do not support a forecast, and what to add; None where they do. The rest is what `predict` needs: equally
    likely laws around the top rung, degrees of freedom, relative sd of one run, the wander of the exponent. tail: the
    local exponent that each law has beyond the ladder, where that is known.
    """

    table_digest: str
    unit: str
    weights: Mapping[str, float]
    parameters: Mapping[str, Interval]
    diagnostics: Diagnostics
    refusal: Advice | None
    top: float
    laws: Laws
    dof: float
    noise: float
    scatter: Scatter
    tail: tuple[float, ...] = ()

    def predict(self, flops: float, level: float = LEVEL) -> Prediction:
        """Loss of one run at `flops`, with the interval that holds it with probability `level`.

        Raises ForecastError unless flops > 0 and 0 < level < 1.
        """
        if not 0 < flops < np.inf or not 0 < level < 1:
            raise ForecastError(f"{flops:g} FLOPs at level {level:g}: expected a positive number and a share of 1.")
        x = float(np.log(flops / self.top))
        centre, sd, weight = _mixture(self.laws, self.scatter, self.noise, x, np.array(self.tail))
        low, loss, high = np.exp(_quantiles(centre, sd, weight, self.dof, ((1 - level) / 2, 0.5, (1 + level) / 2)))
        return Prediction(float(flops), float(loss), float(low), float(high), level)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` predicts the same, bit for bit."""
        raw = asdict(self)
        raw["laws"] = {field.name: getattr(self.laws, field.name).tolist() for field in fields(Laws)}
        raw["scatter"]["wander"] = self.scatter.wander.tolist()
        return raw

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Forecast:
        told = dict(raw["diagnostics"])
        rows = {"rungs": RungDiagnostics, "local_exponents": LocalExponent, "back_tests": BackTest}
        told |= {name: tuple(kind(**row) for row in told[name]) for name, kind in rows.items()}
        told |= {"warnings": tuple(told["warnings"])}
        refusal = raw["refusal"] and Advice(
            **{**raw["refusal"], "add": tuple((flops, seeds) for flops, seeds in raw["refusal"]["add"])}
        )
        return cls(
            **{
                **raw,
                "tail": tuple(raw.get("tail", ())),
                "parameters": {name: Interval(**values) for name, values in raw["parameters"].items()},
                "diagnostics": Diagnostics(**told),
                "refusal": refusal,
                "laws": Laws(**{name: np.array(values, np.float64) for name, values in raw["laws"].items()}),
                "scatter": Scatter(**{**raw["scatter"], "wander": np.array(raw["scatter"]["wander"], np.float64)}),
            }
        )


def fit(
    table: LadderTable | str | Path,
    *,
    floor: float | None = None,
    target: float | None = None,
    precision: float | None = None,
    tail: tuple[float, float] | None = None,
) -> Forecast:
    """Fit L(C) = a·C^−b + c to a ladder, with an ensemble of forms around it.

    floor: c where it is known (an audited source). target: FLOPs of the run to forecast; precision: relative half-width
    of its 90 % interval that is asked for. tail: the least and largest that −d ln L/d ln C may be beyond the ladder,
    where larger models on such data have shown it; then the ladder tells where its law begins, and not how it goes on.
    The forecast carries a refusal where the law bends inside the ladder, or the
    interval is wider than asked.
    Raises ForecastError with fewer than five distinct computes, a loss that does not fall, or an impossible setting.
    Source: method in docs/forecast.md.
    """
    table = table if isinstance(table, LadderTable) else read_table(table)
    noise = seed_noise(table.rungs)
    _check(table, noise, floor, target, precision)
    if tail is not None and not 0 < tail[0] <= tail[1] < law.EXPONENTS[1]:
        raise ForecastError(f"A tail from {tail[0]:g} to {tail[1]:g} is none: give exponents above 0, the lower first.")
    spread, means = scatter(noise, floor)
    point = law.best(means, floor)
    looks, scores = backtest.roll(means, spread, floor)
    fitted = backtest.forms(means, floor)
    weights = backtest.weigh(fitted, scores)
    profile = law.join([laws.scaled(weights[form]) for form, (laws, _) in fitted.items()])
    redrawn = law.resampled(means, np.random.default_rng(0), DRAWS, floor)
    ensemble = law.join([profile.scaled(1 - BOOTSTRAP), redrawn.scaled(BOOTSTRAP)])
    dof = max(means.dof + len(means) - (2 if floor is not None else 3), 1.0)
    decades = 1.0 if target is None else float(np.log10(target / noise.flops[-1]))
    bend = find_bend(noise, means, point, floor)
    diagnostics = Diagnostics(
        tuple(
            RungDiagnostics(float(c), float(y), int(m), float(f), float(f / y - 1), float(s))
            for c, y, m, f, s in zip(
                noise.flops, noise.loss, noise.seeds, point.loss(means.x), np.hypot(noise.sd, spread.own), strict=True
            )
        ),
        local_exponents(noise, means),
        bend.p if bend else 1.0,
        bend.flops if bend else None,
        bend.turn if bend else 0.0,
        amplification(means, point, floor, decades),
        decades,
        float(np.sqrt(spread.wander @ WANDER**2)),
        tuple(_back_test(look, noise, means, floor) for look in looks),
        (*_warnings(table, noise, decades), *_doubted(noise, spread, means, point)),
    )
    parameters = _parameters(point, profile, noise.flops[-1])
    run = float(np.hypot(noise.sd[-1], spread.own))
    forecast = Forecast(
        table.digest, table.unit, weights, parameters, diagnostics, None, float(noise.flops[-1]), _thin(ensemble), dof,
        run, spread, () if tail is None else _even(*tail),
    )  # fmt: skip
    if bend is not None and bend.p < BEND_P and abs(bend.turn) > BEND_TURN * spread.slope:
        return replace(forecast, refusal=past_the_bend(noise, bend))
    if target is not None and precision is not None:
        told = forecast.predict(target)
        half_width = (told.high - told.low) / 2 / told.loss
        if half_width > precision:
            return replace(forecast, refusal=advise(noise, spread, point, floor, target, half_width, precision))
    return forecast


def _check(
    table: LadderTable, noise: Noise, floor: float | None, target: float | None, precision: float | None
) -> None:
    count = len(noise.flops)
    if count < FEWEST:
        gone = "".join(f" {said}" for said in _excluded(table))
        raise ForecastError(
            f"The ladder has {count} distinct computes; a forecast needs at least {FEWEST}, better ten "
            f"over four decades. Train further rungs.{gone}"
        )
    if floor is not None and not 0 <= floor < noise.loss.min():
        raise ForecastError(f"A floor of {floor:g} is not below every loss (the lowest is {noise.loss.min():g}).")
    if precision is not None and (target is None or not 0 < precision < 1):
        raise ForecastError(f"A precision of {precision:g} needs a target, and is a share between 0 and 1.")
    if target is not None and not noise.flops[-1] < target < np.inf:
        raise ForecastError(
            f"The target of {target:g} FLOPs is not beyond the ladder, whose top is {noise.flops[-1]:g}. "
            "Name the larger run's FLOPs."
        )
    slope = np.polyfit(noise.x, np.log(noise.loss), 1)[0]
    if slope >= 0:
        raise ForecastError("The loss does not fall with compute along this ladder. Check the columns and the runs.")


def _warnings(table: LadderTable, noise: Noise, decades: float) -> tuple[str, ...]:
    out = []
    span = float(np.log10(noise.flops[-1] / noise.flops[0]))
    if not noise.dof:
        out.append("No rung has two seeds, so noise is judged by the residuals alone.")
    if decades > span:
        out.append(f"The target lies {decades:.1f} decades beyond a ladder of {span:.1f}.")
    out += _excluded(table)
    ratios = [rung.tokens / rung.params for rung in table.rungs if rung.tokens and rung.params]
    if ratios and max(ratios) > 1.5 * min(ratios):
        out.append(f"Tokens per parameter differ along the ladder, from {min(ratios):.3g} to {max(ratios):.3g}.")
    return tuple(out)


def _doubted(noise: Noise, spread: Scatter, means: Means, point: law.Point) -> list[str]:
    usual = noise.sd**2 / noise.seeds + spread.own**2
    off = means.loss / point.loss(means.x) - 1
    far = np.flatnonzero(means.var > 1.5 * usual)
    return [f"The rung at {noise.flops[i]:.3g} FLOPs is {off[i]:+.1%} off the others; it counts for less." for i in far]


def _excluded(table: LadderTable) -> list[str]:
    runs = [f"{rung.run or f'{rung.flops:.3g} FLOPs'} ({why})" for rung, why in table.excluded]
    more = [f"{len(runs) - 4} more"] if len(runs) > 5 else []
    return [f"Left out: {'; '.join(runs[: 4 if more else 5] + more)}."] if runs else []


def _back_test(look: backtest.Look, noise: Noise, means: Means, floor: float | None) -> BackTest:
    free = max(means.dof + look.cut - (2 if floor is not None else 3), 1)
    reach = float(stdtrit(free, (1 + LEVEL) / 2)) * look.sd
    below, flops, loss = noise.flops[look.cut - 1], noise.flops[look.rung], noise.loss[look.rung]
    return BackTest(
        float(below), float(flops), float(np.log10(flops / below)), float(loss), look.predicted,
        look.predicted * float(np.exp(-reach)), look.predicted * float(np.exp(reach)), float(look.predicted / loss - 1),
    )  # fmt: skip


def _parameters(point: law.Point, laws: Laws, top: float) -> dict[str, Interval]:
    """In units of FLOPs; intervals from the profile likelihood of the forms without a bend."""
    plain = laws.turn == 0
    weight = laws.weight[plain] / laws.weight[plain].sum()
    values = {
        "a": (point.a * top**point.b, laws.a[plain] * top ** laws.b[plain]),
        "b": (point.b, laws.b[plain]),
        "c": (point.c, laws.c[plain]),
    }
    out = {}
    for name, (estimate, likely) in values.items():
        order = np.argsort(likely)
        low, high = np.interp([0.05, 0.95], np.cumsum(weight[order]) - weight[order] / 2, likely[order])
        out[name] = Interval(float(estimate), min(float(low), float(estimate)), max(float(high), float(estimate)))
    return out


def _thin(laws: Laws) -> Laws:
    """So many equally likely laws instead of weighted ones, evenly drawn in the order of what they foretell."""
    order = np.argsort(laws.loss(2 * LN10)[:, 0], kind="stable")
    share = np.cumsum(laws.weight[order])
    at = order[np.searchsorted(share, (np.arange(KEPT) + 0.5) / KEPT * share[-1]).clip(0, len(order) - 1)]
    return laws.pick(at, np.full(KEPT, 1 / KEPT))


def _even(low: float, high: float) -> tuple[float, ...]:
    """An exponent for each law kept, evenly spread, in an order that has nothing to do with theirs."""
    even = low + (high - low) * (np.arange(KEPT) + 0.5) / KEPT
    return tuple(np.random.default_rng(0).permutation(even).tolist())


def _mixture(laws: Laws, scatter: Scatter, noise: float, x: float, tail: Floats) -> tuple[Floats, Floats, Floats]:
    """Centres, standard deviations and weights of log loss at x: shapes (laws, 1), (laws, wanders), (laws, wanders)."""
    known = len(tail) > 0 and x > 0
    at = 0.0 if known else x
    loss, excess = laws.loss(at), laws.excess(at)
    sd = np.sqrt((laws.spread[:, None] * excess / loss) ** 2 + noise**2 + scatter.growth(at))
    centre = np.log(loss)
    if known:  # from the law's own exponent at the top rung to the known one, over about a decade
        step = 1e-4
        local = (centre[:, 0] - np.log(laws.loss(step))[:, 0]) / step
        zero = np.zeros(1)
        turned = float((law.bend(np.array([x]), zero) - law.bend(zero, zero)).item())
        centre = centre - (local * x + (tail - local) * turned)[:, None]
    return centre, sd, laws.weight[:, None] * scatter.wander


def _quantiles(centre: Floats, sd: Floats, weight: Floats, dof: float, shares: tuple[float, ...]) -> list[float]:
    """Quantiles of a mixture of t distributions: each lies between the least and the largest of its parts'."""

    def over(value: float, share: float) -> float:
        return float((weight * stdtr(dof, (value - centre) / sd)).sum()) - share

    parts = [(share, centre + sd * stdtrit(dof, share)) for share in shares]
    return [float(brentq(over, at.min() - 1e-9, at.max() + 1e-9, (share,), xtol=1e-13)) for share, at in parts]
