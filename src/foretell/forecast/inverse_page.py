"""Scaling that turns, for reading: what was found, the soft metrics and accuracies over compute, every model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foretell.forecast.inverse import Point, SoftSeries, verdict
from foretell.forecast.questions import BLIND
from foretell.measure.stats import Interval, mean_stderr, wilson
from foretell.pages import Html, Series, el, figure, line_chart, number, page, percent, section, table
from foretell.pages.axes import power_text as power

_NOTE = (
    "Metric: mean over questions, with its standard error. −log p: nats of the right answer among those listed, the "
    "loss that a power law may fit where nothing turns."
)
_CHANCE = "p is that of one task alone: of twenty tasks that do not turn, one may seem to at p = 0.05."


def turns_page(series: Sequence[SoftSeries]) -> str:
    """The whole page as HTML: for each kind of task the soft metric and the accuracy, then every model's numbers."""
    kinds: dict[str, list[SoftSeries]] = {}
    for s in series:
        kinds.setdefault(s.group.partition(".")[0], []).append(s)
    seen = [s for s in series if not s.group.endswith(BLIND)]
    told = [el("li", el("b", s.group), f": {verdict(s)}.") for s in seen]
    turned = [s.group for s in seen if s.turn]
    head = ["Questions", "Model", "FLOPs", "Asked", "Metric", "±", "−log p", "Accuracy", "95 %"]
    rows = [_row(s, point) for s in series for point in s.points]
    models = len({point.model.name for s in series for point in s.points})
    return page(
        "Scaling that turns" if turned else "Soft metrics along a ladder",
        [
            section("What was found", el("ul", *told), note=_CHANCE if len(seen) > 1 else None),
            *(section(kind, *_figures(group)) for kind, group in kinds.items()),
            section("Every model", table(head, rows, align="llrrrrrrl"), note=_NOTE),
        ],
        kicker=f"Foretell forecast · {models} models",
        lead=f"Scaling reverses on {', '.join(turned)}." if turned else "No reversal is found.",
        footer="Nothing on this page is loaded from elsewhere.",
    )


def _row(series: SoftSeries, point: Point) -> list[object]:
    grade = point.accuracy
    return [
        series.group,
        point.model.name,
        power(point.model.flops),
        point.asked,
        number(point.value),
        number(point.stderr, 2),
        number(point.loss),
        percent(grade.estimate) if grade else None,
        f"{100 * grade.low:.0f} … {percent(grade.high, 0)}" if grade else None,
    ]


def _figures(group: Sequence[SoftSeries]) -> list[Html]:
    colours = {name: i for i, name in enumerate(dict.fromkeys(s.group.removesuffix(BLIND) for s in group))}

    def line(s: SoftSeries, accuracy: bool) -> Series:
        means = [
            wilson(sum(round(p.accuracy.estimate * p.asked) for p in of if p.accuracy), sum(p.asked for p in of))
            if accuracy
            else _mean(of)
            for of in s.sizes
        ]
        blind = s.group.endswith(BLIND)
        return Series(
            s.group,
            [of[0].model.flops for of in s.sizes],
            [100 * m.estimate if accuracy else m.estimate for m in means],
            "faint" if blind else "both",
            colours[s.group.removesuffix(BLIND)],
            None if blind else [100 * m.low if accuracy else m.low for m in means],
            None if blind else [100 * m.high if accuracy else m.high for m in means],
        )

    graded = [s for s in group if s.points[0].accuracy]
    notes = "Bands: 95 % interval over the questions and seeds." + (
        " Thin lines: the same questions about a grey image." if len(colours) < len(group) else ""
    )
    return [
        figure(
            line_chart(
                [line(s, accuracy) for s in drawn],
                title=f"{'Accuracy' if accuracy else 'Soft metric'} over compute",
                x_label="training FLOPs",
                y_label="accuracy, %" if accuracy else f"{drawn[0].metric}, nats",
                x_log=True,
                x_format=power,
                keys_above=True,
            ),
            notes if not accuracy else None,
        )
        for accuracy, drawn in ((False, group), (True, graded))
        if drawn
    ]


def _mean(points: Sequence[Point]) -> Interval:
    """Mean over the seeds of one size, with what questions and seeds leave open."""
    values = [p.value for p in points]
    middle, between = mean_stderr(values)
    within = math.sqrt(sum(p.stderr**2 for p in points)) / len(points)
    half = 1.96 * max(within, between if len(values) > 1 else 0.0)
    return Interval(middle, middle - half, middle + half)
