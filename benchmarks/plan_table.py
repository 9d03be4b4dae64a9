"""The page of the plan beside what was published and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from foretell.forecast.cluster import Curve
from foretell.forecast.spread_page import duration_text
from foretell.pages import Series, compact, figure, line_chart, page, section, size, table

_UNITS = {
    "rate": "tokens/s a device",
    "mfu": "MFU",
    "device_hours": "device hours",
    "mwh": "MWh",
    "co2": "t CO₂",
    "flops": "FLOP",
}


def published_page(
    rows: Sequence[dict[str, Any]],
    curve: Curve,
    tried: Sequence[dict[str, Any]] = (),
    runs: Sequence[dict[str, Any]] = (),
) -> str:
    """rows: of `plan_published.table`. tried, runs: of this machine, with [measured, planned] of seconds and memory."""
    low, high = curve.range
    lead = (
        "The last column is of a curve that was fitted without the run's family, the others of the curve of all. There "
        "a positive error means that the plan takes longer than what was published. "
        f"Eight of ten runs took {low:.2f} to {high:.2f} times their planned time."
    )
    names = list(dict.fromkeys(row["device"] for row in rows))
    dots = [Series(device, *_points(rows, device), mark="dots") for device in names]
    values = [value for row in rows for value in row["rates"]]
    ends = [min(values), max(values)]
    chart = line_chart(
        [*dots, Series("equal", ends, ends)],
        title="Planned and published tokens a second and device",
        x_label="published tokens a second and device",
        y_label="planned tokens a second and device",
        x_log=True,
        y_log=True,
    )
    heads = ("Run", "Layout", "Figure", "Published", "Planned", "Error", "Left out")
    body: list[tuple[object, ...]] = []
    for row in rows:
        shape = row["layout"]
        spread = f"{shape['replicate']} x {shape['shard']} x {shape['tensor']}, {shape['checkpoint']}, {shape['rows']}"
        for i, (name, (said, planned)) in enumerate(row["figures"].items()):
            first = (row["run"], spread) if i == 0 else ("", "")
            error = f"{row['left_out']:+.1%}" if i == 0 else ""
            body.append((*first, _UNITS[name], _short(said), _short(planned), f"{planned / said - 1:+.1%}", error))
    note = "Layout: replicate x shard x tensor, checkpoint, rows; as published, or as the plan chooses."
    parts = [
        section("Beside published runs", figure(chart), table(heads, body, align="lllrrrr"), note=note),
    ]
    for title, told in (("Beside steps of this machine", tried), ("Beside finished runs of this machine", runs)):
        if told:
            lines = [
                (one["name"], *_pair(one["seconds"], duration_text), *_pair(one.get("memory"), size)) for one in told
            ]
            columns = ("Shape", "Measured", "Planned", "Error", "Peak", "Planned", "Error")
            parts.append(section(title, table(columns, lines, align="lrrrrrr")))
    return page("The plan beside what happened", parts, lead=lead)


def _points(rows: Sequence[dict[str, Any]], device: str) -> tuple[list[float], list[float]]:
    pairs = [row["rates"] for row in rows if row["device"] == device]
    return [said for said, _ in pairs], [planned for _, planned in pairs]


def _pair(pair: Sequence[float] | None, say: Callable[[float], str]) -> tuple[object, object, object]:
    if pair is None:
        return None, None, None
    measured, planned = pair
    return say(measured), say(planned), f"{planned / measured - 1:+.1%}"


def _short(value: float) -> str:
    return compact(value) if 1000 <= value < 1e18 else f"{value:.3g}"
