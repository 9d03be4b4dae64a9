"""A run's curves out of its log: its loss, and what it was set to, by share of its horizon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.errors import ForecastError
from foretell.forecast import schedules
from foretell.forecast.logs import canonical, columns, read_rows
from foretell.forecast.schedules import Point, Schedules
from foretell.train.log import read_log

CURVES = "curve unit"  # setting of a table whose curves are not in the unit of its losses
CURVE_UNIT = "nats per token"

Floats = npt.NDArray[np.float64]


def curves_of(log: Path, unit: str = CURVE_UNIT) -> tuple[list[Point], Schedules]:
    """The curve of a run, (share of the horizon, training loss), and its schedules, out of its log.jsonl.

    A line holds the mean since the one before it, so its place is the middle between them. unit: nats per token is less
    noisy than bits per byte, which vary with how much text the tokens of a batch stand for. No log is an empty curve.
    Raises ForecastError for one that is damaged.
    """
    lines = read_log(log)
    points, before = [], 0.0
    try:
        steps = next((line["steps"] for line in lines if line["event"] in ("start", "resume")), 1)
        lines = [line for line in lines if line["event"] == "train"]
        for line in lines:
            if line["step"] / steps > before:
                middle, before = (before + line["step"] / steps) / 2, line["step"] / steps
                if (loss := logged(line, unit)) is not None:
                    points.append((middle, loss))
        return points, schedules.of_lines(lines, steps)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ForecastError(f"{log} is no log of a training run: {error!r} in it.") from error


def logged(line: Mapping[str, Any], unit: str) -> float | None:
    """The loss of a line of log.jsonl; one that is not finite stands there as its name."""
    value = line["bits_per_byte" if unit == "bits per byte" else "loss"]
    return None if value is None else float(value)


def read_live(
    path: str | Path,
    steps: float,
    unit: str = CURVE_UNIT,
    named: Mapping[str, str] | None = None,
    like: str | None = None,
) -> tuple[list[Point], Schedules]:
    """The curve so far of a run of `steps` steps, and its schedules, from a log in any form that a table may have.

    unit: which loss is read from the log.jsonl of a run of Foretell, which holds several. named: field → column, as of
    `table.read_table`. like: the column that the rungs' curves were read from. A log without a row yet is an empty
    curve, and a last line that is still written is left out.
    Raises ForecastError where the log has no step or loss, or not the rungs' own loss and none is named, or goes beyond
    the last step.
    """
    rows = read_rows(Path(path), growing=True)
    if any(row.get("event") == "train" for _, row in rows):
        return curves_of(Path(path), unit)
    if not rows:
        return [], {}
    names = {canonical(name): name for _, row in rows for name in row}
    same = {"loss": names[canonical(like)]} if like and canonical(like) in names else {}
    found = columns(rows, same | dict(named or {}))
    if not {"step", "loss"} <= found.keys():
        raise ForecastError(
            f"{path} needs the columns step and loss; its columns are {', '.join(names.values())}. Rename them, or "
            "say which they are (--column FIELD=COLUMN)."
        )
    if like and not same and "loss" not in (named or {}):
        raise ForecastError(
            f"The rungs' curves are of {like}, which {path} does not have; its columns are "
            f"{', '.join(names.values())}. Say which one is the same loss (--column loss=COLUMN)."
        )
    points, stepped = [], []
    for where, row in rows:
        try:
            if found["step"] in row:
                stepped.append((float(row[found["step"]]), row))
            if found["step"] in row and found["loss"] in row:
                points.append((float(row[found["step"]]) / steps, float(row[found["loss"]])))
        except (TypeError, ValueError) as error:
            raise ForecastError(f"{path}, {where}: step and loss must be numbers ({error}). Mend that row.") from error
    if points and max(points)[0] > 1 + 1e-9:
        raise ForecastError(f"{path} goes to step {max(points)[0] * steps:g}, beyond the {steps:g} of the run.")
    return points, schedules.of_rows(stepped, found, steps)


def binned(points: Sequence[Point], ends: Floats, width: float) -> Floats:
    """Mean over each bin (end − width, end] of the curve through the points; nan where they do not reach across it.

    Between points the loss is a line in the logarithm of the share, nearly what it is in training, so that a curve
    gives the same means however often it was logged.
    """
    kept = sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))
    if len(kept) < 2:
        return np.full(len(ends), np.nan)
    x, y = np.array(kept).T
    starts = ends - width
    at = np.union1d(x, (starts[:, None] + width * np.arange(5) / 4).ravel())
    values = np.interp(np.log(at + width / 8), np.log(x + width / 8), y)
    area = np.concatenate([[0.0], np.cumsum(np.diff(at) * (values[1:] + values[:-1]) / 2)])
    mean = (np.interp(ends, at, area) - np.interp(starts, at, area)) / width
    return np.where((starts >= x[0] - 1e-9) & (ends <= x[-1] + 1e-9), mean, np.nan)
