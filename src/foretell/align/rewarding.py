"""Rewards of replies: a reward model, rules, what can be verified, or any Python function, added up part by part."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foretell.align.advantage import Floats
from foretell.align.graders import Case, Grader, rule_rewards
from foretell.align.reward import RewardModel
from foretell.align.rules import EXPECTED, RuleWeights, class_features
from foretell.chat import Conversation
from foretell.errors import DataError, TrainingError
from foretell.template import Encoded


@dataclass(frozen=True)
class Sample:
    """A reply that is to be rewarded.

    prompt: what it answers. reply: its text, of the last turn where there were several. conversation: all that was
    said. fields: what else the prompt's row holds, such as the right answer. tokens: as the policy read and wrote them.
    finished: whether the reply ended by itself.
    """

    prompt: Conversation
    reply: str
    conversation: Conversation
    fields: Mapping[str, Any] = field(default_factory=dict)
    tokens: Encoded | None = None
    finished: bool = True


RewardFunction = Callable[[Sequence[Sample]], Sequence[float]]
"""Samples -> one finite number each."""


@dataclass(frozen=True)
class Part:
    """One reward, as it is called in logs. weight: what it is multiplied by."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True)
class Rewards:
    """The sum of parts. Calling it raises TrainingError where a part gives too few numbers, or one that is not finite."""

    parts: tuple[Part, ...]

    def __call__(self, samples: Sequence[Sample]) -> tuple[Floats, dict[str, Floats]]:
        """The rewards (N,), and those of each part before its weight."""
        total, by_part = np.zeros(len(samples)), {}
        for part in self.parts:
            values = np.asarray(list(part.function(samples)), np.float64)
            if values.shape != (len(samples),):
                raise TrainingError(
                    f"The reward {part.name} gave {values.shape} numbers for {len(samples)} replies. It must return "
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
    """What the grader's rubric awards, by the kind of prompt that the row's `kind` states; 0 for those it judges not."""

    def score(samples: Sequence[Sample]) -> Sequence[float]:
        judged = [i for i, sample in enumerate(samples) if sample.fields.get("kind") in grader.rubric.rewards]
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


def load_function(where: str) -> Part:
    """A reward from a Python file: "path.py:name" or "path.py:name:weight".

    The file is run, as any program of its user's is. Raises DataError where there is no such function.
    """
    path, _, rest = where.partition(":")
    name, _, weight = rest.partition(":")
    try:
        factor = float(weight or 1.0)
    except ValueError:
        factor = math.nan
    if not name or not math.isfinite(factor):
        raise DataError(f"A reward is given as FILE.py:FUNCTION or FILE.py:FUNCTION:WEIGHT, not as {where}.")
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
        raise DataError(f"{path} has no function {name}. It takes a list of foretell.align.rewarding.Sample.")
    return Part(name, function, factor)
