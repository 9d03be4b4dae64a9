"""Rewards of replies: a reward model, rules, what can be verified, or any Python function, added up part by part."""

from __future__ import annotations

import importlib.util
import inspect
import math
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.align.advantage import Floats
from foretell.align.examples import PromptRow
from foretell.align.graders import Case, Grader, ModelGrader, rule_rewards
from foretell.align.reward import RewardModel
from foretell.align.rubric import PROMPT_KINDS, load_rubric
from foretell.align.rules import EXPECTED, RuleWeights, class_features
from foretell.align.samples import RewardFunction, RowCheck, Sample
from foretell.align.verifiable import CHECKS, VERIFIERS, near
from foretell.errors import DataError, ForetellError, RowError, TrainingError
from foretell.files import sha256_file
from foretell.loading import load

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """One reward, as it is called in logs. weight: what it is multiplied by. check: whether it judges a row, before any
    reply is drawn."""

    name: str
    function: RewardFunction
    weight: float = 1.0
    check: RowCheck | None = None


@dataclass(frozen=True)
class Rewards:
    """The sum of parts. A call raises TrainingError where a part gives too few numbers, or one that is not finite."""

    parts: tuple[Part, ...]

    def __call__(self, samples: Sequence[Sample]) -> tuple[Floats, dict[str, Floats]]:
        """The rewards (N,), and those of each part before its weight."""
        total, by_part = np.zeros(len(samples)), {}
        for part in self.parts:
            where = _place(part.function)
            try:
                values = np.asarray([float(value) for value in part.function(samples)], np.float64)
            except ForetellError:
                raise
            except Exception as error:  # it is its user's code
                raise TrainingError(
                    f"The reward {part.name}{_place(part.function, error)} failed for {len(samples)} replies, the "
                    f"first of them {samples[0].reply!r:.80}: {type(error).__name__}: {error}. It must return one "
                    "number a reply. Mend it, and run the same command again to go on."
                ) from error
            if len(values) != len(samples):
                raise TrainingError(
                    f"The reward {part.name}{where} gave {len(values)} numbers for {len(samples)} replies. It must "
                    "return one a reply. Mend it, and run the same command again to go on."
                )
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise TrainingError(
                    f"The reward {part.name}{where} is {values[bad[0]]} for the reply {samples[bad[0]].reply!r:.80}. "
                    "Nothing was learned from this round; mend the reward, and run the same command again to go on."
                )
            by_part[part.name] = values
            total += part.weight * values
        return total, by_part


def _place(function: RewardFunction, error: Exception | None = None) -> str:
    """The file and line of a user's function, or of the last of its file's lines that an error came through."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or Path(code.co_filename).is_relative_to(_PACKAGE):
        return ""
    lines = [code.co_firstlineno, *(_lines(error, code.co_filename) if error else ())]
    return f" ({code.co_filename}, line {lines[-1]})"


def _lines(error: Exception, file: str) -> list[int]:
    """The lines of a file that an error came through, the innermost last."""
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return [error.lineno]
    return [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.lineno
    ]


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
        found = np.zeros(len(samples))
        if judged:
            kinds = [samples[i].fields["kind"] for i in judged]
            found[judged] = rule_rewards(grader, [_case(samples[i]) for i in judged], kinds)
        return list(found)

    return score


def judges_kinds(kinds: Collection[str]) -> RowCheck:
    """Whether a row's `kind` is one of these. A kind that nearly is a known one is a slip of the pen, not another."""

    def check(row: PromptRow) -> bool:
        kind = row.fields.get("kind")
        if kind is not None and kind not in PROMPT_KINDS:
            meant = near(str(kind).strip().lower(), PROMPT_KINDS)
            if meant or not isinstance(kind, str):
                raise RowError(
                    row.where,
                    "kind",
                    "misspelt",
                    f"It is {kind!r:.40}{f'; {meant} is meant, perhaps' if meant else ''}. Kinds that rubrics know are "
                    f"{', '.join(PROMPT_KINDS)}; a row of another kind, or of none, is not judged.",
                )
        return kind in kinds

    return check


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
        lines = _lines(error, spec.origin or path)
        raise DataError(
            f"{path}{f', line {lines[-1]},' if lines else ''} failed as it was read: {type(error).__name__}: {error}. "
            "Mend it first."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        here = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
        raise DataError(
            f"{path} has no function {name}; it has {', '.join(here) or 'none'}. A reward takes a list of "
            "foretell.align.samples.Sample and returns a number for each."
        )
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
            parts.append(Part(name, VERIFIERS[name], _weight(where, weight), CHECKS[name]))
        else:
            parts.append(load_function(where))
            identity.append(sha256_file(Path(name)))
    if grader and not rubric:
        raise DataError("--grader says who grades; say by what with --rubric, for example --rubric refusal.")
    if rubric:
        if not grader:
            raise DataError("--rubric says by what replies are graded; say by whom with --grader MODEL.")
        found = load_rubric(rubric)
        graded = by_rubric(ModelGrader(found, load(grader).generator))
        parts.append(Part(found.name, graded, check=judges_kinds(found.rewards)))
        identity.append([found.name, found.question, dict(found.classes), dict(found.rewards), grader])
    return tuple(parts), identity
