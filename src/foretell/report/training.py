"""How training went: loss, loss by kind, speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from foretell.pages import (
    Html,
    Series,
    details,
    el,
    figure,
    line_chart,
    notice,
    number,
    percent,
    section,
    sparkline,
    table,
)
from foretell.report.record import Json, RunRecord, mapping, num

_MOST_POINTS = 300
_MOST_KINDS = 8
_MOST_ROWS = 12
T = TypeVar("T")


def held_out(run: RunRecord) -> tuple[float | None, str]:
    """Held-out bits per byte and where the number comes from: the examination, else the last evaluation."""
    text = mapping((run.examine or {}).get("text"))
    for key, what in (("real_bits_per_byte", "on real text it never saw"), ("bits_per_byte", "on text it never saw")):
        if (examined := num(text, key)) is not None:
            return examined, what
    last = next((found for e in reversed(run.evals) if (found := num(e, "bits_per_byte")) is not None), None)
    return last, "last evaluation in training" if last is not None else "no evaluation yet"


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving mean, without lag: wider as the run goes on, at most a fortieth of it."""
    sums = [0.0, *accumulate(values)]
    out = []
    for i in range(len(values)):
        half = min(i // 6, len(values) // 80)
        low, high = max(i - half, 0), min(i + half + 1, len(values))
        out.append((sums[high] - sums[low]) / (high - low))
    return out


def thin(points: list[T], most: int = _MOST_POINTS) -> list[T]:
    """At most `most` points, evenly chosen, the last one always among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _axis(lines: list[Json]) -> str:
    return "tokens" if lines and all(num(line, "tokens") is not None for line in lines) else "step"


def _points(lines: list[Json], axis: str, key: str, inner: str | None = None) -> list[tuple[float, float]]:
    found = []
    for line in lines:
        x, y = num(line, axis), num(mapping(line.get(inner)) if inner else line, key)
        if x is not None and y is not None and x > 0:
            found.append((x, y))
    return found


def _series(name: str, points: list[tuple[float, float]], mark: str = "line", colour: int | None = None) -> Series:
    kept = thin(points)
    return Series(name, [x for x, _ in kept], [y for _, y in kept], mark=mark, colour=colour)


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return list(zip((x for x, _ in points), smooth([y for _, y in points]), strict=True))


def _wide_range(points: list[tuple[float, float]]) -> bool:
    return len(points) > 1 and points[-1][0] >= 20 * points[0][0]


def loss_section(run: RunRecord, title: str = "Loss") -> Html:
    """Loss over training, smoothed, beside held-out loss; then by kind."""
    if not run.train and not run.evals:
        return section(title, notice(f"Missing: {'pre-training' if title == 'Loss' else 'it'} has not logged a step."))
    axis = _axis(run.train + run.evals)
    raw, tested = _points(run.train, axis, "loss"), _points(run.evals, axis, "loss")
    series = [
        _series("raw", raw, "faint", 0),
        _series("training", _smoothed(raw), colour=0),
        _series("held-out", tested, "both", 1),
    ]
    told = f"Steps logged: {len(run.train):,}; evaluations: {len(run.evals):,}."
    chart = line_chart(
        series,
        title="Training and held-out loss",
        description="Loss in nats a token. " + told,
        x_label="tokens trained on" if axis == "tokens" else "steps",
        y_label="nats per token",
        x_log=_wide_range(raw or tested),
    )
    drawn = "smoothed (thin line: every logged step)" if len(raw) >= 80 else "at every logged step"
    caption = f"Training loss, {drawn}, beside the loss on held-out documents. {told}"
    kinds = {kind for line in run.train for kind in mapping(line.get("loss_by_kind"))}
    by_kind = [] if title != "Loss" and len(kinds) < 2 else _by_kind(run, axis)
    return section(title, figure(chart, caption), *by_kind)


def _by_kind(run: RunRecord, axis: str) -> list[object]:
    kinds = list(dict.fromkeys(k for line in run.train for k in mapping(line.get("loss_by_kind"))))
    last = next((mapping(e.get("by_kind")) for e in reversed(run.evals) if mapping(e.get("by_kind"))), {})
    examined = mapping(mapping((run.examine or {}).get("text")).get("by_kind"))
    kinds += [k for k in {**last, **examined} if k not in kinds]
    if not kinds:
        return [notice("Loss by kind of document was not logged.")]
    curves = {k: _smoothed(_points(run.train, axis, k, "loss_by_kind")) for k in kinds}
    drawn = _chosen(run, curves)
    parts: list[object] = [el("h3", "Loss by kind of document")]
    if drawn:
        longest = max((curves[k] for k in drawn), key=len)
        chart = line_chart(
            [_series(k, curves[k]) for k in drawn],
            title="Training loss by kind of document",
            description=f"Smoothed loss in nats a token for {len(drawn)} of {len(kinds)} kinds.",
            x_label="tokens trained on" if axis == "tokens" else "steps",
            y_label="nats per token",
            x_log=_wide_range(longest),
        )
        note = f"The {len(drawn)} kinds of {len(kinds)} with most to learn; the table has all."
        parts.append(figure(chart, note if len(drawn) < len(kinds) else None))
    rows = []
    for kind in sorted(kinds):
        tested = mapping(examined.get(kind)) or mapping(last.get(kind))
        curve = [y for _, y in thin(curves[kind], 60)]
        spark = sparkline(curve, title=f"training loss of {kind}") if len(curve) > 1 else None
        rows.append(
            [
                kind,
                _or_none(num(tested, "bits_per_byte")),
                _or_none(num(tested, "loss")),
                number(curve[-1]) if curve else None,
                spark,
                num(tested, "tokens"),
            ]
        )
    head = ["Kind", "Held-out, bits/byte", "Held-out, nats/token", "Training, nats/token", "Trend", "Held-out tokens"]
    grid = table(head, rows, align="lrrrlr")
    return [*parts, grid if len(rows) <= _MOST_ROWS else details(f"All {len(rows)} kinds", grid)]


def _chosen(run: RunRecord, curves: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Kinds to draw: those met most of the time, with the most learned tokens, the highest loss first."""
    packed = run.metrics("pack")
    learned = mapping((mapping(packed.get("train")) or packed).get("by_kind"))
    most = max(map(len, curves.values()))
    full = [k for k, curve in curves.items() if curve and 3 * len(curve) >= 2 * most]
    full.sort(key=lambda k: -(num(mapping(learned.get(k)), "learned_tokens") or 0))
    return sorted(full[:_MOST_KINDS], key=lambda k: -curves[k][-1][1])


def _or_none(value: float | None) -> str | None:
    return None if value is None else number(value)


def speed_section(run: RunRecord) -> Html:
    """Tokens a second over the run, and the share of the machine's matmul rate."""
    axis = _axis(run.train)
    speed = _points(run.train, axis, "tokens_per_s")
    if not speed:
        return section("Speed", notice("Missing: no training speed was logged."))
    shares = [s for line in run.train if (s := num(line, "matmul_share")) is not None]
    middle = statistics.median(y for _, y in speed)
    text = f"Median {number(round(middle))} tokens a second"
    text += f", {percent(statistics.median(shares))} of the measured matrix-multiply rate." if shares else "."
    chart = line_chart(
        [_series("raw", speed, "faint", 0), _series("tokens/s", _smoothed(speed), colour=0)],
        title="Training speed",
        description=text,
        x_label="tokens trained on" if axis == "tokens" else "steps",
        y_label="tokens per second",
        y_range=(0, max(y for _, y in speed) * 1.08 or 1.0),
    )
    return section("Speed", figure(chart, text))
