"""One model against another over exams, question by question: base versus RLHF, as in the report's table 8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foretell.errors import EvalError
from foretell.evals.compare import Comparison, compare
from foretell.evals.exams.scoring import ExamScore
from foretell.evals.scores import Scores
from foretell.measure.stats import Interval


@dataclass(frozen=True)
class Against:
    """baseline, candidate: mean share of points, of 0 to 1. comparison: of the questions both were asked, paired."""

    exam: str
    baseline: float
    candidate: float
    comparison: Comparison


@dataclass(frozen=True)
class Table:
    """rows: an exam each. mean: difference of the means over exams, each counting alike, with its 95 % interval over
    questions (the exams themselves are not taken for a sample). baseline, candidate: those means."""

    rows: tuple[Against, ...]
    baseline: float
    candidate: float
    mean: Interval


def shares(score: ExamScore, choices_only: bool = True) -> Scores:
    """A run's questions with the share of points that each reached; those that wait for a grade have none.

    choices_only: only multiple choice, since how free responses are asked for favours a model that follows instructions
    (appendix A.7).
    """
    kept = [a for a in score.answered if not choices_only or a.section.spec.kind == "choice"]
    ids = {a.number: f"{score.exam.name}.{score.exam.split}.{a.number}" for a in kept}
    values = {ids[a.number]: None if a.points is None else a.points / a.most for a in kept}
    groups = {ids[a.number]: f"{a.section.name}/{a.item.group}" for a in kept if a.item.group is not None}
    return Scores(score.run, score.model, score.exam.eval_name, "share", values, groups)


def against(candidates: Sequence[ExamScore], baselines: Sequence[ExamScore], choices_only: bool = True) -> Table:
    """Compare two models' runs, paired by exam and by question.

    Raises EvalError where no exam has a run of both, two runs of one model are of the same exam, questions differ, or
    they were asked otherwise (with images and without).
    """
    old, new = _by_exam(baselines), _by_exam(candidates)
    common = [name for name in old if name in new]
    if not common:
        raise EvalError(
            f"The runs have no exam in common ({', '.join(old) or 'none'}; {', '.join(new) or 'none'}). Sit the same "
            "exam with both models."
        )
    rows = []
    for name in common:
        a, b = new[name], old[name]
        if a.exam.digest != b.exam.digest or a.vision != b.vision:
            what = "with images and without" if a.vision != b.vision else "with other questions"
            raise EvalError(f"{name} was sat {what} in {b.log} and {a.log}. Compare runs of the same kind.")
        first, second = shares(a, choices_only), shares(b, choices_only)
        if not first.values:
            continue
        found = compare(first, second)
        both = first.valid.keys() & second.valid.keys()
        rows.append(Against(name, _mean(second, sorted(both)), _mean(first, sorted(both)), found))
    if not rows:
        raise EvalError("The exams in common have no multiple choice. Compare all kinds with --all-kinds.")
    n = len(rows)
    middle = math.fsum(row.comparison.difference.estimate for row in rows) / n
    below = math.sqrt(math.fsum((row.comparison.difference.estimate - row.comparison.difference.low) ** 2
                                for row in rows)) / n  # fmt: skip
    above = math.sqrt(math.fsum((row.comparison.difference.high - row.comparison.difference.estimate) ** 2
                                for row in rows)) / n  # fmt: skip
    return Table(
        tuple(rows),
        math.fsum(row.baseline for row in rows) / n,
        math.fsum(row.candidate for row in rows) / n,
        Interval(middle, middle - below, middle + above),
    )


def _by_exam(scores: Sequence[ExamScore]) -> dict[str, ExamScore]:
    found: dict[str, ExamScore] = {}
    for score in scores:
        name = score.exam.eval_name
        if name in found:
            raise EvalError(f"{found[name].log} and {score.log} are of one exam, {name}. Give one run of each exam.")
        found[name] = score
    return found


def _mean(scores: Scores, samples: Sequence[str]) -> float:
    valid = scores.valid
    return math.fsum(valid[sample] for sample in samples) / len(samples)
