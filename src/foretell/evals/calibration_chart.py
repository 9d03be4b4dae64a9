"""The report's figure 8 for any model: reliability diagrams side by side, and how many points each bin holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from foretell.measure.calibration import Bin
from foretell.pages import Html, compact, el, join, percent
from foretell.pages.axes import Scale, both, line, short, svg, text

_GAP, _COUNTS = 34.0, 64.0  # between panels; height of the counts
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Panel:
    """One diagram. note: under its title, such as its error."""

    title: str
    note: str
    bins: Sequence[Bin]


def reliability_chart(panels: Sequence[Panel]) -> Html:
    """Share right over probability, with 95 % whiskers beside the diagonal of perfect calibration; below, the number of
    points in each bin on a logarithmic scale. Side by side on wide screens, one under the other on narrow ones."""
    most = max((one.count for panel in panels for one in panel.bins), default=1)
    told = "; ".join(f"{panel.title}: {panel.note}" for panel in panels)

    def draw(variant: str, width: float) -> Html:
        wide = variant == "wide"
        beside = len(panels) if wide else 1
        left = 60.0
        side = min(300.0, (width - left - 14 - _GAP * (beside - 1)) / beside)
        deep = 46 + side + 12 + _COUNTS + 44
        parts = []
        for i, panel in enumerate(panels):
            x, y = (left + i * (side + _GAP), 0.0) if wide else (left, i * (deep + 14))
            parts.append(_panel(panel, i, x, y + 46, side, most, named=not wide or i == 0))
        height = deep if wide else len(panels) * (deep + 14) - 14
        return svg(width, height, variant, "Reliability of option probabilities", told, *parts)

    return both(draw)


def _panel(panel: Panel, tone: int, x: float, y: float, side: float, most: int, named: bool) -> Html:
    """named: whether the vertical axes have their numbers."""
    at_x, at_y = Scale(0, 1, x, x + side, False), Scale(0, 1, y + side, y, False)
    low = y + side + 12 + _COUNTS
    at_count = Scale(0, max(1.0, log10(most + 1)), low, low - _COUNTS, False)
    parts: list[Html] = [text(x, y - 28, panel.title, "name"), text(x, y - 10, panel.note, "t")]
    for share in _SHARES:
        parts.append(line(x, at_y(share), x + side, at_y(share), "grid"))
        parts.append(text(at_x(share), low + 18, f"{100 * share:.0f}", "t m"))
        if named:
            parts.append(text(x - 8, at_y(share) + 4, f"{100 * share:.0f}", "t e"))
    parts += [line(at_x(0), at_y(0), at_x(1), at_y(1), "axis"), line(x, low, x + side, low, "axis")]
    parts.append(text(x + side, low + 36, "probability of an option, %", "t e"))
    if named:
        parts.append(text(x - 8, y - 10, "right, %", "t e"))
        parts.append(text(x - 8, low - _COUNTS + 8, compact(most), "t e"))
        parts.append(text(x - 8, low + 4, "0", "t e"))
    parts.append(el("g", *(_bin(one, at_x, at_y, at_count, low) for one in panel.bins), class_=f"k{tone % 6 + 1}"))
    return join(parts)


def _bin(one: Bin, at_x: Scale, at_y: Scale, at_count: Scale, low: float) -> Html:
    start, end = at_x(one.low) + 1, at_x(one.high) - 1
    top = at_count(log10(one.count + 1))
    a = one.accuracy
    said = (
        f"{percent(one.low)} to {percent(one.high)}: {one.count:,} options, mean {percent(one.confidence)}, "
        f"{percent(a.estimate)} right ({percent(a.low)} to {percent(a.high)})"
    )
    here = at_x(one.confidence)
    return el(
        "g",
        el("title", said),
        el(
            "rect",
            x=short(start),
            y=short(top),
            width=short(max(end - start, 0.8)),
            height=short(low - top),
            class_="band",
        ),
        line(here, at_y(a.low), here, at_y(a.high), "whisker"),
        el("circle", cx=short(here), cy=short(at_y(a.estimate)), r="4", class_="dot"),
    )
