"""An exam as an eval: each question is a sample, asked by its kind and scored in points."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretell.data.world.base import is_right
from foretell.errors import EvalError
from foretell.evals.academic_judges import read_letter
from foretell.evals.base import Eval, Tally, Trial
from foretell.evals.exams.asking import CLOSING, explanation_prompt, letter_prompt, response_prompt
from foretell.evals.exams.definition import Exam, Item, Section, points_of
from foretell.evals.exams.rubrics import grade_response
from foretell.evals.registry import OWN, EvalSpec, Registry
from foretell.evals.samples import Sample

METRIC = "share"  # of a question's points that was reached; what runs are compared by
EXPLANATION_TEMPERATURE, RESPONSE_TEMPERATURE = 0.3, 0.6
EXPLANATION_TOKENS, RESPONSE_TOKENS = 512, 1024


class Sitting(Eval):
    """One model sits one exam.

    vision: whether images are shown; else `IMAGE: <name>` stands in their place. graded: "model" where the last of the
    models grades rubrics, "person" where replies wait for a sheet. letter: "score" compares the log-probabilities of
    letters where the model tells them, "sample" always asks for one at temperature 0. chat: as of
    `academic.Benchmark`. attempt: which of the model's runs of a holdout this is.
    """

    kept = ("section",)

    def __init__(
        self,
        exam: Exam,
        *,
        vision: bool = True,
        graded: str = "model",
        letter: str = "score",
        chat: bool | None = None,
        attempt: int | None = None,
    ) -> None:
        settings = {"vision": vision, "graded": graded, "letter": letter, "chat": chat}
        args = {"exam": exam.file, "split": exam.split, "digest": exam.digest} | settings
        spec = EvalSpec(
            exam.eval_name, f"{type(self).__module__}:{type(self).__name__}", args, Path(exam.file).parent, "exams",
            exam.spec.title, (METRIC,),
        )  # fmt: skip
        super().__init__(spec, Registry((OWN,)))
        if graded not in ("model", "person") or letter not in ("score", "sample"):
            raise EvalError(f"{exam.name}: graded is {graded!r}, letter {letter!r}; see `Sitting`.")
        self.exam, self.vision, self.graded, self.letter, self.chat = exam, vision, graded, letter, chat
        self.attempt = attempt
        self.base = Path(exam.file).parent
        self._questions = exam.questions

    @property
    def needs_grader(self) -> bool:
        """Whether questions are graded by a rubric."""
        return any(section.spec.kind == "essay" or item.rubric for section, item in self._questions)

    def samples(self) -> Sequence[Sample]:
        return [
            {"number": number, "section": section.name}
            | ({"group": f"{section.name}/{item.group}"} if item.group is not None else {})
            for number, (section, item) in enumerate(self._questions)
        ]

    async def eval_sample(self, sample: Sample, trial: Trial) -> None:
        section, item = self._questions[sample["number"]]
        told = {"section": section.name, "question": item.id or str(sample["number"]), "number": sample["number"]}
        if section.spec.kind == "choice":
            await self._choose(section, item, trial, told)
        else:
            await self._respond(section, item, trial, told)

    def report(self, tally: Tally) -> dict[str, Any]:
        """The mean share of points; sections, scaled scores and percentiles are `scoring.score_exam`'s."""
        report: dict[str, Any] = {METRIC: tally.mean(METRIC)}
        if math.isnan(report[METRIC]):
            report = {}
        if tally.metrics.get("points"):
            report["points"] = math.fsum(v for v in tally.metrics["points"] if v is not None)
        return report | ({"attempt": self.attempt} if self.attempt is not None else {})

    async def _choose(self, section: Section, item: Item, trial: Trial, told: dict[str, Any]) -> None:
        spec, explanation = section.spec, ""
        chat = self._chats(item, trial)
        if spec.explain:
            explanation = await trial.complete(
                explanation_prompt(section, item, chat, self.vision, self.base),
                temperature=EXPLANATION_TEMPERATURE if spec.temperature is None else spec.temperature,
                max_tokens=spec.max_tokens or EXPLANATION_TOKENS,
                stop=[CLOSING],
            )
            explanation = explanation.split(CLOSING.strip())[0].strip()
        prompt = letter_prompt(section, item, explanation, chat, self.vision, self.base)
        letters = [chr(ord("A") + i) for i in range(len(item.options))]
        if self.letter == "score" and trial.can_score and len(item.letters) == 1 and isinstance(prompt, str):
            scores = await trial.score(prompt, [f"{letter}]" for letter in letters])
            group = {} if item.group is None else {"group": f"{section.name}/{item.group}"}
            trial.options(scores, letters.index(item.letters[0]), **group)
            picked = [letters[scores.index(max(scores))]]
            reply = picked[0]
        else:
            reply = await trial.complete(prompt, temperature=0.0, max_tokens=16, stop=["]"])
            picked = read_letters(reply, len(letters), several=len(item.letters) > 1)
        right = picked == sorted(item.letters)
        points = spec.points if right else spec.wrong if picked else spec.blank
        answer = {"expected": ", ".join(item.letters), "picked": ", ".join(picked) or None, "sampled": reply}
        trial.record("answer", told | answer | {"explanation": explanation, "blank": not picked})
        trial.metrics(**{METRIC: points / spec.points, "points": points})

    async def _respond(self, section: Section, item: Item, trial: Trial, told: dict[str, Any]) -> None:
        spec = section.spec
        exact = spec.kind == "free" and not item.rubric
        reply = await trial.complete(
            response_prompt(section, item, self._chats(item, trial), self.vision, self.base),
            temperature=RESPONSE_TEMPERATURE if spec.temperature is None else spec.temperature,
            max_tokens=spec.max_tokens or RESPONSE_TOKENS,
        )
        trial.record("answer", told | {"expected": item.letters or item.reference, "sampled": reply,
                                       "blank": not reply.strip()})  # fmt: skip
        most = points_of(spec, item)[1]
        if exact:
            points: float = most if any(is_right(reply, answer) for answer in item.letters) else 0.0
        elif self.graded == "person":
            return
        else:
            grades = await grade_response(section, item, reply, trial)
            trial.record("grades", told | {"grader": trial.fns[-1].name, "points": grades})
            points = float(sum(grades))
        trial.metrics(**{METRIC: points / most, "points": points})

    def _chats(self, item: Item, trial: Trial) -> bool:
        if self.vision and item.images:
            return True  # images travel in messages
        return not trial.can_score if self.chat is None else self.chat


def read_letters(reply: str, count: int, several: bool = False) -> list[str]:
    """The letters that a reply chooses, in order; none where it names none of the first `count`."""
    if several:
        plain = reply.strip().strip("[]().").upper()
        found = re.findall(r"\b([A-Z])\b", plain)
        return sorted({letter for letter in found if ord(letter) - ord("A") < count})
    bare = re.match(r"\W*([A-Z])(?![A-Za-z'’])", reply.strip())
    at = ord(bare[1]) - ord("A") if bare and ord(bare[1]) - ord("A") < count else read_letter(reply, count)
    return [] if at is None else [chr(ord("A") + at)]
