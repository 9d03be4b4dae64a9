"""The coordinate check as a page: sizes of activations and of their updates over width and depth, per tower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foretell.files import write_text
from foretell.pages import Html, Series, el, figure, line_chart, number, page, section, table

if TYPE_CHECKING:
    from foretell.model.coordcheck import Point

_MEASURES = {"change": "Size of the update", "size": "Size of the activation"}


def write_coordcheck(points: Sequence[Point], slopes: dict[tuple[str, str], float], path: Path) -> None:
    """Write the page of `model.coordcheck.coordcheck` points and their `slopes`."""
    sections = [
        section(f"Over {axis}", *(figure(_chart([p for p in points if p.axis == axis], m)) for m in _MEASURES))
        for axis in _order(p.axis for p in points)
    ]
    rows = [[axis, probe, number(slope)] for (axis, probe), slope in slopes.items()]
    note = "Exponent of the update's growth with scale at the last step. Near 0 is right."
    summary = section("Growth", el("p", note, class_="note"), table(["Axis", "Activation", "Exponent"], rows))
    lead = "Root mean squares after a few optimizer steps on one batch. Flat lines mean that settings carry over."
    write_text(path, page("Coordinate check", [summary, *sections], lead=lead))


def _chart(points: Sequence[Point], measure: str) -> Html:
    last = max(point.step for point in points)
    series = []
    for probe in _order(p.probe for p in points):
        chosen = [p for p in points if p.probe == probe and p.step == last]
        series.append(Series(probe, [p.scale for p in chosen], [getattr(p, measure) for p in chosen]))
    title = f"{_MEASURES[measure]} at step {last}"
    return line_chart(series, title=title, x_label="times the base shape", y_label=title, x_log=True, y_log=True)


def _order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
