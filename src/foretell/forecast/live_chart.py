"""A live curve over the band that was forecast for it, with its alarms: as figures, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretell.pages import Html, Series, el, figure, line_chart, number, page, percent, section, table

if TYPE_CHECKING:
    from foretell.forecast.register import Record
    from foretell.forecast.watch import Band


def watch_figure(band: Band, points: Sequence[tuple[float, float]], *, relative: bool = False) -> Html:
    """A live curve against the band that was forecast for it, with its alarms. points: (share of the horizon, loss).

    relative: in percent of the expected curve, by means over its bins. What is far outside is drawn at the edge.
    """
    low, mid, high = band.low, band.centre, band.high
    x, y = [x for x, _ in points], [y for _, y in points]
    alarms = {a.share: a.loss for a in band.check(points)}
    if relative:
        against = dict(zip(band.shares, mid, strict=True))
        low, high = (tuple(100 * (v / m - 1) for v, m in zip(bound, mid, strict=True)) for bound in (low, high))
        x, y = list(band.shares), [100 * (v / m - 1) for v, m in zip(band.means(points), mid, strict=True)]
        alarms = {share: 100 * (loss / against[share] - 1) for share, loss in alarms.items() if share in against}
        mid = (0.0,) * len(x)
    room = 0.3 * (max(high) - min(low))
    return line_chart(
        [
            Series("expected", band.shares, mid, "line", 5, low, high),
            Series("this run", x, y, "line", 0),
            Series("alarm", list(alarms), list(alarms.values()), "rings", 3),
        ],
        title="Live loss against its forecast" if relative else "Live loss",
        x_label="share of the run",
        y_label="% of the expected loss" if relative else band.unit,
        y_range=(min(low) - room, max(high) + room),
        keys_above=True,
    )


def watch_parts(band: Band, points: Sequence[tuple[float, float]]) -> list[Html]:
    """A live curve so far: its alarms in words, the curve over its band, and its difference from the expected one."""
    alarms = band.check(points)
    rows = [
        [percent(a.share, 0), number(a.loss, 4), f"{number(a.low, 4)} … {number(a.high, 4)}", a.text] for a in alarms
    ]
    seen = max(points, default=(0.0, 0.0))[0]  # the middle of the last line's steps, not their end
    so_far = f" in the {percent(seen, 0)} of the run so far" if seen < 1 - band.width else ""
    return [
        table(["Share", "Loss", "Expected", "Likely"], rows, align="rrll") if alarms else el("p", f"No alarm{so_far}."),
        figure(watch_figure(band, points), "Training loss over the band that the ladder's own curves foretell."),
        figure(watch_figure(band, points, relative=True), "The same, as differences from the expected curve."),
    ]


def watch_page(band: Band, points: Sequence[tuple[float, float]], record: Record) -> str:
    """A page of the live curve, its band and its alarms."""
    return page(
        "A run and its forecast",
        [section("Loss so far", *watch_parts(band, points))],
        kicker=f"Foretell watch · forecast registered {record.utc[:16].replace('T', ' ')} UTC · {record.sha256[:12]}",
    )
