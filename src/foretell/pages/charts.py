"""Charts as inline SVG: lines, intervals, bars, sparklines. Each is drawn twice, for wide and narrow screens."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from foretell.pages.axes import (
    Scale,
    both,
    bounds,
    legend,
    line,
    log_ticks,
    path,
    short,
    spread,
    svg,
    text,
    text_width,
    tick_text,
    ticks,
)
from foretell.pages.markup import Html, compact, el, escape, join, number, percent

_ROW = 15
_LONGEST = 26
_LONGEST_BAR = 30, 44  # letters of a bar's label, beside it and above it
_DOTS = {"dots": "dot", "rings": "open"}
Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line. x, y: equal lengths, non-finite points are left out.

    mark: "line", "both" (with dots), "dots" alone, "rings" alone, or "faint", a thin line without a label, for raw
    values under a smoothed one. low, high: bounds of every y, drawn as a band along a line and as whiskers on dots.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: str = "line"
    colour: int | None = None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Interval(NamedTuple):
    """An estimate with its interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class Row(NamedTuple):
    """One line of an interval chart; points stand in the order of the chart's names."""

    label: str
    points: Sequence[Interval | None]


class Bar(NamedTuple):
    label: str
    value: float
    text: str


def _clean(series: Series, x_log: bool, y_log: bool) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(x) and math.isfinite(y) and not (x_log and x <= 0) and not (y_log and y <= 0)
    ]


def _bounded(series: Series, x_log: bool, y_log: bool) -> list[tuple[float, float, float]]:
    """(x, low, high) where all three can be drawn."""
    rows = zip(series.x, series.low or (), series.high or (), strict=bool(series.low))
    return [(x, a, b) for x, a, b in rows if all(map(math.isfinite, (x, a, b))) and (a > 0 or not y_log)]


def _cut(name: str, most: int = _LONGEST) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _dash(index: int) -> str:
    return " dashed" if index % 12 >= 6 else ""


def _tone(series: Series, index: int) -> int:
    return (series.colour if series.colour is not None else index) % 6 + 1


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    x_log: bool = False,
    y_log: bool = False,
    y_range: tuple[float, float] | None = None,
    x_format: Format = compact,
    keys_above: bool = False,
) -> Html:
    """Lines over x with named ends; values appear under the pointer without script.

    y_range: fixed limits, outside which points are drawn at the edge. keys_above: names stand above, not at the ends.
    Series with fewer than one drawable point are left out; with none left, a sentence says so.
    """
    points = {id(s): _clean(s, x_log, y_log) for s in series}
    bands = {id(s): _bounded(s, x_log, y_log) for s in series}
    drawn = [s for s in series if points[id(s)]]
    if not drawn:
        return el("p", f"{title}: nothing to draw yet.", class_="notice")
    xs = [x for s in drawn for x, _ in points[id(s)]]
    ys = [y for s in drawn for _, y in points[id(s)]] + [y for s in drawn for _, *two in bands[id(s)] for y in two]
    x_span = bounds(xs, x_log, 0.0)
    y_span = y_range or bounds(ys, y_log, 0.06)
    named = [s for s in drawn if s.mark != "faint"]

    def draw(variant: str, width: float) -> Html:
        wide = variant == "wide"
        plot = 250.0 if wide else 210.0
        y_ticks = (log_ticks if y_log else ticks)(*y_span, 6 if wide else 5)
        x_ticks = (log_ticks if x_log else ticks)(*x_span, 7 if wide else 4)
        left = max((text_width(tick_text(t)) for t in y_ticks), default=20.0) + 10
        direct = wide and len(named) > 1 and not keys_above
        labels = [(_cut(s.name), points[id(s)][-1][1]) for s in named]
        right = width - (max(text_width(name) for name, _ in labels) + 14 if direct else 14)
        key_rows, top = Html(""), 0.0
        if not direct and len(named) > 1:
            keys = [el("g", *_key(s, _dash(i)), class_=f"k{_tone(s, i)}") for i, s in enumerate(named)]
            key_rows, top = legend([_cut(s.name) for s in named], keys, width)
        top += 24 if y_label else 8
        bottom = top + plot
        at_x, at_y = Scale(*x_span, left, right, x_log), Scale(*y_span, bottom, top, y_log)
        parts: list[object] = [key_rows]
        if y_label:
            parts.append(text(0, top - 10, y_label, "t"))
        for t in y_ticks:
            parts += [line(left, at_y(t), right, at_y(t), "grid"), text(left - 8, at_y(t) + 4, tick_text(t), "t e")]
        parts.append(line(left, bottom, right, bottom, "axis"))
        for t in x_ticks:
            parts += [line(at_x(t), bottom, at_x(t), bottom + 4, "axis")]
            parts.append(text(at_x(t), bottom + 18, x_format(t), "t m"))
        if x_label:
            parts.append(text(right, bottom + 36, x_label, "t e"))
        tone = {id(s): _tone(s, i) for i, s in enumerate(named)}
        for s in drawn:
            index = named.index(s) if s in named else 0
            shape = _drawn(s, points[id(s)], bands[id(s)], _dash(index), at_x, at_y)
            parts.append(el("g", shape, class_=f"k{tone.get(id(s), _tone(s, 0))}"))
        if direct:
            places = spread([at_y(y) + 4 for _, y in labels], _ROW, top + 4, bottom + 4)
            for s, (name, _), y in zip(named, labels, places, strict=True):
                parts.append(el("g", text(right + 8, y, name, "name"), class_=f"k{tone[id(s)]}"))
        parts.append(_hover([(s.name, tone[id(s)], points[id(s)]) for s in named], at_x, at_y, wide, x_label, x_format))
        return svg(width, bottom + (42 if x_label else 24), variant, title, description, *parts)

    return both(draw)


