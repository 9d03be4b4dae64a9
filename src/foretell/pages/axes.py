"""The parts that charts share: scales, round ticks, text widths, labels that do not overlap."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from foretell.pages.markup import Html, compact, el, join

_LETTER = 6.6
_CAPITAL = 2.0  # by which one is wider
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


class Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        bounded = min(max(value, self.low), self.high)
        a, b, v = (math.log(x) if self.log else x for x in (self.low, self.high, bounded))
        return self.start + (v - a) / (b - a) * (self.end - self.start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten) inside [low, high]."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten inside [low, high], thinned to `count`; 1-2-5 steps where few powers fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [float(f"{10.0**p * f:.12g}") for p in range(first, last + 1) for f in factors]
        found = [t for t in found if low * 0.999 <= t <= high * 1.001]
        if len(found) >= 4:
            break
    return found[:: max(1, math.ceil(len(found) / max(count, 1)))]


def tick_text(value: float) -> str:
    """A tick's number without needless zeros: 0.5, 6, 2,500, 400 k."""
    return compact(value) if abs(value) >= 100_000 else f"{value:,.6g}".replace("-", "−")


def power_text(value: float) -> str:
    """A number that may span many decades, to two digits: 0.01, 1, 250, 2·10⁻⁴, 10¹⁸."""
    if not (value > 0 and math.isfinite(value)):
        return tick_text(value)
    digits, _, power = f"{value:.1e}".partition("e")
    if -3 < int(power) < 3:
        return f"{float(f'{value:.2g}'):g}"
    digits, raised = digits.removesuffix(".0"), str(int(power)).translate(_RAISED)
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def text_width(text: str) -> float:
    return len(text) * _LETTER + sum(map(str.isupper, text)) * _CAPITAL


def short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, class_: str | None = None) -> Html:
    return el("text", content, x=short(x), y=short(y), class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("line", x1=short(x1), y1=short(y1), x2=short(x2), y2=short(y2), class_=class_)


def svg(width: float, height: float, variant: str, title: str, description: str, *content: object) -> Html:
    body = join(content)
    key = "c" + hashlib.sha256(f"{title}|{description}|{variant}|{body}".encode("utf-8", "replace")).hexdigest()[:10]
    return el(
        "svg",
        el("title", title, id=key + "t"),
        el("desc", description, id=key + "d"),
        body,
        viewBox=f"0 0 {short(width)} {short(height)}",
        role="img",
        aria_labelledby=f"{key}t {key}d",
        class_=variant,
    )


def both(draw: Callable[[str, float], Html]) -> Html:
    return el("div", draw("wide", 720), draw("narrow", 320), class_="chart")


def bounds(values: list[float], log: bool, pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        ratio = (high / low) ** pad if high > low else 2.0
        return low / ratio, high * ratio
    room = (high - low) * pad if high > low else abs(high) * 0.1 or 1.0
    return (0.0 if low >= 0 and low - room < 0 else low - room), high + room


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move label positions apart to at least `gap`, keeping their order and, if it can be, the range."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    at = low - gap
    for i in order:
        at = max(wanted[i], at + gap)
        placed[i] = at
    at = high + gap
    for i in reversed(order):
        at = min(placed[i], at - gap)
        placed[i] = at
    return placed


def legend(names: Sequence[str], keys: Sequence[Html], width: float) -> tuple[Html, float]:
    """Keys and names in wrapped rows; the height they take."""
    parts: list[Html] = []
    x, y = 0.0, 0.0
    for name, key in zip(names, keys, strict=True):
        if x and x + 24 + text_width(name) > width:
            x, y = 0.0, y + 18
        parts += [el("g", key, transform=f"translate({short(x)} {short(y)})"), text(x + 22, y + 13, name)]
        x += 22 + text_width(name) + 18
    return join(parts), y + 26


def path(points: Sequence[tuple[float, float]], at_x: Scale, at_y: Scale) -> str:
    return "M" + "L".join(f"{short(at_x(x))} {short(at_y(y))}" for x, y in points)
