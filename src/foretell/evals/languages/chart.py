"""The report's figure: languages as horizontal bars with intervals, published figures beside them in another tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from foretell.pages import Html, el
from foretell.pages.axes import Scale, both, legend, line, short, svg, text, text_width, ticks
from foretell.pages.markup import percent

_DEEP, _DEEP_NARROW, _THICK = 24.0, 40.0, 14.0
_OURS, _OTHERS, _MARKED = "k1", "k6", "k2"  # tones of the stylesheet


class Row(NamedTuple):
    """A bar. low, high: of its interval, where it has one. published: drawn as others' figure. mark: of another model
    in the same language, drawn as a stroke."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    published: bool = False
    mark: float | None = None


def languages_chart(
    rows: Sequence[Row], *, model: str, others: str, mark: str = "", title: str, description: str
) -> Html:
    """Bars over 0 to 100 %. model: whose the bars are; others: what the grey ones are; mark: what the strokes are of,
    where rows have them."""

    def draw(variant: str, width: float) -> Html:
        wide = variant == "wide"
        shown = model if len(model) <= 44 else f"…{model[-43:]}"
        names = [shown, *([others] if any(row.published for row in rows) else [])]
        keys = [el("g", _swatch(i == 1), class_=(_OURS, _OTHERS)[i]) for i in range(len(names))]
        if any(row.mark is not None for row in rows):
            names.append(mark)
            keys.append(el("g", line(8, 2, 8, 16, "tick"), class_=_MARKED))
        key_rows, top = legend(names, keys, width)
        left = min(max(text_width(row.label) for row in rows) + 22, 200) if wide else 0.0
        deep = _DEEP if wide else _DEEP_NARROW
        bottom = top + 6 + deep * len(rows)
        at = Scale(0.0, 1.0, left, width - 58, False)
        parts: list[object] = [key_rows]
        for tick in ticks(0, 1, 5 if wide else 4):
            parts += [line(at(tick), top, at(tick), bottom, "grid")]
            parts.append(text(at(tick), bottom + 18, percent(tick, 0), "t m" if tick or wide else "t"))
        for i, row in enumerate(rows):
            parts.append(_bar(row, i, top, deep, at, wide))
        parts.append(line(left, top, left, bottom, "axis"))
        return svg(width, bottom + 24, variant, title, description, *parts)

    return both(draw)


def _bar(row: Row, i: int, top: float, deep: float, at: Scale, wide: bool) -> Html:
    y = top + 4 + deep * i + (0 if wide else 17)
    middle = y + _THICK / 2
    long = max(at(row.value) - at.start, 1)
    shape = el("rect", x=short(at.start), y=short(y), width=short(long), height=short(_THICK), rx="1",
               class_="band" if row.published else "bar")  # fmt: skip
    edge = [line(at(row.value), y, at(row.value), y + _THICK, "tick")] if row.published else []
    ends = [at(row.value)]
    drawn = [el("g", shape, *edge, class_=_OTHERS if row.published else _OURS)]
    told = percent(row.value)
    if row.low is not None and row.high is not None:
        drawn.append(line(at(row.low), middle, at(row.high), middle, "whisker"))
        drawn += [line(at(x), middle - 3.5, at(x), middle + 3.5, "whisker") for x in (row.low, row.high)]
        ends.append(at(row.high))
        told += f" ({percent(row.low)} to {percent(row.high)})"
    if row.mark is not None:
        drawn.append(el("g", line(at(row.mark), y - 3, at(row.mark), y + _THICK + 3, "tick"), class_=_MARKED))
        if abs(at(row.mark) - max(ends)) < 50:
            ends.append(at(row.mark))
        told += f"; published {percent(row.mark)}"
    label = text(at.start - 10, y + 11, row.label, "e") if wide else text(0, y - 4, row.label)
    value = text(max(ends) + 7, y + 11, percent(row.value), "t")
    return el("g", el("title", f"{row.label}: {told}"), label, *drawn, value)


def _swatch(published: bool) -> Html:
    return el("rect", x="0", y="3", width="16", height="12", class_="band" if published else "bar")
