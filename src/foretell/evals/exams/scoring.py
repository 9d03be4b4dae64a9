"""What a run of an exam came to: points, scaled score and percentile of each section and in total, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import EvalError
from foretell.evals.exams.charts import PercentileTable, ScoreChart
from foretell.evals.exams.definition import Exam, Item, Section, Split, points_of
from foretell.evals.exams.reading import load_exam, rounded
from foretell.evals.log import RunLog
from foretell.evals.results import model_of
from foretell.evals.scores import group_labels, summarize
from foretell.measure.stats import Interval


@dataclass(frozen=True)
class Answered:
    """What became of one question. points: None where it waits for a grade. number: its place in the exam; at: its
    sample's place in the log. invalid: why it could not be put or graded, "" where it could."""

    number: int
    at: int
    section: Section
    item: Item
    points: float | None
    expected: str
    picked: str | None
    reply: str
    explanation: str
    grades: tuple[float, ...] = ()
    blank: bool = False
    invalid: str = ""

    @property
    def most(self) -> float:
        return points_of(self.section.spec, self.item)[1]


@dataclass(frozen=True)
class Mark:
    """A score with its 95 % interval, where it has one. percentile: the range of takers that the table gives it; what
    is reported is its lower bound. percentile_low, percentile_high: lower bounds at the ends of the interval."""

    value: float
    low: float
    high: float
    percentile: tuple[float, float] | None = None
    percentile_low: float | None = None
    percentile_high: float | None = None


@dataclass(frozen=True)
class SectionScore:
    """n: questions counted. raw: points with interval, of `highest`; stderr: of the points. share: mean share of points
    reached. scaled: by the section's chart. ungraded, invalid, blank: how many wait for a grade, could not be put, were
    left without an answer; invalid ones count as blank."""

    name: str
    kind: str
    n: int
    raw: Interval
    highest: float
    stderr: float
    scaled: Mark | None
    ungraded: int
    invalid: int
    blank: int

    @property
    def share(self) -> float:
        return self.raw.estimate / self.highest


@dataclass(frozen=True)
class ExamScore:
    """A run's result. raw: total points by the sections' weights, of `raw_highest`. final: what is reported, the scaled
    score where there is a chart; None while questions wait for grades, or where a part of them was asked. attempt:
    which of the model's holdout runs this is; None of a nonholdout. answered: every question asked."""

    exam: Exam
    run: str
    model: str
    log: Path
    vision: bool
    attempt: int | None
    sections: tuple[SectionScore, ...]
    raw: Interval
    raw_highest: float
    stderr: float
    final: Mark | None
    answered: tuple[Answered, ...]
    settings: Mapping[str, Any]

    @property
    def ungraded(self) -> int:
        return sum(section.ungraded for section in self.sections)

    @property
    def partial(self) -> bool:
        """Whether only some of the questions were asked."""
        return len(self.answered) < len(self.exam.questions)

    @property
    def repeated(self) -> bool:
        """Whether the model had sat this holdout before."""
        return self.attempt is not None and self.attempt > 1


Grades = Mapping[int, Sequence[float]]  # question number → points of each line of its rubric


def exam_of(log: RunLog) -> Exam:
    """The exam that a log is of, read again.

    Raises EvalError for a log of something else, and where the exam has changed since.
    """
    args = log.args
    if "exam" not in args:
        raise EvalError(f"{log.path} is no log of an exam. Make one with: foretell exam run MODEL EXAM")
    split: Split = "holdout" if args["split"] == "holdout" else "nonholdout"
    exam = load_exam(Path(args["exam"]), split)
    if exam.digest != args["digest"]:
        raise EvalError(
            f"{exam.file} or its questions have changed since {log.path} was written, so its answers cannot be scored "
            "by it. Restore them, or run the exam again under a new version."
        )
    return exam


def score_exam(log: RunLog, exam: Exam | None = None, grades: Grades | None = None) -> ExamScore:
    """Score a run. exam: where it is at hand. grades: of people, which go before a model's.

    Intervals are 95 %, over questions like these: of each section as `scores.summarize` makes them (passages cluster),
    and of the total by adding up the sections' margins in squares (MOVER). A scaled score's interval is the chart's at
    the ends of the points' interval, a percentile's the table's at those.
    Source: Zou & Donner (2008), Statistics in Medicine 27, 1693–1702.
    Raises EvalError as `exam_of` does.
    """
    exam = exam or exam_of(log)
    answered = read_answers(log, exam, grades or {})
    sections = tuple(_section(s, [a for a in answered if a.section.name == s.name]) for s in exam.sections)
    asked = [(s, score) for s, score in zip(exam.sections, sections, strict=True) if score.n]
    raw = _sum([(s.factor, score.raw) for s, score in asked])
    stderr = math.sqrt(math.fsum((s.factor * score.stderr) ** 2 for s, score in asked))
    highest = math.fsum(s.factor * s.highest for s in exam.sections)
    whole = len(answered) == len(exam.questions) and not any(score.ungraded for score in sections)
    attempt = log.report.get("attempt")
    return ExamScore(
        exam, str(log.spec["run_id"]), model_of(log.spec), log.path, bool(log.args.get("vision", True)),
        int(attempt) if isinstance(attempt, int) else None, sections, raw, highest, stderr,
        _final(exam, sections, raw) if whole else None, tuple(answered), dict(log.args),
    )  # fmt: skip