def _key(s: Series, dash: str) -> list[Html]:
    """How a series looks, 16 wide."""
    if s.mark in _DOTS:
        return [el("circle", cx="8", cy="9", r="4", class_=_DOTS[s.mark])]
    area = el("rect", x="0", y="3", width="16", height="12", class_="band") if s.low else ""
    return [join([area]), line(0, 9, 16, 9, "line" + dash)]


def _drawn(
    s: Series,
    points: list[tuple[float, float]],
    bounded: list[tuple[float, float, float]],
    dash: str,
    at_x: Scale,
    at_y: Scale,
) -> Html:
    parts: list[Html] = []
    if s.mark in _DOTS:
        parts += [line(at_x(x), at_y(low), at_x(x), at_y(high), "whisker") for x, low, high in bounded if high > low]
    else:
        if bounded:
            edge = [(x, high) for x, _, high in bounded] + [(x, low) for x, low, _ in reversed(bounded)]
            parts.append(el("path", d=path(edge, at_x, at_y) + "Z", class_="band"))
        parts.append(el("path", d=path(points, at_x, at_y), class_="faint" if s.mark == "faint" else "line" + dash))
    if s.mark in ("both", *_DOTS) or (len(points) == 1 and s.mark == "line"):
        shape = _DOTS.get(s.mark, "dot")
        parts += [el("circle", cx=short(at_x(x)), cy=short(at_y(y)), r="4", class_=shape) for x, y in points]
    return join(parts)


def _hover(
    lines: list[tuple[str, int, list[tuple[float, float]]]],
    at_x: Scale,
    at_y: Scale,
    wide: bool,
    x_label: str,
    x_format: Format,
) -> Html:
    """Bands that show a rule and the values at their x while the pointer is over them."""
    placed = [(name, tone, sorted((at_x(x), x, y) for x, y in points)) for name, tone, points in lines]
    step = (at_x.end - at_x.start) / (48 if wide else 24)
    stops: list[tuple[float, float]] = []
    for at, x in sorted({(at, x) for _, _, points in placed for at, x, _ in points}):
        if not stops or at - stops[-1][0] >= step:
            stops.append((at, x))
    edges = [at_x.start, *((a + b) / 2 for (a, _), (b, _) in pairwise(stops)), at_x.end]
    top, bottom = at_y.end, at_y.start
    hits: list[object] = [el("title")]
    for (at, x), start, end in zip(stops, edges, edges[1:], strict=False):
        near = [(name, tone, _nearest(points, at)) for name, tone, points in placed]
        near = [(name, tone, q) for name, tone, q in near if abs(q[0] - at) <= step]
        near.sort(key=lambda item: -item[2][2])
        words = [f"{x_format(x)} {x_label}", *(f"{_cut(name)} {number(q[2])}" for name, _, q in near)]
        broad = max(map(text_width, words)) + 14
        box = at + 10 if at + 10 + broad <= max(at_x.end, 318) else max(at - 10 - broad, 0)
        tip: list[object] = [line(at, top, at, bottom, "axis")]
        tip += [
            el("g", el("circle", cx=short(q[0]), cy=short(at_y(q[2])), r="3.5", class_="dot"), class_=f"k{t}")
            for _, t, q in near
        ]
        tip.append(
            el(
                "rect",
                x=short(box),
                y=short(top),
                width=short(broad),
                height=len(words) * _ROW + 9,
                rx="3",
                class_="box",
            )
        )
        tip.append(text(box + 7, top + 15, words[0], "t"))
        for i, (word, (_, tone, _)) in enumerate(zip(words[1:], near, strict=True)):
            tip.append(el("g", text(box + 7, top + 30 + i * _ROW, word, "name"), class_=f"k{tone}"))
        band = el("rect", x=short(start), y=short(top), width=short(max(end - start, 0.1)), height=short(bottom - top))
        hits.append(el("g", band, el("g", *tip), class_="hit"))
    return el("g", *hits)


def _nearest(points: list[tuple[float, float, float]], at: float) -> tuple[float, float, float]:
    i = bisect_left(points, (at,))
    return min(points[max(i - 1, 0) : i + 1] or points[-1:], key=lambda q: abs(q[0] - at))


