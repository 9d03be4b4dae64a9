"""The page of a search for a mixture: shares before and after, every trial, what is forecast and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from foretell.forecast.mixture import Recommendation, Trials
from foretell.pages import Html, Series, compact, figure, line_chart, page, section, table

Came = tuple[float, float, float]


def mixture_page(
    name: str, unit: str, trials: Trials, best: Recommendation, target: float, came: Came | None, cost: str
) -> str:
    """came: measured gain of the recommended mixture on the largest rung, (mean, least, largest)."""
    rows = [
        [source, f"{before:.1%}", f"{after:.1%}", *(f"{share:.1%}" for share in shares)]
        for source, before, after, shares in zip(best.sources, best.before, best.shares, best.best.T, strict=True)
    ]
    heads = ["Source", "Before", "Recommended", *(f"Best at {compact(f)}FLOP" for f in np.sort(trials.flops))]
    shares = section("Shares of the tokens", table(heads, rows, align="l" + "r" * (len(heads) - 1)))
    return page(f"Mixture of {name}", [shares, _gains(trials, best, target, came), *_trials(unit, trials)], lead=cost)


def said(best: Recommendation, came: Came | None) -> list[str]:
    """What was found, in sentences."""
    gain = best.gain
    told = [
        f"The recommended mixture lowers the loss by {percent(gain.estimate)} of itself on the largest rung; "
        f"at the run's compute by {percent(gain.low)} to {percent(gain.high)}, "
        "whether the rungs' trend ends there or goes on."
        if gain.low > 0
        else f"No mixture is shown to be better: the recommended one changes the loss by {percent(gain.estimate)} "
        f"on the largest rung, and at the run's compute by {percent(gain.low)} to {percent(gain.high)}, which holds 0."
    ]
    if came is not None:
        law = best.rungs[-1].estimate
        told.append(
            f"On the largest rung the law says {percent(law)}; runs with other seeds came to {percent(came[0])} "
            f"({percent(came[1])} to {percent(came[2])})."
        )
    told.append(f"A law errs by {best.fit:.2%} of a loss on a trial that it has not seen (median).")
    if best.limited:
        told.append(f"Held down by data.max_epochs: {', '.join(best.limited)}.")
    return told


def percent(log_ratio: float) -> str:
    """The share by which a loss falls whose log falls so far."""
    return f"{-math.expm1(-log_ratio):.2%}"


def _gains(trials: Trials, best: Recommendation, target: float, came: Came | None) -> Html:
    flops = [float(value) for value in np.sort(trials.flops)]
    at, ends = [*flops, target], [*best.rungs, best.gain]
    values = [[100 * -math.expm1(-v) for v in (e.estimate, e.low, e.high)] for e in ends]
    y, low, high = (list(column) for column in zip(*values, strict=True))
    series = [
        Series("laws", at[:-1], y[:-1], mark="both", low=low[:-1], high=high[:-1]),
        Series("forecast", at[-1:], y[-1:], mark="dots", low=low[-1:], high=high[-1:]),
    ]
    if came is not None:
        mean, least, most = ([100 * -math.expm1(-v)] for v in came)
        series.append(Series("measured", flops[-1:], mean, mark="rings", low=least, high=most))
    chart = line_chart(
        series, title="What the mixture brings", x_label="FLOP of a run", y_label="% of the loss", x_log=True
    )
    return section("What it brings", figure(chart, " ".join(said(best, came))))


def _trials(unit: str, trials: Trials) -> Sequence[Html]:
    order = np.argsort(trials.flops)
    largest = trials.losses[order[-1]]
    charts = []
    for i, source in enumerate(trials.sources):
        points = Series("trials", list(100 * trials.shares[:, i]), list(largest[:, i]), mark="dots")
        own = Series("the recipe's own", [100 * trials.shares[0, i]], [largest[0, i]], mark="dots")
        chart = line_chart([points, own], title=source, x_label=f"% of the tokens from {source}", y_label=unit)
        charts.append(figure(chart, f"Loss on held-out documents of {source}, largest rung."))
    rows = [
        [str(number), *(f"{share:.1%}" for share in shares), *(f"{loss:.4f}" for loss in losses)]
        for number, (shares, losses) in enumerate(zip(trials.shares, largest, strict=True))
    ]
    heads = ["Trial", *trials.sources, *(f"{source}, {unit}" for source in trials.sources)]
    return [
        section("Loss by share", *charts),
        section("Trials on the largest rung", table(heads, rows, align="l" + "r" * (len(heads) - 1))),
    ]