def read_answers(log: RunLog, exam: Exam, grades: Grades | None = None) -> list[Answered]:
    """Every question that was asked, in the exam's order."""
    questions, found = exam.questions, []
    for at in range(len(log)):
        number = int(log.id[at].decode().rpartition(".")[2])
        section, item = questions[number]
        answer: dict[str, Any] = {}
        points, invalid, lines = None, "", []
        for event in log.events(at):
            data = event["data"]
            if event["type"] == "answer":
                answer = data
            elif event["type"] == "grades":
                lines = list(data["points"])
            elif event["type"] == "metrics":
                points = data.get("points")
            elif event["type"] == "invalid_sample":
                invalid = str(data.get("message"))
        if grades and number in grades:
            lines, invalid = list(grades[number]), ""
            points = math.fsum(lines)
        if points is None and not answer:  # what could not be put is left blank
            points = section.spec.blank if section.spec.kind == "choice" else points_of(section.spec, item)[0]
        expected = answer.get("expected")
        found.append(
            Answered(
                number, at, section, item, points, expected if isinstance(expected, str) else json.dumps(expected),
                answer.get("picked"), str(answer.get("sampled") or ""), str(answer.get("explanation") or ""),
                tuple(lines), bool(answer.get("blank")), invalid,
            )
        )  # fmt: skip
    return sorted(found, key=lambda a: a.number)


def mark(points: Interval, chart: ScoreChart | None, table: PercentileTable | None, how: str = "nearest") -> Mark:
    """Points as a score with its percentile."""
    values = [chart(rounded(x, how)) if chart else x for x in (points.estimate, points.low, points.high)]
    ranges = [table(value) for value in values] if table else None
    return Mark(
        values[0], values[1], values[2],
        *((ranges[0], ranges[1][0], ranges[2][0]) if ranges else ()),
    )  # fmt: skip


def _section(section: Section, answered: Sequence[Answered]) -> SectionScore:
    counted = [a for a in answered if a.points is not None]
    ungraded = len(answered) - len(counted)
    invalid, blank = (sum(bool(getattr(a, what)) for a in answered) for what in ("invalid", "blank"))
    if not counted:
        nothing = Interval(math.nan, math.nan, math.nan)
        return SectionScore(section.name, section.spec.kind, 0, nothing, section.highest, math.nan, None, ungraded,
                            invalid, blank)  # fmt: skip
    mean = math.fsum(a.most for a in counted) / len(counted)
    x = np.array([(a.points or 0.0) / mean for a in counted])  # so that the section is its mean times its points
    ids = [str(a.number) for a in counted]
    labels = group_labels(ids, {str(a.number): a.item.group for a in counted if a.item.group is not None})
    summary = summarize(x, labels)
    highest = math.fsum(a.most for a in counted)
    lowest = math.fsum(points_of(section.spec, a.item)[0] for a in counted)
    low, high = (summary.interval.low, summary.interval.high)
    if len(counted) == 1 or not (math.isfinite(low) and math.isfinite(high)):
        low, high = lowest / highest, 1.0  # one question says nothing of others
    raw = Interval(
        math.fsum(a.points or 0.0 for a in counted), max(low * highest, lowest), min(high * highest, highest)
    )
    stderr = summary.stderr * highest
    scaled = None
    if not ungraded and len(counted) == len(section.items) and (section.chart or section.percentiles):
        scaled = mark(raw, section.chart, section.percentiles)
    return SectionScore(section.name, section.spec.kind, len(counted), raw, highest, stderr, scaled, ungraded, invalid,
                        blank)  # fmt: skip


def _sum(parts: Sequence[tuple[float, Interval]]) -> Interval:
    """Weighted sum of independent estimates with its interval, by MOVER."""
    if not parts:
        return Interval(math.nan, math.nan, math.nan)
    total = math.fsum(w * i.estimate for w, i in parts)
    below = math.sqrt(math.fsum((w * (i.estimate - i.low)) ** 2 for w, i in parts))
    above = math.sqrt(math.fsum((w * (i.high - i.estimate)) ** 2 for w, i in parts))
    return Interval(total, total - below, total + above)


def _final(exam: Exam, sections: Sequence[SectionScore], raw: Interval) -> Mark:
    if exam.spec.total.of == "scaled":
        parts = [(1.0, Interval(m.value, m.low, m.high)) for s in sections if (m := s.scaled) is not None]
        return mark(_sum(parts), None, exam.percentiles)
    return mark(raw, exam.chart, exam.percentiles, exam.spec.total.round)