def _symbol(index: int, x: float, y: float) -> Html:
    """A mark that differs by shape as well as by colour: disc, ring, square, stroke, diamond."""
    kind = index % 5
    if kind == 0:
        mark = el("circle", cx=short(x), cy=short(y), r="5.5", class_="dot")
    elif kind == 1:
        mark = el("circle", cx=short(x), cy=short(y), r="4.2", class_="open")
    elif kind == 2:
        mark = el("rect", x=short(x - 3.8), y=short(y - 3.8), width="7.6", height="7.6", class_="open")
    elif kind == 3:
        mark = line(x, y - 7, x, y + 7, "tick")
    else:
        mark = el("path", d=f"M{short(x)} {short(y - 5.5)}l5.5 5.5-5.5 5.5-5.5-5.5Z", class_="open")
    return mark


def interval_chart(
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    title: str,
    description: str = "",
    x_range: tuple[float, float] | None = None,
    x_format: Format = percent,
) -> Html:
    """Estimates with intervals, a row each; the first name is the one that counts, the others stand beside it.

    Intervals are drawn for every point that has one. Marks differ by shape and colour.
    """
    values = [v for r in rows for p in r.points if p for v in p if v is not None and math.isfinite(v)]
    if not values:
        return el("p", f"{title}: nothing to draw yet.", class_="notice")
    span = x_range or bounds(values, False, 0.05)

    def draw(variant: str, width: float) -> Html:
        wide = variant == "wide"
        tones = [1, 2, 3, 6, 4]
        keys = [el("g", _symbol(i, 8, 9), class_=f"k{tones[i % 5]}") for i in range(len(names))]
        key_rows, top = legend(names, keys, width)
        left = min(max(text_width(r.label) for r in rows) + 16, 260) if wide else 8.0
        deep = 36.0 if wide else 54.0
        bottom = top + 8 + deep * len(rows)
        at = Scale(*span, left, width - 18, False)
        parts: list[object] = [key_rows]
        for t in ticks(*span, 6 if wide else 4):
            parts += [line(at(t), top, at(t), bottom, "grid"), text(at(t), bottom + 18, x_format(t), "t m")]
        for i, row in enumerate(rows):
            middle = top + 4 + deep * i + (deep / 2 if wide else 34)
            label = text(0, middle + 4, row.label) if wide else text(0, middle - 18, row.label)
            marks: list[Html] = []
            for j, point in reversed(list(enumerate(row.points))):
                if point is None or not math.isfinite(point.value):
                    continue
                y = middle - 6 if j == 0 else middle + 6
                mark = [_symbol(j, at(point.value), y)]
                if point.low is not None and point.high is not None:
                    mark.insert(0, line(at(point.low), y, at(point.high), y, "whisker"))
                marks.append(el("g", *mark, class_=f"k{tones[j % 5]}"))
            told = "; ".join(f"{n} {x_format(p.value)}" for n, p in zip(names, row.points, strict=False) if p)
            parts.append(el("g", el("title", f"{row.label}: {told}"), label, *marks))
        parts.append(line(left, bottom, width - 18, bottom, "axis"))
        return svg(width, bottom + 24, variant, title, description, *parts)

    return both(draw)


def bar_chart(bars: Sequence[Bar], *, title: str, description: str = "") -> Html:
    """Horizontal bars from zero, each with its own text; negative and non-finite values are drawn as zero. A long label
    is cut, and stands whole under the pointer."""
    if not bars:
        return el("p", f"{title}: nothing to draw yet.", class_="notice")
    lengths = [b.value if math.isfinite(b.value) and b.value > 0 else 0.0 for b in bars]
    most = max(lengths) or 1.0

    def draw(variant: str, width: float) -> Html:
        wide = variant == "wide"
        labels = [_cut(b.label, _LONGEST_BAR[0 if wide else 1]) for b in bars]
        left = min(max(map(text_width, labels)) + 14, 240) if wide else 0.0
        room = width - left - max(text_width(b.text) for b in bars) - 12
        deep = 26.0 if wide else 42.0
        parts: list[object] = []
        for i, (bar, label, length) in enumerate(zip(bars, labels, lengths, strict=True)):
            y = deep * i + (4 if wide else 20)
            long = max(length / most * room, 1)
            named = text(0, y + 13 if wide else y - 5, label)
            parts.append(named if label == bar.label else el("g", el("title", bar.label), named))
            shape = el("rect", x=short(left), y=short(y), width=short(long), height="16", rx="1", class_="bar")
            parts += [el("g", shape, class_="k1"), text(left + long + 8, y + 13, bar.text, "t")]
        return svg(width, deep * len(bars) + 4, variant, title, description, *parts)

    return both(draw)


def sparkline(values: Sequence[float], *, title: str) -> Html:
    """A word-sized line, for a table cell; empty for fewer than two finite values."""
    finite = [v for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return Html("")
    at_x = Scale(0, len(finite) - 1, 2, 94, False)
    at_y = Scale(*bounds(finite, False, 0.02), 18, 2, False)
    shape = el("path", d=path(list(enumerate(finite)), at_x, at_y), class_="line")
    return el(
        "svg", el("title", escape(title)), el("g", shape, class_="k1"), viewBox="0 0 96 20", role="img", class_="spark"
    )
