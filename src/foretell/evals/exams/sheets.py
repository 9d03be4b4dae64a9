"""Grading by people: a sheet of replies to fill in, as JSON lines or a page, and its way back.

Grades lie beside the log, in LOG.grades.jsonl, one line a question and grader; the log itself stays as it is. Where
several people graded a question, their mean counts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.exams.asking import images_of
from foretell.evals.exams.definition import Item, Section
from foretell.evals.exams.scoring import Answered, ExamScore
from foretell.evals.samples import placed
from foretell.files import write_text
from foretell.pages import Html, el, escape, image, page, section

_KNOWN = ("sheet", "number", "grader", "points", "comment")


@dataclass(frozen=True)
class Agreement:
    """How far people agree: questions that two or more graded, and the mean difference of their points."""

    questions: int
    difference: float


def grades_path(log: Path) -> Path:
    return log.with_name(log.name + ".grades.jsonl")


def to_grade(score: ExamScore, again: bool = False) -> list[Answered]:
    """Replies that wait for a grade. again: also those that a model or a person has graded."""
    return [a for a in score.answered if _is_graded_by_rubric(a) and (again or a.points is None)]


def sheet_rows(score: ExamScore, again: bool = False) -> list[dict[str, Any]]:
    """A sheet's rows. No name of a model stands in them. points: to be filled in, one number a line of the rubric."""
    rows = []
    for a in to_grade(score, again):
        lines = [{"criterion": text, "most": most, "least": least} for text, least, most in _lines(a.section, a.item)]
        row: dict[str, Any] = {"sheet": sheet_id(score), "number": a.number, "section": a.section.name}
        row |= {"passage": a.item.passage} if a.item.passage else {}
        row |= {"question": a.item.question}
        row |= {"reference": a.item.reference} if a.item.reference else {}
        rows.append(row | {"reply": a.reply, "rubric": lines, "points": [None] * len(lines), "grader": "",
                           "comment": ""})  # fmt: skip
    return rows


def write_sheet(score: ExamScore, path: Path, again: bool = False) -> int:
    """Write a sheet: a page where the name ends in .html, else JSON lines. Returns how many replies stand in it.

    Raises EvalError where nothing waits for a grade.
    """
    rows = sheet_rows(score, again)
    if not rows:
        raise EvalError(f"Nothing of {score.log} waits for a grade. To grade what has one, give --again.")
    if path.suffix == ".html":
        write_text(path, sheet_page(score, rows))
    else:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def sheet_page(score: ExamScore, rows: Sequence[Mapping[str, Any]]) -> str:
    """The sheet as one page that needs no server: what is filled in is saved as a file of JSON lines."""
    questions = {a.number: a for a in score.answered}
    parts = [_question(row, questions[row["number"]], score) for row in rows]
    name = el("label", "Your name ", el("input", id="grader", autocomplete="off"))
    save = el("p", el("button", "Save the grades", id="save", type="button"), " ", el("span", id="told", role="status"))
    script = resources.files("foretell.evals.exams").joinpath("sheet.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page(
        f"{score.exam.spec.title}: grading sheet",
        [section("Replies", el("p", name), *parts, save)],
        kicker="Exam",
        lead="Read each reply, give points by every line of the rubric, and save. Bring the file in with: foretell "
        "exam grade LOG --sheet FILE",
        footer=f"Sheet {sheet_id(score)}",
    )
    policy = f"default-src 'none'; script-src 'sha256-{digest}';"
    return text.replace("default-src 'none';", policy, 1).replace("</body>", f"<script>{script}</script></body>", 1)


