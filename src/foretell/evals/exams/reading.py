"""Exams from their files: YAML with sections, JSON lines with questions. Every mistake is named with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from foretell.errors import EvalError
from foretell.evals.exams.adapters import adapted
from foretell.evals.exams.charts import (
    PercentileTable,
    ScoreChart,
    linear_chart,
    make_chart,
    make_percentiles,
    read_rows,
)
from foretell.evals.exams.checks import check_item, check_shot, unbalanced
from foretell.evals.exams.definition import Exam, ExamFile, Item, Section, SectionFile, Source, Split, Table, TotalFile
from foretell.evals.exams.takers import population_table
from foretell.evals.located import line_of, read_located
from foretell.evals.samples import placed
from foretell.files import digest

OWN = Path(__file__).parent / "own"
M = TypeVar("M", bound=BaseModel)


def exam_files(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Exams by name: those that come with Foretell, and those of further folders, which go before.

    Raises EvalError for a folder that is not there, and for two files of further folders with one name.
    """
    found = {path.stem: path for path in sorted(OWN.glob("*.yaml"))}
    given: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise EvalError(f"There is no folder {folder} of exams. Give one that holds NAME.yaml.")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in given:
                raise EvalError(f"{path.stem} is an exam in {given[path.stem]} and in {path}. Rename or remove one.")
            given[path.stem] = path
    return found | given


def read_spec(path: Path) -> tuple[ExamFile, Mapping[tuple[Any, ...], int]]:
    """An exam's YAML, and the line of each of its fields.

    Raises EvalError naming file, line and field.
    """
    raw, lines = read_located(path, "exam")
    spec = _checked(ExamFile, raw, lambda at: f"{path}, line {line_of(lines, at)}")
    if spec.exam != path.stem:
        raise EvalError(f"{path}, line {line_of(lines, ('exam',))}: exam is {spec.exam!r}; name it as its file.")
    return spec, lines


def load_exam(path: Path, split: Split) -> Exam:
    """An exam of one split: nonholdout to try settings on, holdout for the score.

    Raises EvalError, naming file with line or field, for: a field that is unknown, missing or of another type; a
    question without its gold; a rubric without points; an image that is not there; a chart or percentile table with a
    gap, or that goes down; a total that cannot be reached. Options that give the key away are `warnings`.
    """
    spec, lines = read_spec(path)

    def at(*field: Any) -> str:
        return f"{path}, line {line_of(lines, field)}"

    names = [section.name for section in spec.sections]
    if twice := next((i for i, name in enumerate(names) if name in names[:i]), None):
        raise EvalError(f"{at('sections', twice, 'name')}: there are two sections {names[twice]}. Rename one.")
    sections = tuple(
        _section(section, split, path, at("sections", i), f"{at('sections', i, 'items')}: sections.{i}.items")
        for i, section in enumerate(spec.sections)
    )
    low, high = (_round(spec.total, _total_points(sections, which)) for which in ("lowest", "highest"))
    where = f"{at('total')}: total"
    if spec.total.of == "scaled":
        if bare := next((s for s in sections if s.chart is None), None):
            raise EvalError(f"{where}.of is scaled, but the section {bare.name} has no chart. Add one, or take raw.")
        reached = math.fsum(section.chart.scaled[-1] for section in sections if section.chart)
        least = math.fsum(section.chart.scaled[0] for section in sections if section.chart)
        chart, scores = None, [least + i for i in range(int(reached - least) + 1)]
        if spec.total.chart is not None:
            raise EvalError(f"{where}.chart scales raw points, but total.of is scaled. Take out one of them.")
    else:
        chart = _chart(spec.total.chart, f"{where}.chart", path.parent, low, high)
        scores = sorted(set(chart.scaled)) if chart else [float(i) for i in range(low, high + 1)]
        reached = chart.scaled[-1] if chart else _total_points(sections, "highest")
    if abs(reached - spec.total.out_of) > 1e-6:
        raise EvalError(
            f"{at('total', 'out_of')}: total.out_of is {spec.total.out_of:g}, but {split} questions and charts allow "
            f"{reached:g} at best: the total cannot be reached. Mend points, weights or out_of."
        )
    table = _percentiles(spec.total.percentiles, f"{where}.percentiles", path.parent, scores, sections, chart)
    told = [note for section in sections for note in unbalanced(section)]
    seen = digest([spec.model_dump(mode="json"), [[i.model_dump(mode="json") for i in (*s.items, *s.shots)]
                                                  for s in sections]])  # fmt: skip
    return Exam(spec, split, sections, seen, str(path), chart, table, tuple(told))


