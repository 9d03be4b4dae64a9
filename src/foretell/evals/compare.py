"""Which of two runs is better, sample by sample: differences with intervals, regressions, and a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from foretell.errors import EvalError
from foretell.evals.scores import Scores, group_labels
from foretell.measure.stats import (
    Interval,
    detectable_difference,
    holm,
    is_binary,
    mcnemar,
    mean_stderr,
    paired_bootstrap,
    paired_difference,
    samples_to_detect,
    student_test,
)

Method = Literal["mcnemar", "student", "clustered student", "bootstrap", "clustered bootstrap"]
Outcome = Literal["no worse", "worse", "too weak to tell"]


@dataclass(frozen=True)
class Change:
    """A sample on which two runs differ, with the value of each."""

    sample: str
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Comparison:
    """Two runs on the samples that both have a value of.

    baseline, candidate: the runs. difference: mean of candidate − baseline with its interval; stderr: its standard
    error, clustered where samples share a group. p: two-sided, by `method`; p_holm: corrected for the comparisons
    made beside it. n: samples compared, in `groups` groups. detectable: the least true difference that so many
    samples would have found. worse, better: samples whose value changed, the largest change first.
    only_baseline, only_candidate: samples that the other run does not have. invalid_baseline, invalid_candidate:
    samples of both runs that could not be graded in that one. None of these four is part of the difference.
    """

    eval: str
    metric: str
    baseline: str
    candidate: str
    difference: Interval
    stderr: float
    p: float
    p_holm: float
    method: Method
    n: int
    groups: int
    detectable: float
    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    invalid_baseline: tuple[str, ...]
    invalid_candidate: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may pass. outcome: proven no worse, proven worse, or neither. samples_needed: how many it
    would take to tell, if the difference stays as measured; None where it is told, or no number would do."""

    outcome: Outcome
    reason: str
    samples_needed: int | None
    comparison: Comparison

    @property
    def passed(self) -> bool:
        """Only a candidate proven worse fails."""
        return self.outcome != "worse"


