"""Weights of rules: features of a reply, fitted so that with the reward model's score the better reply wins.

Each type of response (refuse, safe_refuse, comply) has weights of its own, since the same apology that makes a refusal
good makes an answer bad. Features are probabilities: of a rubric's classes, or that propositions hold.
Source: Mu et al. (2024), Rule Based Rewards for Language Model Safety, arXiv 2411.01111, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.align.graders import Case, Grader, fields
from foretell.align.rubric import Floats
from foretell.errors import CheckpointError, DataError, RubricError
from foretell.files import read_json, write_json
from foretell.measure.classify import TextClassifier

RESPONSE_TYPES = ("refuse", "safe_refuse", "comply")
EXPECTED = {"disallowed": "refuse", "sensitive": "safe_refuse", "allowed": "comply", "boundary": "comply"}
"""Kind of prompt → the type of response that it should get."""


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt, by their rows among features and scores."""

    better: int
    worse: int


@dataclass(frozen=True)
class RuleWeights:
    """names: of the features. weights: response type → one weight a feature."""

    names: tuple[str, ...]
    weights: Mapping[str, Floats]

    def reward(self, features: Floats, types: Sequence[str], scores: Floats | None = None) -> Floats:
        """The reward model's scores (N,) plus what the rules add; features (N, F), types: the N expected responses.

        Raises RubricError for a type without weights or features of another shape.
        """
        missing = sorted(set(types) - set(self.weights))
        if missing:
            raise RubricError(f"Rules for {', '.join(missing)} were never fitted; known are {', '.join(self.weights)}.")
        if features.shape != (len(types), len(self.names)):
            raise RubricError(f"Features have shape {features.shape}; expected {(len(types), len(self.names))}.")
        rows = np.array([self.weights[kind] for kind in types]).reshape(features.shape)
        ruled = (features * rows).sum(axis=1)
        return np.asarray(ruled if scores is None else scores + ruled)

    def save(self, path: Path) -> None:
        rows: dict[str, Any] = {
            kind: dict(zip(self.names, row.tolist(), strict=True)) for kind, row in self.weights.items()
        }
        write_json(path, rows)

    @classmethod
    def load(cls, path: Path) -> RuleWeights:
        """Raises CheckpointError for what is no file of weights."""
        rows = read_json(path)
        try:
            names = tuple(next(iter(rows.values())))
            return cls(names, {kind: np.array([float(row[name]) for name in names]) for kind, row in rows.items()})
        except (StopIteration, TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} holds no weights of rules. Fit them again.") from error


def class_features(graders: Sequence[Grader], cases: Sequence[Case]) -> tuple[tuple[str, ...], Floats]:
    """Names and values (N, F): the class probabilities of each grader, side by side."""
    names = tuple(f"{grader.rubric.name}.{letter}" for grader in graders for letter in grader.rubric.classes)
    return names, np.hstack([grader.grade(cases) for grader in graders])


def proposition_features(classifier: TextClassifier, cases: Sequence[Case]) -> tuple[tuple[str, ...], Floats]:
    """Names and values (N, F): how likely each proposition of a classifier holds."""
    return classifier.classes, classifier.probabilities([fields(case) for case in cases])


def pairs_of_ranks(prompts: Sequence[str], ranks: Sequence[int]) -> list[Pair]:
    """Every two replies to the same prompt whose ranks differ; rank 0 is best."""
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    return [Pair(a, b) for rows in groups.values() for a in rows for b in rows if ranks[a] < ranks[b]]


def fit_rules(
    names: Sequence[str],
    features: Floats,
    types: Sequence[str],
    pairs: Sequence[Pair],
    scores: Floats | None = None,
    l2: float = 1e-2,
) -> RuleWeights:
    """Weights for each response type that has pairs.

    features: (N, F). types: the response that the prompt of each row should get. scores: the reward model's, (N,).
    Raises DataError where there are no pairs, a type is unknown, a pair is of two types, or a number is not finite.
    """
    offsets = np.zeros(len(features)) if scores is None else np.asarray(scores, np.float64)
    if features.shape != (len(types), len(names)) or len(offsets) != len(types):
        raise DataError(
            f"Features have shape {features.shape}; there are {len(types)} types, {len(names)} names and "
            f"{len(offsets)} scores."
        )
    if not (np.isfinite(features).all() and np.isfinite(offsets).all()):
        raise DataError("A feature or a reward model's score is not finite. Mend the grader, or leave that reply out.")
    if not pairs:
        raise DataError("There are no pairs of a better and a worse reply to one prompt, so rules cannot be fitted.")
    by_type: dict[str, list[Pair]] = {}
    for pair in pairs:
        kind = types[pair.better]
        if kind not in RESPONSE_TYPES or kind != types[pair.worse]:
            raise DataError(
                f"A pair is of {kind} and {types[pair.worse]}; expected one of {', '.join(RESPONSE_TYPES)}."
            )
        by_type.setdefault(kind, []).append(pair)
    weights = {}
    for kind, chosen in by_type.items():
        better, worse = [pair.better for pair in chosen], [pair.worse for pair in chosen]
        weights[kind] = fit_hinge(features[better] - features[worse], offsets[better] - offsets[worse], l2)
    return RuleWeights(tuple(names), weights)


def fit_hinge(differences: Floats, offsets: Floats, l2: float, tolerance: float = 1e-8, sweeps: int = 20_000) -> Floats:
    """The weights w of least mean(max(0, 1 − offsets − differences · w)) + l2 / 2 · ‖w‖².

    differences: (P, F), features of the better reply less those of the worse. offsets: (P,), likewise of scores.
    Returns (F,), once primal and dual agree to `tolerance` of the larger.
    Raises ValueError unless l2 > 0.
    Source: dual coordinate descent, Hsieh et al. (2008), A Dual Coordinate Descent Method for Large-scale Linear SVM.
    """
    if not l2 > 0:
        raise ValueError(f"l2 is {l2}; allowed is above 0")
    margins = 1 - offsets
    most = 1 / (l2 * len(differences))  # of a dual variable, in units of w
    norms = (differences**2).sum(axis=1)
    alpha, w = np.where(norms == 0, most * (margins > 0), 0.0), np.zeros(differences.shape[1])
    movable = np.flatnonzero(norms)
    order = np.random.default_rng(0)
    for _ in range(sweeps):
        for i in order.permutation(movable):
            step = (margins[i] - differences[i] @ w) / norms[i]
            moved = min(max(alpha[i] + step, 0.0), most) - alpha[i]
            if moved:
                alpha[i] += moved
                w += moved * differences[i]
        primal = np.maximum(0, margins - differences @ w).mean() + l2 / 2 * w @ w
        dual = l2 * (alpha @ margins) - l2 / 2 * w @ w
        if primal - dual <= tolerance * max(abs(primal), 1e-12):
            break
    return w
