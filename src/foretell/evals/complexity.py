"""The complexity ladder: how often all of one to many simultaneous constraints are kept, by their number.

GPT-4's announcement has the difference between models come out when a task is complex enough. Here complexity is
counted: the same request with one constraint more on every rung, each checked by a program.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foretell.data.world import make_items
from foretell.data.world.stacks import MOST, checks
from foretell.errors import EvalError, RecipeError
from foretell.evals.academic_ifeval import follows
from foretell.evals.base import Eval, Tally, Trial
from foretell.evals.constraints import CONSTRAINTS, Constraint, example, request
from foretell.evals.samples import Sample
from foretell.evals.scores import summarize
from foretell.evals.summaries import KEY, row
from foretell.measure.stats import paired_difference


class Ladder(Eval):
    """Base: a sample has `input`, `level` (how many constraints) and `group` (the same request on every rung).

    levels: rungs. count: requests, each asked on every rung. seed: of the draw. max_tokens: of a reply.
    """

    most = 0
    levels: Sequence[int]
    count: int = 40
    seed: int = 0
    max_tokens: int = 512

    def prepare(self) -> None:
        if not self.levels or not set(self.levels) <= set(range(1, self.most + 1)):
            raise EvalError(f"{self.spec.name}: levels is {list(self.levels)}; expected numbers from 1 to {self.most}.")
        self.levels = sorted(set(self.levels))

    def judged(self, sample: Sample, reply: str) -> dict[str, bool]:
        """Whether a reply keeps each constraint of a sample, by name."""
        raise NotImplementedError

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        reply = await trial.complete(sample["input"], temperature=0.0, max_tokens=self.max_tokens)
        kept = self.judged(sample, reply)
        broken = [name for name, ok in kept.items() if not ok]
        trial.match(not broken, expected=list(kept), picked=reply, sampled=reply, broken=broken)
        trial.metrics(
            all_kept=float(not broken), share_kept=1 - len(broken) / len(kept), level=sample["level"],
            group=str(sample["group"]), broken=",".join(broken), asked=",".join(kept),
        )  # fmt: skip

    def report(self, tally: Tally) -> dict[str, Any]:
        found = {f"accuracy/{rung['level']}": rung["accuracy"] for rung in _rungs(tally)}
        return {"accuracy": tally.accuracy, "share_kept": tally.mean("share_kept"), **found}

    def details(self, tally: Tally) -> dict[str, Any]:
        rungs, lost = _rungs(tally), _lost(tally)
        rows = [
            row(_named(r["level"]), (r["accuracy"], r["low"], r["high"]), r["n"], arm=None) for r in rungs
        ]  # fmt: skip
        if lost is not None:
            rows.append(row(lost["title"], (lost["estimate"], lost["low"], lost["high"]), lost["n"], form="points"))
        return {
            KEY: {
                "part": "benchmarks",
                "title": f"{self.spec.name.split('.')[0]}: replies that keep all of several constraints at once",
                "kind": "complexity",
                "asked": len(tally.correct) + tally.invalid,
                "invalid": tally.invalid,
                "levels": rungs,
                "constraints": _by_name(tally),
                "rows": rows,
            }
        }


class Constrained(Ladder):
    """Writing with constraints of form and of words, of IFEval's kinds; all of a request's can be kept at once."""

    most = len(CONSTRAINTS)
    levels = (1, 2, 3, 4, 6, 8, 10)

    def samples(self) -> Sequence[Sample]:
        """Each request's constraints are drawn once, in an order: a rung takes the first so many."""
        found = []
        for number in range(self.count):
            rng = random.Random(f"complexity/{self.seed}/{number}")
            topic, drawn = request(rng)
            for level in self.levels:
                asked: list[Constraint] = drawn[:level]
                lines = "\n".join(f"{i}. {one.text}" for i, one in enumerate(asked, 1))
                text = f"Write a short text about {topic}. Keep all of these rules:\n{lines}"
                found.append(
                    {
                        "input": [{"role": "user", "content": text}],
                        "names": [one.name for one in asked],
                        "rules": [[one.rule, dict(one.args)] for one in asked],
                        "example": example(topic, asked),
                        "level": level,
                        "group": f"request {number}",
                    }
                )
        return found

    def judged(self, sample: Sample, reply: str) -> dict[str, bool]:
        strict, _ = follows(sample["rules"], reply)
        return dict(zip(sample["names"], strict, strict=True))