def read_items(source: Source, base: Path, where: str, split: Split | None = None) -> list[tuple[Item, str]]:
    """Questions, each with its place. split: None for worked questions.

    Raises EvalError naming file, line and field.
    """
    if isinstance(source, str):
        raw = placed(base / source, where)
        if not raw:
            raise EvalError(f"{where}: {base / source} is empty. Give one question a line.")
    else:
        raw = [(row, f"{source.get('from')}, {row.get('id', i + 1)}") for i, row in enumerate(adapted(source, where))]
    return [(_checked(Item, row, lambda at, place=place: place), place) for row, place in raw]


def _section(spec: SectionFile, split: Split, path: Path, where: str, field: str) -> Section:
    if split not in spec.items:
        raise EvalError(f"{field}: the section {spec.name} has no {split} questions. Add them, or run the other split.")
    if spec.kind == "essay":
        steps = sorted(spec.scale)
        if len(steps) < 2 or steps != list(range(steps[0], steps[0] + len(steps))) or steps[0] < 0:
            raise EvalError(
                f"{where}: scale is {steps}; an essay's scores are whole numbers without a gap, such as 0 to 6."
            )
    items = read_items(spec.items[split], path.parent, f"{field}.{split}")
    shots = read_items(spec.shots, path.parent, f"{where}: shots") if spec.shots is not None else []
    if spec.num_shots is not None and spec.num_shots > len(shots):
        raise EvalError(f"{where}: num_shots is {spec.num_shots}, but shots has {len(shots)} questions. Add some.")
    shots = shots[: spec.num_shots]
    asked = {item.question + item.passage + "".join(item.options) for item, _ in items}
    seen: dict[str, str] = {}
    for item, place in items:
        check_item(spec, item, place, path.parent)
        if item.id is not None and item.id in seen:
            raise EvalError(f"{place}: id {item.id!r} stands in {seen[item.id]}, too. Give each question its own.")
        seen[item.id or ""] = place
    for item, place in shots:
        check_shot(spec, item, place)
        if item.question + item.passage + "".join(item.options) in asked:
            raise EvalError(f"{place}: this worked question is asked in the exam. Take another one.")
    section = Section(spec, tuple(item for item, _ in items), tuple(item for item, _ in shots))
    low, high = math.floor(section.lowest + 0.5), math.floor(section.highest + 0.5)
    chart = _chart(spec.chart, f"{where}: chart", path.parent, low, high)
    scores = sorted(set(chart.scaled)) if chart else [float(i) for i in range(low, high + 1)]
    table = _percentiles(spec.percentiles, f"{where}: percentiles", path.parent, scores, (section,), chart)
    return Section(spec, section.items, section.shots, chart, table)


def _chart(raw: Table | None, where: str, base: Path, low: int, high: int) -> ScoreChart | None:
    if raw is None:
        return None
    if isinstance(raw, Mapping) and set(raw) & {"linear", "step"}:
        ends, step = raw.get("linear"), raw.get("step", 1)
        numbers = [*ends, step] if isinstance(ends, list) else []
        ok = len(numbers) == 3 and all(isinstance(x, int | float) for x in numbers) and set(raw) <= {"linear", "step"}
        if not ok or numbers[2] <= 0 or numbers[0] >= numbers[1]:
            raise EvalError(f"{where} is {raw}; expected linear: [LOWEST, HIGHEST], with step: of rounding if not 1.")
        bottom, top, rounding = map(float, numbers)
        return linear_chart(low, high, bottom, top, rounding)
    return make_chart(read_rows(raw, where, base, "raw", "scaled"), low, high)


def _percentiles(
    raw: Table | None,
    where: str,
    base: Path,
    scores: Sequence[float],
    sections: Sequence[Section],
    chart: ScoreChart | None,
) -> PercentileTable | None:
    if raw is None:
        return None
    if isinstance(raw, Mapping) and "takers" in raw:
        return population_table(raw["takers"], where, sections, chart)
    return make_percentiles(read_rows(raw, where, base, "score", "percentile"), scores)


def _total_points(sections: Sequence[Section], which: str) -> float:
    return math.fsum(getattr(section, which) * section.factor for section in sections)


def _round(total: TotalFile, points: float) -> int:
    return rounded(points, total.round)


def rounded(points: float, how: str) -> int:
    """Whole points: the nearest (half up), or the next below."""
    return math.floor(points + (0.5 if how == "nearest" else 0.0) + 1e-9)


def _checked(model: type[M], raw: Any, where: Any) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        loc = tuple(part for part in first["loc"] if part not in ("str", "list[str]", "dict[any,any]"))
        field = ".".join(map(str, loc)) or "it"
        more = f" ({error.error_count() - 1} more after it)" if error.error_count() > 1 else ""
        found = "" if first["type"] == "missing" else f", found {json.dumps(first['input'], default=str)[:80]}"
        raise EvalError(f"{where(loc)}: {field}: {first['msg']}{found}{more}. Mend it.") from error
