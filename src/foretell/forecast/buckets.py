"""A ladder's pass rates carried to a target: what a record claims of each difficulty bucket and of the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Any

from foretell.errors import ForecastError
from foretell.forecast.capability import (
    Buckets,
    Measure,
    PowerLaw,
    Tally,
    fit_bucket,
    log_loss,
    make_buckets,
    pass_rate,
)
from foretell.forecast.register import Claim, Outcome, Record
from foretell.measure.stats import Interval
from foretell.pages import Series, figure, line_chart, page, percent, section, table
from foretell.pages.axes import power_text

MEAN = "mean pass rate"
_RESAMPLES = 10  # they matter for other problems than the exam's alone
Rung = tuple[float, Sequence[Tally]]  # flops, and the tallies of one model


def bucket_name(index: int) -> str:
    """What a claim about bucket `index` (from 0, the easiest) is called; its value is −E[log pass rate] in nats."""
    return f"bucket {index + 1}, -log pass rate"


@dataclass(frozen=True)
class Capability:
    """losses: the law of −E[log p] of each bucket. rates: of −log E[p], from which the mean pass rate comes."""

    buckets: Buckets
    losses: tuple[PowerLaw, ...]
    rates: tuple[PowerLaw, ...]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Capability:
        """The inverse of `dataclasses.asdict`, as JSON keeps it."""

        def law(fields: dict[str, Any]) -> PowerLaw:
            a, b = fields["problems"]
            return PowerLaw(**fields | {"problems": (tuple(a), tuple(b)), "left_out": tuple(fields["left_out"])})

        laws = {key: tuple(law(fields) for fields in raw[key]) for key in ("losses", "rates")}
        groups = tuple(tuple(group) for group in raw["buckets"]["groups"])
        return cls(Buckets(groups, tuple(raw["buckets"]["unsolved"])), **laws)

    def mean(self, flops: float, level: float = 0.9) -> Interval:
        """The mean pass rate over all bucketed problems. The buckets' errors are added as if all went one way."""
        sizes = [len(group) for group in self.buckets.groups]
        found = [law.predict(flops, level) for law in self.rates]
        values, highs, lows = (
            sum(n * exp(-v) for n, v in zip(sizes, side, strict=True)) / sum(sizes)
            for side in ([i.estimate for i in found], [i.low for i in found], [i.high for i in found])
        )
        return Interval(values, lows, highs)

    def claims(self, flops: float, level: float = 0.9) -> tuple[Claim, ...]:
        """For the record of a run of so many FLOPs: one a bucket, easiest first, then the mean pass rate."""
        named = [(bucket_name(i), law.predict(flops, level)) for i, law in enumerate(self.losses)]
        named.append((MEAN, self.mean(flops, level)))
        return tuple(Claim(name, x.estimate, x.low, x.high, level) for name, x in named)

    def losses_of(self, tallies: Sequence[Tally]) -> list[float]:
        """−E[log p] of each bucket, in nats; inf where nothing passed."""
        return [log_loss(group) for group in _grouped(self.buckets, tallies)]

    def outcomes(self, tallies: Sequence[Tally]) -> dict[str, float]:
        """What a finished run's tallies make of each claim. Raises ForecastError for missing problems."""
        groups = _grouped(self.buckets, tallies)
        found = {bucket_name(i): loss for i, loss in enumerate(self.losses_of(tallies))}
        size = sum(map(len, groups))
        return found | {MEAN: sum(len(group) * pass_rate(group) for group in groups) / size}


