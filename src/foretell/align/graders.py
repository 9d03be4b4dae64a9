"""Three graders behind one protocol: the world's exact grammar, a trained classifier, and any model that answers."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from foretell.align.rubric import Floats, Rubric
from foretell.chat import Conversation, Message, TextPart
from foretell.data.world.hazards import letter
from foretell.errors import ContextLengthError, EndpointError, GenerationError, GraderError, RubricError
from foretell.generate import Generator, Prompt, Request, Result, Sampling, collect, run_sync
from foretell.measure.classify import Text, TextClassifier, fit_classifier


@dataclass(frozen=True)
class Case:
    """A reply to be graded. prompt: what it answers, where that is known. labels: the world's, of its own requests."""

    reply: str
    prompt: Conversation | str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """The prompt's last words."""
        if isinstance(self.prompt, Conversation):
            return self.prompt.messages[-1].text if self.prompt.messages else ""
        return self.prompt or ""


class Grader(Protocol):
    """Says how likely each class of its rubric is."""

    @property
    def rubric(self) -> Rubric: ...

    def grade(self, cases: Sequence[Case]) -> Floats:
        """(N, classes), in the letters' order; rows sum to 1. Raises GraderError where no grade can be had."""
        ...


def rule_rewards(grader: Grader, cases: Sequence[Case], kinds: Sequence[str]) -> Floats:
    """What each reply earns by the grader's rubric, (N,). kinds: of each prompt. Raises as `Rubric.reward`."""
    return grader.rubric.reward(grader.grade(cases), kinds)


class WorldGrader:
    """Exact, for requests of `data.world.hazards` and a rubric with their four classes (`refusal` is one)."""

    def __init__(self, rubric: Rubric) -> None:
        if list(rubric.classes) != list("ABCD"):
            raise RubricError(
                f"The world's grammar tells A, B, C and D apart; {rubric.name} has {len(rubric.classes)} classes."
            )
        self.rubric = rubric

    def grade(self, cases: Sequence[Case]) -> Floats:
        for case in cases:
            if "request" not in case.labels:
                raise GraderError(
                    "A case has no labels of the world, so its grammar cannot grade it. Use another grader."
                )
        letters = list(self.rubric.classes)
        return np.eye(len(letters))[[letters.index(letter(case.labels, case.reply)) for case in cases]]


class ClassifierGrader:
    """By a classifier that was trained on graded replies (`fit`, or one loaded from its file)."""

    def __init__(self, rubric: Rubric, classifier: TextClassifier) -> None:
        if classifier.classes != tuple(rubric.classes) or not classifier.exclusive:
            raise RubricError(
                f"The classifier tells {', '.join(classifier.classes)} apart; {rubric.name} has the classes "
                f"{', '.join(rubric.classes)}. Train one for this rubric."
            )
        self.rubric, self.classifier = rubric, classifier

    @classmethod
    def fit(cls, rubric: Rubric, cases: Sequence[Case], letters: Sequence[str], l2: float = 1e-4) -> ClassifierGrader:
        """Train on graded cases. Raises DataError as `fit_classifier` does."""
        return cls(rubric, fit_classifier([fields(case) for case in cases], letters, list(rubric.classes), l2=l2))

    def grade(self, cases: Sequence[Case]) -> Floats:
        return self.classifier.probabilities([fields(case) for case in cases])


def fields(case: Case) -> Text:
    """What a classifier reads of a case."""
    return case.asked, case.reply


class ModelGrader:
    """By any model: how likely it holds each letter after the rubric's question.

    chat: whether the model is asked in a conversation; otherwise the question is text to be continued. Where the
    generator can score, the letters are scored; otherwise they are read from the likeliest tokens of its reply, or, if
    it tells none, from what it says. tries: at a call that fails for what may pass, with `wait_s` before the second and
    twice as long before each further one; an endpoint's own retries come before.
    Raises GraderError once tries are used up, or where a reply holds no letter.
    """

    def __init__(
        self, rubric: Rubric, generator: Generator, *, chat: bool = True, tries: int = 3, wait_s: float = 5.0
    ) -> None:
        self.rubric, self.generator = rubric, generator
        self.chat, self.tries, self.wait_s = chat, max(1, tries), wait_s
        self._scores = generator.can_score

    def grade(self, cases: Sequence[Case]) -> Floats:
        return run_sync(self.grade_async(cases))

    async def grade_async(self, cases: Sequence[Case]) -> Floats:
        """`grade` for callers that await; cases are asked side by side."""
        tasks = [asyncio.ensure_future(self._patiently(case)) for case in cases]
        try:
            rows = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return np.array(rows).reshape(len(cases), len(self.rubric.classes))

    async def _patiently(self, case: Case) -> list[float]:
        for attempt in range(self.tries):
            if attempt:
                await asyncio.sleep(self.wait_s * 2 ** (attempt - 1))
            try:
                return await self._probabilities(self._prompt(case))
            except ContextLengthError as error:
                raise GraderError(
                    f"The grader of {self.rubric.name} reads at most {error.limit:,} tokens, but the question with the "
                    f"prompt and its reply takes {error.found:,}. Take a grader that reads more, or a shorter rubric."
                ) from error
            except EndpointError as error:
                if error.lasting or attempt == self.tries - 1:
                    raise GraderError(
                        f"The grader of {self.rubric.name} does not answer ({attempt + 1} tries): {error} Nothing was "
                        "graded in its place; go on from the last checkpoint once it is back."
                    ) from error
        raise AssertionError("unreachable")

    def _prompt(self, case: Case) -> Prompt:
        asked = self.rubric.ask(case.reply, case.prompt)
        return Conversation((Message("user", (TextPart(asked),)),)) if self.chat else f"{asked}\n\nAnswer:"

    async def _probabilities(self, prompt: Prompt) -> list[float]:
        if self._scores:
            continuations = [name if self.chat else f" {name}" for name in self.rubric.classes]
            try:
                return _normalised(await self.generator.score(prompt, continuations))
            except GenerationError as error:
                if isinstance(error, EndpointError) and self.generator.can_score:
                    raise
                self._scores = False  # an endpoint of chats tells no scores; it may tell its likeliest tokens
        sampling = Sampling(max_tokens=4, temperature=0.0, logprobs=20)
        return self._read((await collect(self.generator, [Request(prompt, sampling)]))[0][0])

    def _read(self, result: Result) -> list[float]:
        for token in result.logprobs:
            if _letter(token.token) in self.rubric.classes:
                told = dict(token.top) | {token.token: token.logprob}
                mass = dict.fromkeys(self.rubric.classes, 0.0)
                for spelled, logprob in told.items():
                    if _letter(spelled) in mass:
                        mass[_letter(spelled)] += math.exp(logprob)
                return [value / sum(mass.values()) for value in mass.values()]
        said = re.search(rf"\b[{''.join(self.rubric.classes)}]\b", result.text)
        if said is None:
            raise GraderError(
                f"The grader of {self.rubric.name} answered {result.text!r:.60}, which holds none of the letters "
                f"{', '.join(self.rubric.classes)}. Use a model that follows instructions; chat=False for a base one."
            )
        return [float(name == said[0]) for name in self.rubric.classes]


def _letter(token: str) -> str:
    return token.strip(" \n\t▁Ġ.:()\"'*")


def _normalised(logprobs: Sequence[float]) -> list[float]:
    scores = np.array(logprobs)
    if not np.isfinite(scores).any() or np.isnan(scores).any():
        raise GraderError(f"The grader's log-probabilities are {list(logprobs)}; expected numbers.")
    shares = np.exp(scores - scores.max())
    return [float(share) for share in shares / shares.sum()]
