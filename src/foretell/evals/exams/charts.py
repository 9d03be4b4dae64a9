"""From points to what a testing body reports: raw → scaled by a score chart, scaled → percentile by a table."""

from __future__ import annotations

import bisect
import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import EvalError


@dataclass(frozen=True)
class ScoreChart:
    """Scaled score of every whole number of raw points from `low` on: `scaled[raw − low]`."""

    low: int
    scaled: tuple[float, ...]

    @property
    def high(self) -> int:
        return self.low + len(self.scaled) - 1

    def __call__(self, raw: int) -> float:
        """The scaled score of raw points; what lies outside the chart counts as its end."""
        return self.scaled[min(max(raw, self.low), self.high) - self.low]


@dataclass(frozen=True)
class PercentileTable:
    """Percentiles by score, as testing bodies print them: from `starts[i]` up to the next start it is `ranges[i]`.

    A range is (lowest, highest) percent of takers; a single figure has both equal.
    """

    starts: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]

    def __call__(self, score: float) -> tuple[float, float]:
        """The range that a score stands in. What is reported is its lower bound, as in the GPT-4 report."""
        return self.ranges[max(bisect.bisect_right(self.starts, score) - 1, 0)]


@dataclass(frozen=True)
class Row:
    """A row of a chart or table before it is checked. where: file and line or field, for messages."""

    low: float
    high: float
    value: tuple[float, float]
    where: str


def linear_chart(low: int, high: int, bottom: float, top: float, step: float) -> ScoreChart:
    """Scaled scores from `bottom` (at raw `low`) to `top` (at `high`), rounded to multiples of `step` half up."""
    span = max(high - low, 1)
    exact = [bottom + (top - bottom) * i / span for i in range(high - low + 1)]
    return ScoreChart(low, tuple(math.floor(value / step + 0.5 + 1e-9) * step for value in exact))


def make_chart(rows: Sequence[Row], low: int, high: int) -> ScoreChart:
    """A chart of all whole raw points from `low` to `high`.

    Raises EvalError, naming the row, for one that is not of whole points, twice there, missing, or scales more points
    to less.
    """
    found: dict[int, tuple[float, str]] = {}
    for row in rows:
        if row.low != int(row.low) or row.high != int(row.high) or row.low > row.high:
            raise EvalError(f"{row.where}: raw is {_span(row)}; expected whole points, or a span such as 3-5.")
        for raw in range(int(row.low), int(row.high) + 1):
            if raw in found:
                raise EvalError(f"{row.where}: raw {raw} stands in {found[raw][1]}, too. Give each one scaled score.")
            found[raw] = row.value[0], row.where
    if outside := next((raw for raw in sorted(found) if not low <= raw <= high), None):
        raise EvalError(
            f"{found[outside][1]}: raw {outside} cannot be reached; the points go from {low} to {high}. Mend "
            "the chart, or the sections' points."
        )
    if missing := [raw for raw in range(low, high + 1) if raw not in found]:
        where = rows[0].where.split(",")[0] if rows else "The chart"
        raise EvalError(
            f"{where}: the score chart has no raw {missing[0]}{_more(missing)}; expected every point from {low} to "
            f"{high}. Add it."
        )
    for raw in range(low + 1, high + 1):
        if found[raw][0] < found[raw - 1][0]:
            raise EvalError(
                f"{found[raw][1]}: raw {raw} gives {found[raw][0]:g}, less than the {found[raw - 1][0]:g} of raw "
                f"{raw - 1}. A chart never goes down; mend it."
            )
    return ScoreChart(low, tuple(found[raw][0] for raw in range(low, high + 1)))


def make_percentiles(rows: Sequence[Row], scores: Sequence[float]) -> PercentileTable:
    """A table that every score which can be reached stands in once.

    scores: those that can be. Raises EvalError, naming the row, for a gap, an overlap, percentiles that are none, and
    percentiles that go down where scores go up.
    """
    ordered = sorted(rows, key=lambda row: row.low)
    for row in ordered:
        low, high = row.value
        if not (0 <= low <= high <= 100):
            raise EvalError(f"{row.where}: percentile is {low:g} to {high:g}; expected 0 to 100, the lower one first.")
        if row.low > row.high:
            raise EvalError(f"{row.where}: score is {_span(row)}; expected the lower one first.")
    for before, row in itertools.pairwise(ordered):
        if row.low <= before.high:
            raise EvalError(f"{row.where}: score {row.low:g} stands in {before.where}, too. Give each one percentile.")
        for i, what in enumerate(("lower", "upper")):
            if row.value[i] < before.value[i]:
                raise EvalError(
                    f"{row.where}: the {what} percentile of {_span(row)} is {row.value[i]:g}, less than the "
                    f"{before.value[i]:g} of {_span(before)}. Percentiles never go down; mend the table."
                )
    covered = [score for score in scores if any(row.low <= score <= row.high for row in ordered)]
    if missing := sorted(set(scores) - set(covered)):
        where = ordered[0].where.split(",")[0] if ordered else "The table"
        raise EvalError(
            f"{where}: the percentile table has a gap at {missing[0]:g}{_more(missing)}; expected every score that can "
            "be reached. Add it."
        )
    return PercentileTable(tuple(row.low for row in ordered), tuple(row.value for row in ordered))


def read_rows(raw: Any, where: str, base: Path, key: str, value: str) -> list[Row]:
    """Rows of a chart or table: a CSV file's name, or rows as they stand in YAML.

    key, value: names of the two columns, such as raw and scaled. Cells are numbers, spans such as 88-89, or "<5" and
    ">99" for a percentile. Raises EvalError naming file and line, or field and row.
    """
    if isinstance(raw, str):
        path = base / raw
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                table = csv.DictReader(stream)
                if lacking := [name for name in (key, value) if name not in (table.fieldnames or ())]:
                    told = ", ".join(table.fieldnames or ()) or "nothing"
                    raise EvalError(f"{path}, line 1: there is no column {lacking[0]}; found {told}. Name it so.")
                return [_row(row, f"{path}, line {table.line_num}", key, value) for row in table]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise EvalError(f"{where}: {path} cannot be read ({why}). Check the path.") from error
    if isinstance(raw, Mapping):
        return [_row({key: k, value: v}, f"{where}, {key} {k}", key, value) for k, v in raw.items()]
    raise EvalError(f"{where} is a {type(raw).__name__}; expected the name of a CSV file, or rows of {key}: {value}.")


def _row(row: Mapping[str, Any], where: str, key: str, value: str) -> Row:
    low, high = _cell(row[key], where, key)
    return Row(low, high, _cell(row[value], where, value), where)


def _cell(cell: Any, where: str, name: str) -> tuple[float, float]:
    text = str(cell).strip().replace("–", "-").replace("≤", "<").rstrip("%").strip()
    try:
        if name == "percentile" and text[:1] in ("<", ">"):
            bound = float(text[1:])
            span = (0.0, bound) if text[0] == "<" else (bound, 100.0)
        else:
            first, dash, last = text[1:].partition("-")  # a minus sign is no dash
            span = (float(text[:1] + first), float(last if dash else text))
    except ValueError as error:
        raise EvalError(f"{where}: {name} is {cell!r}; expected a number, or a span such as 88-89.") from error
    if not all(map(math.isfinite, span)):
        raise EvalError(f"{where}: {name} is {cell!r}; expected a finite number.")
    return span


def _span(row: Row) -> str:
    return f"{row.low:g}" if row.low == row.high else f"{row.low:g}-{row.high:g}"


def _more(missing: Sequence[float]) -> str:
    return f" and {len(missing) - 1} more" if len(missing) > 1 else ""
