"""What runs were set to while they trained, learning rate and batch, against what a ladder's rungs were set to.

A learning rate that was halved, or that falls by another schedule, stands in the log long before it shows in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Schedules = Mapping[str, Sequence[Point]]
"""Quantity -> its curve: (share of the horizon, value)."""

RATE, BATCH = "learning rate", "batch"
KEPT = 50  # shares at which a rung's are kept
ROOM = 0.1  # of the highest value: what a departure must exceed, however well the rungs agree
_WIDEST = 0.4  # rungs that leave more room than this tell nothing, not even of a rate that was halved
_ERRORS = 3.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """What a run should be set to at the end of each bin, and by how much it may differ; both in the log's unit."""

    values: tuple[float, ...]
    room: tuple[float, ...]


def of_lines(lines: Iterable[Mapping[str, Any]], steps: float) -> dict[str, list[Point]]:
    """Learning rate, and tokens a step, out of the "train" lines of a log.jsonl."""
    found: dict[str, list[Point]] = {}
    before = (0.0, 0.0)
    for line in lines:
        at = (float(line["step"]), float(line["tokens"])) if "tokens" in line else None
        share = line["step"] / steps
        if line.get("lr") is not None:
            found.setdefault(RATE, []).append((share, float(line["lr"])))
        if at and at[0] > before[0]:
            found.setdefault(BATCH, []).append((share, (at[1] - before[1]) / (at[0] - before[0])))
            before = at
    return found


def of_rows(rows: Iterable[tuple[float, Mapping[str, Any]]], found: Mapping[str, str], steps: float) -> Schedules:
    """Learning rate out of (step, row) pairs of any log. found: field -> its column. What is no number is left out."""
    rates = []
    for step, row in rows:
        try:
            rates.append((step / steps, float(row[found["lr"]])))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
    return {RATE: rates} if rates else {}


def kept(schedules: Schedules) -> dict[str, list[Point]]:
    """The same at few shares and four digits, which is what a record needs."""
    shares = np.arange(1, KEPT + 1) / KEPT
    return {
        name: [
            (float(s), float(f"{v:.4g}")) for s, v in zip(shares, _at(points, shares), strict=True) if math.isfinite(v)
        ]
        for name, points in schedules.items()
        if points
    }


def expect(z: Floats, runs: Sequence[Schedules], ends: Floats) -> dict[str, Expected]:
    """What the rungs' own schedules ask of a run at z = 0.

    z: log10 of each rung's compute over the run's. The highest value of a schedule is carried along a power law of
    compute; its shape is the mean of the rungs'. The room grows with what the rungs differ among themselves; a quantity
    that not all rungs have, or on which they differ much, is left out.
    """
    found = {}
    for name in set.intersection(*(set(run) for run in runs)) if runs else ():
        values = np.array([_at(run[name], ends) for run in runs])
        peaks = values.max(1)
        if not (np.isfinite(values).all() and (peaks > 0).all()):
            continue
        line = np.stack([np.ones_like(z), z], 1)
        (peak, _), residual, *_ = np.linalg.lstsq(line, np.log(peaks), rcond=None)
        spread = math.sqrt(float(residual.sum()) / max(1, len(z) - 2))
        error = spread * math.sqrt(1 + np.linalg.pinv(line.T @ line)[0, 0])
        shapes = values / peaks[:, None]
        room = np.hypot(ROOM, _ERRORS * np.hypot(error, shapes.std(0, ddof=1)))
        if room.min() < _WIDEST:
            top = math.exp(float(peak))
            found[name] = Expected(tuple((top * shapes.mean(0)).tolist()), tuple((top * room).tolist()))
    return found


def departures(expected: Mapping[str, Expected], seen: Schedules, shares: Floats) -> dict[str, Floats]:
    """By quantity and share: how many times its room a run is away from what is expected; 0 where nothing is known."""
    found = {}
    for name, wanted in expected.items():
        if seen.get(name):
            away = (_at(seen[name], shares) - np.array(wanted.values)) / np.array(wanted.room)
            found[name] = np.nan_to_num(away)
    return found


def explain(name: str, value: float, wanted: float, share: float) -> str:
    """What to say of a quantity that departs."""
    times = f"{value / wanted:.2g} times" if wanted > 0 else "above"
    return (
        f"the {name} is {value:.4g} at {share:.0%} of the run, {times} the {wanted:.4g} that the rungs' own rule gives "
        f"there: another {name}, or another schedule of it, than the ladder was run with"
    )


def value_at(points: Sequence[Point], share: float) -> float:
    return float(_at(points, np.array([share]))[0])


def _at(points: Sequence[Point], shares: Floats) -> Floats:
    """The curve at these shares; nan outside of it, but for the little before its first point."""
    known = sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))
    if not known:
        return np.full(len(shares), np.nan)
    x, y = np.array(known).T
    return np.where((shares > x[-1] + 1e-9) | (shares < x[0] - 1 / KEPT), np.nan, np.interp(shares, x, y))