def capability_page(found: Capability, rungs: Sequence[tuple[float, Sequence[float]]], record: Record) -> str:
    """The buckets over compute, each with its law, interval, forecast and, once known, outcome, as HTML.

    rungs: (flops, −E[log pass rate] of each bucket) of the fitted models; inf where nothing passed.
    """
    target, level = record.target, record.claims[0].level
    known = {outcome.claim.name: outcome for outcome in record.outcomes}
    claims = {claim.name: claim for claim in record.claims}
    lowest = min(flops for flops, _ in rungs)
    xs = [lowest * (target / lowest) ** (i / 40) for i in range(41)]
    charts = []
    for i, law in enumerate(found.losses):
        name, fit = bucket_name(i), [law.predict(x, level) for x in xs]
        claim, dots = claims[name], [(flops, values[i]) for flops, values in rungs if 0 < values[i] < inf]
        outcome, shown = known.get(name), [claim.value, claim.high, *(y for _, y in dots)]
        bottom, top = min(shown) / 4, max(shown) * 4  # intervals may reach from 0, and to no end
        lows, highs = [max(p.low, bottom) for p in fit], [min(p.high, top) for p in fit]
        drawn = [
            Series("fit", xs, [p.estimate for p in fit], "line", 5, lows, highs),
            Series("rungs", [x for x, _ in dots], [y for _, y in dots], "dots", 0),
            Series("forecast", [target], [claim.value], "rings", 1, [max(claim.low, bottom)], [claim.high]),
        ]
        if outcome is not None and outcome.measured:
            drawn.append(Series("outcome", [target], [outcome.measured], "dots", 2))
        count = len(found.buckets.groups[i])
        title = f"Bucket {i + 1}: {count} problems, exponent {law.exponent:.2f}"
        charts.append(
            figure(
                line_chart(
                    drawn,
                    title=title,
                    x_label="training FLOPs",
                    y_label="−E[log pass rate], nats",
                    x_log=True,
                    y_log=True,
                    x_format=power_text,
                    keys_above=True,
                ),
                title,
            )
        )
    rows = [
        [c.name, f"{c.value:.4g}", _measured(known.get(c.name)), f"{c.low:.4g} … {c.high:.4g}"] for c in claims.values()
    ]
    return page(
        "Capability forecast",
        [
            section("Claims", table(["claim", "forecast", "outcome", f"{percent(level, 0)} interval"], rows)),
            section("Buckets, easiest first", *charts),
        ],
        kicker=f"Foretell forecast · registered {record.utc[:16].replace('T', ' ')} UTC · {record.sha256[:12]}",
        lead=f"Pass rates of held-out programs at {power_text(target)} FLOPs, "
        f"from models of at most {power_text(max(rungs)[0])}.",
        footer="Written by foretell from the tallies of the ladder. Nothing on this page is loaded from elsewhere.",
    )


def _measured(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    value = "diverged" if outcome.measured is None else f"{outcome.measured:.4g}"
    return f"{value}, {'inside' if outcome.hit else 'outside'}"


def fit_capability(sorting: Sequence[Sequence[Tally]], rungs: Sequence[Rung], count: int = 6) -> Capability:
    """Buckets from `sorting`, the tallies of small models, and their laws from other draws, or other models: `rungs`.

    Problems that no small model solved are left out of all claims.
    Raises ForecastError as `make_buckets` and `fit_bucket` do.
    """
    buckets = make_buckets(sorting, count)
    split = [(flops, _grouped(buckets, tallies)) for flops, tallies in rungs]
    per_bucket = [[(flops, groups[i]) for flops, groups in split] for i in range(count)]
    return Capability(
        buckets,
        tuple(_fit(i, one, "log_loss") for i, one in enumerate(per_bucket)),
        tuple(_fit(i, one, "pass_rate") for i, one in enumerate(per_bucket)),
    )


def _fit(index: int, rungs: Sequence[Rung], measure: Measure) -> PowerLaw:
    try:
        return fit_bucket(rungs, measure, _RESAMPLES)
    except ForecastError as error:
        raise ForecastError(f"Bucket {index + 1}: {error}") from error


def _grouped(buckets: Buckets, tallies: Sequence[Tally]) -> list[list[Tally]]:
    by_name: Mapping[str, Tally] = {t.problem: t for t in tallies}
    if missing := [name for group in buckets.groups for name in group if name not in by_name]:
        raise ForecastError(f"{len(missing)} problems of the buckets, such as {missing[0]}, were not asked. Ask them.")
    return [[by_name[name] for name in group] for group in buckets.groups]
