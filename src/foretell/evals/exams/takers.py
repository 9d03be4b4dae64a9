"""Simulated takers of known skill: what an exam must say of them follows from theory, which proves its scoring.

A taker of skill θ answers a question of difficulty b and discrimination a rightly with probability
1 / (1 + exp(−a (θ − b))): the two-parameter logistic model, Rasch's where a = 1.
Source: Rasch (1960); Birnbaum (1968); the recursion is Lord & Wingersky's (1984).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.errors import EvalError
from foretell.evals.base import Trial
from foretell.evals.exams.charts import PercentileTable, ScoreChart
from foretell.evals.exams.definition import Exam, Irt, Item, Section, points_of
from foretell.evals.prompts import Prompt

Floats = npt.NDArray[np.float64]
_NODES = 81  # of the quadrature over skill: exact far past what a percentile shows


def probability(theta: float, irt: Irt) -> float:
    """That a taker of skill θ is right."""
    return 1.0 / (1.0 + math.exp(-irt.discrimination * (theta - irt.difficulty)))


def score_distribution(steps: Sequence[tuple[float, int, int]]) -> tuple[int, Floats]:
    """Exact distribution of the points of independent questions.

    steps: of each question the probability to be right, points if not, points if so; whole ones.
    Returns the lowest sum, and the probability of each sum from there on.
    Source: Lord & Wingersky (1984), Applied Psychological Measurement 8, 453–461.
    """
    low, dist = 0, np.ones(1)
    for p, wrong, right in steps:
        base = min(wrong, right)
        step = np.zeros(abs(right - wrong) + 1)
        step[wrong - base] += 1 - p
        step[right - base] += p
        low, dist = low + base, np.convolve(dist, step)
    return low, dist


def points_distribution(theta: float, sections: Sequence[Section], where: str = "The exam") -> tuple[int, Floats]:
    """Exact distribution of the total raw points of a taker of skill θ, who answers every question.

    Raises EvalError for a question without `irt`, and for points that are not whole.
    """
    steps = []
    for section in sections:
        for item in section.items:
            if item.irt is None:
                raise EvalError(f"{where}: question {item.id or item.question[:40]!r} has no irt. Give its difficulty.")
            wrong = section.spec.wrong if section.spec.kind == "choice" else points_of(section.spec, item)[0]
            worth = [section.factor * points for points in (wrong, points_of(section.spec, item)[1])]
            if any(abs(points - round(points)) > 1e-9 for points in worth):
                raise EvalError(
                    f"{where}: a question of {section.name} is worth {worth[1]:g} points; theory counts whole ones. "
                    "Mend weight, worth or points."
                )
            steps.append((probability(theta, item.irt), round(worth[0]), round(worth[1])))
    return score_distribution(steps)


def population_distribution(
    sections: Sequence[Section], mean: float = 0.0, spread: float = 1.0, where: str = "The exam"
) -> tuple[int, Floats]:
    """The same of a population whose skill is normal, by Gauss–Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    found = [points_distribution(mean + spread * float(node), sections, where) for node in nodes]
    return found[0][0], np.asarray(sum(w * dist for w, (_, dist) in zip(weights, found, strict=True)))


def population_table(
    raw: Any, where: str, sections: Sequence[Section], chart: ScoreChart | None = None
) -> PercentileTable:
    """The percentile table of a population of takers, {mean, spread} of their skill: exact, not simulated.

    The range of a score goes from the percent of takers below it to the percent that it, too, is reached by at most.
    """
    known = {"mean", "spread"}
    if not isinstance(raw, Mapping) or set(raw) - known or not all(isinstance(v, int | float) for v in raw.values()):
        raise EvalError(f"{where}.takers is {raw!r}; expected mean and spread of their skill, numbers.")
    if raw.get("spread", 1.0) <= 0:
        raise EvalError(f"{where}.takers.spread is {raw['spread']:g}; expected more than 0.")
    low, dist = population_distribution(sections, float(raw.get("mean", 0.0)), float(raw.get("spread", 1.0)), where)
    shares: dict[float, float] = {}
    for i, share in enumerate(dist):
        score = chart(low + i) if chart else float(low + i)
        shares[score] = shares.get(score, 0.0) + float(share)
    ends = np.minimum(100.0 * np.cumsum(list(shares.values())), 100.0)
    starts = np.concatenate([[0.0], ends[:-1]])
    return PercentileTable(tuple(shares), tuple(zip(starts.tolist(), ends.tolist(), strict=True)))


class Taker:
    """A model of skill θ that sits an exam whose questions have `irt`; it reads no question, only its number.

    Whether a question is answered rightly is drawn from its number and the seed, so that the same taker answers alike
    in every run. Raises EvalError for an exam with questions that have no `irt`, or no one answer.
    """

    can_score = False

    def __init__(self, exam: Exam, theta: float, seed: int = 0) -> None:
        self.name = f"taker{theta:+g}"
        self.identity = {"theta": theta, "seed": seed, "exam": exam.digest}
        self._answers: list[str] = []
        for number, (section, item) in enumerate(exam.questions):
            if item.irt is None or section.spec.kind == "essay" or item.rubric:
                asked = item.question[:40]
                raise EvalError(f"A simulated taker cannot answer {asked!r}: it has no irt, or no one answer.")
            drawn = hashlib.sha256(f"{seed}/{exam.eval_name}/{number}".encode()).digest()
            right = int.from_bytes(drawn[:8], "big") / 2**64 < probability(theta, item.irt)
            self._answers.append(", ".join(item.letters) if right else _wrong(item))

    async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str:
        answer = self._answers[int(trial.id.rpartition(".")[2])]
        trial.record("sampling", {"prompt": prompt, "sampled": [answer]})
        return answer

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
        raise EvalError(f"{self.name} tells no log-probabilities.")


def _wrong(item: Item) -> str:
    letters = [chr(ord("A") + i) for i in range(len(item.options))]
    return next((letter for letter in letters if letter not in item.letters), "no idea")