class Stacked(Ladder):
    """Rules of a system message, of the generated world's held-out side: the answer has to be right as well.

    Requests differ from rung to rung, since what is held out is a set of rules with its question.
    """

    most = MOST
    levels = (1, 2, 3, 4, 5, 6)

    def samples(self) -> Sequence[Sample]:
        found: list[Sample] = []
        for level in self.levels:
            seen: dict[str, Sample] = {}
            try:
                items = make_items("stacks", "heldout", 4 * self.count, self.seed, tasks=[f"stacks.{level}"])
            except RecipeError as error:
                raise EvalError(f"{self.spec.name}: {error}") from error
            for item in items:
                messages = item.content.conversation().messages
                asked = [{"role": m.role, "content": m.text} for m in messages[:-1]]
                sample = {
                    "input": asked, "ideal": item.answer, "labels": item.content.labels, "level": level,
                    "group": item.key,
                }  # fmt: skip
                seen.setdefault(str(asked), sample)
            chosen = list(seen.values())[: self.count]
            if len(chosen) < self.count:
                raise EvalError(
                    f"{self.spec.name}: about {len(chosen)} different held-out requests have {level} rules, not "
                    f"{self.count}. Lower count, or leave that level out."
                )
            found += chosen
        return found

    def judged(self, sample: Sample, reply: str) -> dict[str, bool]:
        return checks(sample["labels"], reply)


def _named(level: int) -> str:
    return f"{level} constraint{'s' * (level != 1)}"


def _rungs(tally: Tally) -> list[dict[str, Any]]:
    """Each level's accuracy with its interval, the share of constraints kept, and what independent slips would give:
    that share to the power of the number."""
    levels = tally.metrics.get("level", [])
    rungs = []
    for level in sorted(set(levels)):
        at = [i for i, one in enumerate(levels) if one == level]
        grades = np.asarray([tally.metrics["all_kept"][i] for i in at], np.float64)
        interval = summarize(grades, None).interval
        share = math.fsum(tally.metrics["share_kept"][i] for i in at) / len(at)
        rungs.append(
            {
                "level": int(level), "n": len(at), "accuracy": interval.estimate, "low": interval.low,
                "high": interval.high, "share_kept": share, "if_independent": share**level,
            }
        )  # fmt: skip
    return rungs


def _lost(tally: Tally) -> dict[str, Any] | None:
    """The difference between the last rung and the first, over requests that stand on both; None where none does."""
    levels = tally.metrics.get("level", [])
    if len(set(levels)) < 2:
        return None
    first, last = min(levels), max(levels)
    by_rung: dict[int, dict[str, float]] = {first: {}, last: {}}
    for level, group, grade in zip(levels, tally.metrics["group"], tally.metrics["all_kept"], strict=True):
        if level in by_rung:
            by_rung[level][group] = grade
    both = [group for group in by_rung[first] if group in by_rung[last]]
    if not both:
        return None
    gain = paired_difference([by_rung[last][g] for g in both], [by_rung[first][g] for g in both])
    title = f"from {_named(int(first))} to {int(last)}"
    return {"title": title, "estimate": gain.estimate, "low": gain.low, "high": gain.high, "n": len(both)}


def _by_name(tally: Tally) -> Mapping[str, Any]:
    """How often each constraint was asked for and kept, over all rungs."""
    asked: dict[str, list[int]] = {}
    for names, broken in zip(tally.metrics.get("asked", ()), tally.metrics.get("broken", ()), strict=True):
        for name in filter(None, names.split(",")):
            asked.setdefault(name, []).append(name not in broken.split(","))
    return {name: {"asked": len(kept), "kept": sum(kept) / len(kept)} for name, kept in sorted(asked.items())}