def read_sheet(path: Path, score: ExamScore, grader: str = "") -> list[dict[str, Any]]:
    """The grades of a sheet that was filled in. Rows without points are passed over. grader: where no name stands.

    Raises EvalError naming file, line and field for a row of another run, one without a grader, and points that are no
    numbers of the rubric.
    """
    answered, found = {a.number: a for a in score.answered if _is_graded_by_rubric(a)}, []
    for row, where in placed(path):
        if row.get("sheet") != sheet_id(score):
            raise EvalError(f"{where}: sheet is {row.get('sheet')!r}, this log's is {sheet_id(score)!r}. Take its own.")
        if (answer := answered.get(row.get("number", -1))) is None:
            raise EvalError(f"{where}: number: the log has no reply {row.get('number')!r} to be graded. Mend it.")
        points = row.get("points")
        rubric = _lines(answer.section, answer.item)
        if not isinstance(points, list) or len(points) != len(rubric):
            raise EvalError(f"{where}: points is {points!r}; expected {len(rubric)}, one a line of the rubric.")
        if all(value is None for value in points):
            continue
        for i, (value, (_, least, most)) in enumerate(zip(points, rubric, strict=True)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise EvalError(f"{where}: points.{i} is {value!r}; expected a number from {least} to {most}.")
        who = str(row.get("grader") or grader).strip()
        if not who:
            raise EvalError(f"{where}: grader: there is no name of who graded. Write it there, or give --by NAME.")
        found.append({"sheet": row["sheet"], "number": row["number"], "grader": who, "points": points,
                      "comment": str(row.get("comment") or "")})  # fmt: skip
    return found


def keep_grades(log: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write grades beside the log; a person's later grade of a question takes the place of the earlier one."""
    kept = {(row["number"], row["grader"]): row for row in _read(log)}
    kept |= {(row["number"], row["grader"]): dict(row) for row in rows}
    lines = [json.dumps({key: row.get(key) for key in _KNOWN}, ensure_ascii=False) for _, row in sorted(kept.items())]
    write_text(grades_path(log), "".join(line + "\n" for line in lines))
    return len(kept)


def people_s_grades(log: Path) -> dict[int, list[float]]:
    """The mean points of every line of the rubric, by question; for `scoring.score_exam`."""
    by: dict[int, list[list[float]]] = {}
    for row in _read(log):
        by.setdefault(int(row["number"]), []).append([float(value) for value in row["points"]])
    return {n: [math.fsum(line) / len(line) for line in zip(*rows, strict=True)] for n, rows in by.items()}


def agreement(log: Path) -> Agreement:
    """Of people with each other, over questions that several graded; nan where there are none."""
    by: dict[int, list[float]] = {}
    for row in _read(log):
        by.setdefault(int(row["number"]), []).append(math.fsum(map(float, row["points"])))
    several = [points for points in by.values() if len(points) > 1]
    differences = [
        math.fsum(abs(a - b) for i, a in enumerate(points) for b in points[:i]) / (len(points) * (len(points) - 1) / 2)
        for points in several
    ]
    return Agreement(len(several), math.fsum(differences) / len(several) if several else math.nan)


def sheet_id(score: ExamScore) -> str:
    """Names a run's sheet without naming its model."""
    return hashlib.sha256(f"{score.run}/{score.exam.digest}".encode()).hexdigest()[:12]


def _read(log: Path) -> list[dict[str, Any]]:
    path = grades_path(log)
    return [row for row, _ in placed(path)] if path.is_file() else []


def _is_graded_by_rubric(a: Answered) -> bool:
    return a.section.spec.kind == "essay" or bool(a.item.rubric)


def _lines(part: Section, item: Item) -> list[tuple[str, int, int]]:
    """Lines to grade by, with the fewest and the most points of each."""
    if part.spec.kind == "essay":
        steps = sorted(part.spec.scale)
        return [("\n".join(f"{step}: {part.spec.scale[step]}" for step in steps), steps[0], steps[-1])]
    return [(line.criterion, 0, line.points) for line in item.rubric]


def _question(row: Mapping[str, Any], a: Answered, score: ExamScore) -> Html:
    pictures = [image(uri, name) for name, uri in zip(a.item.images, images_of(a.item, Path(score.exam.file).parent),
                                                      strict=True)]  # fmt: skip
    lines = [
        el(
            "p",
            el("label", f"{line['criterion']} ({line['least']} to {line['most']}) ",
               el("input", type="number", class_="points", min=line["least"], max=line["most"], step="any")),
        )
        for line in row["rubric"]
    ]  # fmt: skip
    return el(
        "article",
        el("h3", f"{row['number'] + 1}. {a.section.name}"),
        *(_text(row.get("passage", ""))), *(_text(row["question"])), *pictures,
        el("h4", "Reply"), el("pre", row["reply"] or "(empty)", tabindex="0"),
        *([el("h4", "Reference"), *_text(row["reference"])] if "reference" in row else []),
        el("h4", "Points"), *lines,
        el("p", el("label", "Remark ", el("input", class_="comment"))),
        class_="grade", data_row=json.dumps({"sheet": row["sheet"], "number": row["number"]}),
    )  # fmt: skip


def _text(text: str) -> list[Html]:
    return [el("p", Html(escape(part).replace("\n", "<br>"))) for part in text.split("\n\n") if part]
