"""A live curve over the band that was forecast for it, with its alarms: as figures, and as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from foretell.forecast.chart import advice, sentence
from foretell.forecast.schedules import BATCH, RATE, Point, Schedules
from foretell.pages import Html, Series, cards, el, figure, line_chart, number, page, percent, section, table

if TYPE_CHECKING:
    from foretell.forecast.register import Record
    from foretell.forecast.watch import Band


BLIND = (
    "The rungs' curves scatter too much: most of the band is wider than a loss twice off, so that it tells of no fault."
)
_ROWS, _STRIP = 10, 10  # lines of a curve on a terminal; characters from the middle of the band to its edge
_DRAWN = 2.0  # a band beyond so many times its middle, or as small a part of it, is cut there


def watch_figure(
    band: Band, points: Sequence[Point], schedules: Schedules | None = None, *, relative: bool = False
) -> Html:
    """A live curve against the band that was forecast for it, with its alarms. points: (share of the horizon, loss).

    relative: in percent of the expected curve, by means over its bins. What is far outside is drawn at the edge.
    """
    mid = band.centre
    low = tuple(max(v, m / _DRAWN) for v, m in zip(band.low, mid, strict=True))
    high = tuple(min(v, m * _DRAWN) for v, m in zip(band.high, mid, strict=True))
    x, y = [x for x, _ in points], [y for _, y in points]
    alarms = {a.share: a.loss for a in band.check(points, schedules)}
    middles = tuple(share - band.width / 2 for share in band.shares)  # where the curve has the mean of a bin
    if relative:
        against = dict(zip(band.shares, mid, strict=True))
        low, high = (tuple(100 * (v / m - 1) for v, m in zip(bound, mid, strict=True)) for bound in (low, high))
        x, y = list(middles), [100 * (v / m - 1) for v, m in zip(band.means(points), mid, strict=True)]
        alarms = {share: 100 * (loss / against[share] - 1) for share, loss in alarms.items() if share in against}
        mid = (0.0,) * len(x)
    room = 0.3 * (max(high) - min(low))
    return line_chart(
        [
            Series("expected", middles, mid, "line", 5, low, high),
            Series("this run", x, y, "line", 0),
            Series("alarm", [share - band.width / 2 for share in alarms], list(alarms.values()), "rings", 3),
        ],
        title="Live loss against its forecast" if relative else "Live loss",
        x_label="share of the run",
        y_label="% of the expected loss" if relative else band.unit,
        y_range=(min(low) - room, max(high) + room),
        keys_above=True,
    )


def schedule_figure(band: Band, name: str, points: Sequence[Point]) -> Html:
    """What a run was set to against what the rungs' own schedules ask of it."""
    wanted = band.schedules[name]
    low, high = ([v + sign * r for v, r in zip(wanted.values, wanted.room, strict=True)] for sign in (-1, 1))
    x, y = ([point[axis] for point in points] for axis in (0, 1))
    lines = [Series("expected", band.shares, wanted.values, "line", 5, low, high), Series("this run", x, y, "line", 0)]
    unit = {RATE: "", BATCH: "tokens a step"}.get(name, "")
    return line_chart(lines, title=name.capitalize(), x_label="share of the run", y_label=unit or name, keys_above=True)


def watch_parts(band: Band, points: Sequence[Point], schedules: Schedules | None = None) -> list[Html]:
    """A live curve so far: its alarms in words, the curve over its band, its difference from the expected one, and what
    the run was set to."""
    alarms, set_to = band.check(points, schedules), schedules or {}
    rows = [
        [percent(a.share, 0), number(a.loss, 4), f"{number(a.low, 4)} … {number(a.high, 4)}", a.text] for a in alarms
    ]
    seen = max(points, default=(0.0, 0.0))[0]  # the middle of the last line's steps, not their end
    so_far = f" in the {percent(seen, 0)} of the run so far" if seen < 1 - band.width else ""
    return [
        *([el("p", BLIND)] if band.is_blind else []),
        table(["Share", "Loss", "Expected", "Likely"], rows, align="rrll") if alarms else el("p", f"No alarm{so_far}."),
        figure(
            watch_figure(band, points, schedules), "Training loss over the band that the ladder's own curves foretell."
        ),
        figure(watch_figure(band, points, schedules, relative=True), "As differences from the expected curve."),
        *(
            figure(
                schedule_figure(band, name, set_to[name]), f"The {name} against what the rungs' own asks of this run."
            )
            for name in band.schedules
            if set_to.get(name)
        ),
    ]


def watch_rows(band: Band, points: Sequence[Point]) -> list[tuple[str, str, str, str]]:
    """The curve so far for a terminal, a row every few bins: share, loss, band, and where in the band it lies."""
    live = band.means(points)
    known = [i for i, loss in enumerate(live) if math.isfinite(loss)]
    rows = []
    for i in sorted({*known[:: 1 + len(known) // _ROWS], *known[-1:]}):
        low, loss, high = band.low[i], float(live[i]), band.high[i]
        strip = [" "] * (4 * _STRIP + 1)
        strip[_STRIP] = strip[3 * _STRIP] = "|"
        away = (loss - low) / (high - low) * 2 - 1
        strip[2 * _STRIP + round(max(-2.0, min(away, 2.0)) * _STRIP)] = "●"
        rows.append((f"{band.shares[i]:.0%}", f"{loss:.4g}", f"{low:.4g} to {high:.4g}", "".join(strip).rstrip()))
    return rows


def watch_page(band: Band, points: Sequence[Point], record: Record, schedules: Schedules | None = None) -> str:
    """A page of the live curve, its band and its alarms."""
    forecast = record.forecast()
    told, alarms = record.claims[0], len(band.check(points, schedules))
    seen = max(points, default=(0.0, 0.0))[0]
    items: list[tuple[str, object, object]] = [
        ("Of the run so far", percent(seen, 0), f"{alarms or 'no'} alarm{'s' * (alarms != 1)}"),
        (
            "Forecast of its end",
            number(told.value, 4),
            f"{number(told.low, 4)} – {number(told.high, 4)} {record.raw['unit']}",
        ),
    ]
    live = band.means(points)
    if len(over := np.flatnonzero(np.isfinite(live))):
        i = int(over[-1])
        between = f"expected {number(band.low[i], 4)} – {number(band.high[i], 4)}"
        items.insert(1, (f"Loss at {percent(band.shares[i], 0)}", number(float(live[i]), 4), between))
    return page(
        "A run and its forecast",
        [section("Loss so far", *watch_parts(band, points, schedules))],
        lead=sentence(forecast.predict(record.target, told.level), record.raw["unit"], not advice(forecast)),
        head=[cards(items)],
        kicker=f"Foretell watch · forecast registered {record.utc[:16].replace('T', ' ')} UTC · {record.sha256[:12]}",
    )
