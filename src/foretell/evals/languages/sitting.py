"""Questions in many languages as one eval: a question in one language is a sample, scored by its likeliest letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretell.errors import EvalError
from foretell.evals.base import Eval, Tally, Trial
from foretell.evals.languages.asking import LETTER_ONLY, letter_of, prompt_of, shots_for
from foretell.evals.languages.questions import LETTERS, QuestionSet
from foretell.evals.prompts import Prompt
from foretell.evals.registry import OWN, EvalSpec, Registry
from foretell.evals.runner import ModelFailure
from foretell.evals.samples import Sample

EVENT = "language"  # type of the event that says what was asked; read back by `scoring`


class Languages(Eval):
    """One model answers the questions of a set.

    shots: worked questions before each. letter: "score" takes the likeliest of the letters where the model tells
    log-probabilities, and asks for one at temperature 0 where it tells none, such as an endpoint that turns out to be
    for chat alone; "sample" always asks. chat: False puts what is asked for as text; by default it is a message.
    """

    kept = ("language",)

    def __init__(
        self, questions: QuestionSet, *, shots: int = 3, letter: str = "score", chat: bool | None = None
    ) -> None:
        if letter not in ("score", "sample"):
            raise EvalError(f"letter is {letter!r}; expected score or sample.")
        if shots < 0:
            raise EvalError(f"shots is {shots}; expected 0 or more.")
        args = {
            "set": questions.name, "digest": questions.digest, "languages": list(questions.languages), "shots": shots,
            "letter": letter, "chat": chat, "mmlu": questions.is_mmlu, "warnings": list(questions.warnings),
            "sources": [vars(source) for source in questions.sources],
        }  # fmt: skip
        spec = EvalSpec(
            "languages.test.v1", f"{type(self).__module__}:{type(self).__name__}", args, OWN, "languages",
            f"{questions.name} in {len(questions.languages)} languages", ("accuracy",),
        )  # fmt: skip
        super().__init__(spec, Registry((OWN,)))
        self.questions, self.shots, self.letter, self.chat = questions, shots, letter, chat
        self._scores: bool | None = None if letter == "score" else False  # None: not known yet

    def samples(self) -> Sequence[Sample]:
        return [{"number": number} for number in range(len(self.questions.questions))]

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        asked = self.questions.questions[sample["number"]]
        shots = shots_for(asked, self.questions.shots.get(asked.language, ()), self.shots)
        if len(shots) < self.shots:
            raise EvalError(f"{asked.language} has {len(shots)} worked questions of {self.shots}. Add some.")
        text = prompt_of(asked, shots)
        told: dict[str, Any] = {"language": asked.language, "question": asked.id, "subject": asked.subject}
        told |= {"place": asked.place, "flags": list(asked.flags), "group": asked.group}
        trial.record(EVENT, told)  # before it is asked, so that it is known of what could not be put
        scores = await self._score(text, trial)
        if scores is not None:
            picked: str | None = LETTERS[scores.index(max(scores))]
            how: dict[str, Any] = {"logprobs": scores}
        else:
            asking: Prompt = [{"role": "user", "content": f"{text}\n\n{LETTER_ONLY}"}]
            prompt = text if self.chat is False else asking
            reply = await trial.complete(prompt, temperature=0.0, max_tokens=16)
            picked, how = letter_of(reply), {"sampled": reply}
        trial.match(picked == asked.letter, expected=asked.letter, picked=picked, language=asked.language, **how)

    async def _score(self, text: str, trial: Trial) -> list[float] | None:
        """Log-probabilities of the letters; None where the model tells none."""
        if self._scores is False or not trial.can_score:
            return None
        try:
            scores = await trial.score(text, [f" {letter}" for letter in LETTERS])
        except ModelFailure as error:
            if self._scores or not error.lasting:
                raise
            self._scores = False  # what is wrong for good, such as a key, will tell when a letter is asked for
            return None
        self._scores = True
        return scores

    def report(self, tally: Tally) -> dict[str, Any]:
        """Accuracy over all questions, and of each language; intervals are `scoring.score_languages`'s."""
        by: dict[str, list[int]] = {}
        for code, right in zip(tally.kept["language"], tally.correct, strict=True):
            by.setdefault(code, []).append(right)
        return {"accuracy": tally.accuracy} | {f"accuracy_{code}": sum(own) / len(own) for code, own in by.items()}