def compare(
    candidate: Scores,
    baseline: Scores,
    level: float = 0.95,
    power: float = 0.8,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """Compare two runs of one eval, paired by sample id.

    level: confidence of the interval. power: of `detectable`. Grades 0 and 1 take McNemar's exact p and the adjusted
    Wald interval of the paired table; other values, and samples that share groups, Student's t of the differences,
    clustered (for 0/1 grades its p, beside the Wald interval of as many samples as the groups are worth).
    rng: where given, the paired bootstrap takes the place of Student's t for values other than 0 and 1.
    Raises EvalError for runs of different evals or metrics, without common valid samples, or with other groups.
    """
    _check(candidate, baseline)
    old, new = baseline.valid, candidate.valid
    samples = sorted(old.keys() & new.keys())
    if not samples:
        raise EvalError(
            f"Runs {baseline.run} ({len(old)} valid samples) and {candidate.run} ({len(new)}) of {baseline.eval} "
            "have no valid sample in common. Compare runs over the same samples: same data, seed and limit."
        )
    a, b = np.array([new[s] for s in samples]), np.array([old[s] for s in samples])
    labels = group_labels(samples, {**baseline.groups, **candidate.groups})
    method: Method
    if is_binary(a) and is_binary(b):
        method, p = ("clustered student", student_test(a - b, labels)) if labels else ("mcnemar", mcnemar(a, b))
        interval = paired_difference(a, b, level, labels)
    elif rng is not None:
        method = "clustered bootstrap" if labels else "bootstrap"
        interval, p = paired_bootstrap(a, b, rng, labels, level)
    else:
        method = "clustered student" if labels else "student"
        interval, p = paired_difference(a, b, level, labels), student_test(a - b, labels)
    changed = [Change(samples[i], float(b[i]), float(a[i])) for i in np.flatnonzero(a != b)]
    changed.sort(key=lambda change: (-abs(change.candidate - change.baseline), change.sample))
    return Comparison(
        baseline.eval,
        baseline.metric,
        baseline.run,
        candidate.run,
        interval,
        mean_stderr(a - b, labels)[1],
        p,
        p,
        method,
        len(samples),
        len(set(labels)) if labels else len(samples),
        detectable_difference(a, b, level, power, labels),
        tuple(c for c in changed if c.candidate < c.baseline),
        tuple(c for c in changed if c.candidate > c.baseline),
        tuple(sorted(baseline.values.keys() - candidate.values.keys())),
        tuple(sorted(candidate.values.keys() - baseline.values.keys())),
        tuple(sorted(candidate.values.keys() & (baseline.values.keys() - old.keys()))),
        tuple(sorted(baseline.values.keys() & (candidate.values.keys() - new.keys()))),
    )


def compare_many(
    runs: Sequence[Scores],
    baseline: Scores | None = None,
    level: float = 0.95,
    power: float = 0.8,
    rng: np.random.Generator | None = None,
) -> list[Comparison]:
    """Compare each run with `baseline`, or each later one with each earlier one; p_holm is corrected over all.

    Raises EvalError as `compare` does.
    """
    pairs = [(run, baseline) for run in runs] if baseline else [(new, old) for old, new in combinations(runs, 2)]
    found = [compare(new, old, level, power, rng) for new, old in pairs]
    return [replace(c, p_holm=float(p)) for c, p in zip(found, holm([c.p for c in found]), strict=True)]


def no_worse_than(
    candidate: Scores, baseline: Scores, margin: float = 0.0, level: float = 0.95, power: float = 0.8
) -> Verdict:
    """Gate: the candidate fails only where the interval lies below −margin as a whole.

    margin: drop of the mean that is put up with, >= 0. level: confidence of the two-sided interval, so that an equal
    candidate fails by chance in (1 − level) / 2 of the cases at margin 0, and in fewer at a larger one.
    Raises EvalError for a margin below 0, and as `compare` does.
    """
    if not margin >= 0:
        raise EvalError(f"The margin is {margin:g}; expected the drop that is put up with, 0 or more.")
    c = compare(candidate, baseline, level, power)
    d = c.difference
    found = (
        f"{c.candidate} scores {d.estimate:+.4g} [{d.low:+.4g}, {d.high:+.4g}] against {c.baseline} in {c.metric} of "
        f"{c.eval} ({c.n} samples, {level:.3g} interval)"
    )
    outcome: Outcome
    needed = None
    if d.high < -margin:
        outcome, reason = "worse", f"{found}: worse by more than {margin:g}; {len(c.worse)} samples got worse."
    elif d.low >= -margin:
        outcome, reason = "no worse", f"{found}: not worse by more than {margin:g}."
    else:
        outcome = "too weak to tell"
        needed = samples_to_detect(d.estimate + margin, c.n, c.detectable)
        tells = f"about {needed} samples would tell" if needed else "no number of samples would; allow a larger margin"
        reason = (
            f"{found}: too weak to tell whether it is worse by more than {margin:g}. It would have found a difference "
            f"of {c.detectable:.4g} or more; if this one stays as measured, {tells}."
        )
    left_out = {
        f"missing from {c.candidate}": c.only_baseline,
        f"not graded in {c.candidate}": c.invalid_candidate,
        f"not graded in {c.baseline}": c.invalid_baseline,
    }
    notes = ", ".join(f"{len(names)} {why}" for why, names in left_out.items() if names)
    return Verdict(outcome, f"{reason} Samples left out: {notes}." if notes else reason, needed, c)


def _check(candidate: Scores, baseline: Scores) -> None:
    for what in ("eval", "metric"):
        ours, theirs = getattr(candidate, what), getattr(baseline, what)
        if ours != theirs:
            raise EvalError(
                f"Run {candidate.run} has {what} {ours!r}, and {baseline.run} has {theirs!r}. "
                f"Only runs of one {what} can be compared."
            )
    for sample in candidate.groups.keys() & baseline.groups.keys():
        ours, theirs = candidate.groups[sample], baseline.groups[sample]
        if ours != theirs:
            raise EvalError(
                f"Sample {sample!r} is of group {ours!r} in {candidate.run} and {theirs!r} in {baseline.run}. "
                "Compare runs of the same data."
            )
