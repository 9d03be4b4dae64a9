"""Rewards of replies: a reward model, rules, what can be verified, or any Python function, added up part by part."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.align.advantage import Floats
from foretell.align.graders import Case, Grader, ModelGrader, rule_rewards
from foretell.align.reward import RewardModel
from foretell.align.rubric import load_rubric
from foretell.align.rules import EXPECTED, RuleWeights, class_features
from foretell.align.samples import RewardFunction, Sample
from foretell.align.verifiable import VERIFIERS
from foretell.errors import DataError, ForetellError, TrainingError
from foretell.files import sha256_file
from foretell.loading import load


@dataclass(frozen=True)
class Part:
    """One reward, as it is called in logs. weight: what it is multiplied by."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True)
class Rewards:
    """The sum of parts. A call raises TrainingError where a part gives too few numbers, or one that is not finite."""

    parts: tuple[Part, ...]

    def __call__(self, samples: Sequence[Sample]) -> tuple[Floats, dict[str, Floats]]:
        """The rewards (N,), and those of each part before its weight."""
        total, by_part = np.zeros(len(samples)), {}
        for part in self.parts:
            try:
                values = np.asarray([float(value) for value in part.function(samples)], np.float64)
            except ForetellError:
                raise
            except Exception as error:  # it is its user's code
                raise TrainingError(
                    f"The reward {part.name} failed for {len(samples)} replies, the first of them "
                    f"{samples[0].reply!r:.80}: {type(error).__name__}: {error}. It must return one number a reply. "
                    "Mend it, and run the same command again to go on."
                ) from error
            if len(values) != len(samples):
                raise TrainingError(
                    f"The reward {part.name} gave {len(values)} numbers for {len(samples)} replies. It must return "
                    "one a reply."
                )
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise TrainingError(
                    f"The reward {part.name} is {values[bad[0]]} for the reply {samples[bad[0]].reply!r:.80}. Nothing "
                    "was learned from this round; mend the reward, and run the same command again to go on."
                )
            by_part[part.name] = values
            total += part.weight * values
        return total, by_part


def by_model(judge: RewardModel) -> RewardFunction:
    """The reward model's score of the tokens as they were drawn; both must have the same tokenizer."""

    def score(samples: Sequence[Sample]) -> Sequence[float]:
        tokens = [sample.tokens for sample in samples]
        assert all(one is not None for one in tokens)
        return judge.score_tokens([one for one in tokens if one is not None])

    return score


def _case(sample: Sample) -> Case:
    return Case(sample.reply, sample.prompt, sample.fields.get("labels", {}))


def by_rubric(grader: Grader) -> RewardFunction:
    """What the grader's rubric awards, by the kind of prompt that the row's `kind` states; 0 for other kinds."""

    def score(samples: Sequence[Sample]) -> Sequence[float]:
        judged = [i for i, sample in enumerate(samples) if sample.fields.get("kind") in grader.rubric.rewards]
        if not any("kind" in sample.fields for sample in samples):
            raise DataError(
                f"Rubric {grader.rubric.name} judges by the kind of prompt, but no row states its `kind`. Add "
                f"the field: {', '.join(grader.rubric.rewards)}."
            )
        found = np.zeros(len(samples))
        if judged:
            kinds = [samples[i].fields["kind"] for i in judged]
            found[judged] = rule_rewards(grader, [_case(samples[i]) for i in judged], kinds)
        return list(found)

    return score


def by_rules(graders: Sequence[Grader], rules: RuleWeights) -> RewardFunction:
    """What fitted rules add, by the response that the row's `kind` should get; 0 where there are none for it."""

    def score(samples: Sequence[Sample]) -> Sequence[float]:
        types = [EXPECTED.get(str(sample.fields.get("kind")), "") for sample in samples]
        judged = [i for i, kind in enumerate(types) if kind in rules.weights]
        found = np.zeros(len(samples))
        if judged:
            _, features = class_features(graders, [_case(samples[i]) for i in judged])
            found[judged] = rules.reward(features, [types[i] for i in judged])
        return list(found)

    return score


_FORM = (
    "A reward is given as FILE.py:FUNCTION, or by the name of a built-in one, perhaps with :WEIGHT behind it, not as "
    "{where}. Built in are "
    f"{', '.join(VERIFIERS)}."
)


def _weight(where: str, said: str) -> float:
    try:
        factor = float(said or 1.0)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise DataError(_FORM.format(where=where))
    return factor


def load_function(where: str) -> Part:
    """A reward from a Python file: "path.py:name" or "path.py:name:weight".

    The file is run, as any program of its user's is. Raises DataError where there is no such function.
    """
    path, _, rest = where.partition(":")
    name, _, weight = rest.partition(":")
    factor = _weight(where, weight)
    if not name:
        raise DataError(_FORM.format(where=where))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise DataError(f"There is no Python file {path} to take the reward {name} from.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path} failed as it was read: {type(error).__name__}: {error}. Mend it first.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{path} has no function {name}. It takes a list of foretell.align.samples.Sample.")
    return Part(name, function, factor)


def named_parts(
    functions: Sequence[str], rubric: str | None = None, grader: str | None = None
) -> tuple[tuple[Part, ...], Any]:
    """Rewards by their names at the command line, and what they depend on. functions: as `load_function`, or names of
    `verifiable.VERIFIERS`. rubric, grader: a rubric, and the model that grades by it.

    Raises DataError, RubricError, or what `foretell.load` raises.
    """
    parts: list[Part] = []
    identity: list[Any] = []
    for where in functions:
        name, _, weight = where.partition(":")
        if name in VERIFIERS and not Path(name).is_file():
            parts.append(Part(name, VERIFIERS[name], _weight(where, weight)))
        else:
            parts.append(load_function(where))
            identity.append(sha256_file(Path(name)))
    if grader and not rubric:
        raise DataError("--grader says who grades; say by what with --rubric, for example --rubric refusal.")
    if rubric:
        if not grader:
            raise DataError("--rubric says by what replies are graded; say by whom with --grader MODEL.")
        found = load_rubric(rubric)
        parts.append(Part(found.name, by_rubric(ModelGrader(found, load(grader).generator))))
        identity.append([found.name, found.question, dict(found.classes), dict(found.rewards), grader])
    return tuple(parts), identity
