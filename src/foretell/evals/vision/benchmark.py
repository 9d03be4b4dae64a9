"""A published visual benchmark by its published measure, from its published files."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from foretell.chat import Conversation, ImagePart, Message, Part, TextPart
from foretell.errors import EvalError
from foretell.evals.academic_files import PLACE, below_place
from foretell.evals.base import listed
from foretell.evals.samples import Sample
from foretell.evals.vision.files import Question, picture
from foretell.evals.vision.forms import FORMS, Source, read_form
from foretell.evals.vision.looking import Looking, guessed
from foretell.evals.vision.measures import MEASURES, chosen, final_part
from foretell.evals.visual import majority

LETTERED = "Answer with the letter of the right option."
THINK = 'Think step by step, then end with a line that starts with "Answer:".'
LAYOUTS = ("turns", "text")


class VisualBenchmark(Looking):
    """A published visual benchmark.

    form: of `forms.FORMS`. files: its questions below FORETELL_DATA/benchmarks; path: the same elsewhere, in their
    place; annotations: of VQAv2; images: a folder other than the published layout's. parts: only these; default all.
    present_only: leave out questions whose pictures are not there, which are counted; otherwise they are invalid.
    num_few_shot: worked samples with their pictures; of `shots` (with shots_annotations, shots_images), a file of the
    same form, which is also what the majority is taken of; otherwise they are drawn by `seed` among the other
    questions, and the majority is that of the questions themselves. cot: ask for reasoning; worked samples then have to
    show theirs. layout: worked samples as turns of a conversation ("turns") or in one text with its pictures between
    ("text").
    """

    form: str
    files: str = ""
    path: str = ""
    annotations: str = ""
    images: str = ""
    parts: str | Sequence[str] = ()
    present_only: bool = False
    num_few_shot: int = 0
    shots: str = ""
    shots_annotations: str = ""
    shots_images: str = ""
    cot: bool = False
    layout: str = "turns"
    max_tokens = 0

    def prepare(self) -> None:
        super().prepare()
        if self.form not in FORMS:
            known = ", ".join(FORMS)
            raise EvalError(f"{self.spec.name}: there is no visual benchmark {self.form!r}; choose from {known}.")
        if self.layout not in LAYOUTS:
            raise EvalError(f"{self.spec.name}: layout is {self.layout!r}; choose from {', '.join(LAYOUTS)}.")
        self.max_tokens = self.max_tokens or (512 if self.cot else 64)
        self.parts, self.published = listed(self.parts), FORMS[self.form]
        self.measure = self.published.measure
        self._measure = MEASURES.get(self.measure, MEASURES["exact_match"])
        self._left_out = 0

    @cached_property
    def questions(self) -> list[Question]:
        path = self.path or below_place(self.files)
        if not path:
            raise EvalError(
                f"{self.spec.name} comes without its data. Give its published file: --extra-eval-params path=FILE"
                + (f", or put it below {PLACE}/benchmarks as {self.files}." if self.files else ".")
            )
        found = read_form(self.form, _source(path, self.annotations, self.images), self.parts)
        if self.present_only:
            there = [question for question in found if all(image.is_file() for image in question.images)]
            self._left_out = len(found) - len(there)
            if not there:
                raise EvalError(
                    f"None of the {len(found)} questions of {path} has its image, such as {found[0].images[0]}."
                )
            found = there
        return found

    @cached_property
    def pool(self) -> list[Question]:
        """Questions for worked samples and the majority: those of `shots`, else the benchmark's own."""
        shots = _source(self.shots, self.shots_annotations, self.shots_images)
        return read_form(self.form, shots) if self.shots else self.questions

    @cached_property
    def prior(self) -> dict[tuple[str, str], str]:
        apart = bool(self.shots)  # a question's own words would tell its own answer
        return majority((q.part, q.text if apart else "", _usual(q)) for q in self.pool)

    @cached_property
    def drawn(self) -> list[Question]:
        """Worked samples in the order in which they are taken."""
        able = [q for q in self.pool if not self.cot or q.worked]
        if self.num_few_shot and not able:
            raise EvalError(
                f"{self.spec.name}: worked samples are to reason, and none of {len(self.pool)} shows its reasoning. "
                "Give `shots`: a file of the same form whose rows have a rationale, or cot=false."
            )
        if not self.num_few_shot:
            return []
        order = random.Random(self.seed).sample(able, len(able))
        there = (q for q in order if all(image.is_file() for image in q.images))
        return list(itertools.islice(there, 4 * self.num_few_shot + 4))

    def samples(self) -> Sequence[Sample]:
        if self.num_few_shot:
            _ = self.drawn  # told before anything is asked
        return [
            {
                "key": q.id,
                "question": q,
                "part": q.part,
                "group": q.group,
                "place": q.place,
                "ideal": list(q.ideal),
                "query": q.text,
                "options": list(q.options),
            }
            for q in self.questions
        ]

    def others(self, sample: Sample) -> Sequence[Sample]:
        own = super().others(sample)
        if any(not self.same_pictures(sample, other) for other in own):
            return own
        return [other for among in self.by_part.values() for other in among]

    def same_pictures(self, sample: Sample, other: Sample) -> bool:
        return bool(sample["question"].images == other["question"].images)

    def pictures(self, sample: Sample) -> list[ImagePart]:
        return _pictures(sample["question"])

    def asked(self, sample: Sample) -> tuple[Conversation, int]:
        question: Question = sample["question"]
        own = _pictures(question)
        shots = [q for q in self.drawn if q.images != question.images and q.id != question.id][: self.num_few_shot]
        if len(shots) < self.num_few_shot:
            raise EvalError(f"{question.place}: there are {len(shots)} worked samples for it, not {self.num_few_shot}.")
        messages: list[Message] = []
        if self.layout == "text":
            parts: list[Part] = []
            for shot in shots:
                parts += [*_pictures(shot), TextPart(f"{self._text(shot)}\n{self._worked(shot)}\n\n")]
            messages.append(Message("user", (*parts, *own, TextPart(self._text(question)))))
        else:
            for shot in shots:
                messages.append(Message("user", (*_pictures(shot), TextPart(self._text(shot)))))
                messages.append(Message("assistant", (TextPart(self._worked(shot)),)))
            messages.append(Message("user", (*own, TextPart(self._text(question)))))
        return Conversation(tuple(messages)), len(own)

    def _text(self, question: Question) -> str:
        lines = [question.text]
        ask = self.published.ask
        if question.options and self.published.listed:
            if self._lettered(question):
                lines += [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options)]
                ask = LETTERED
            else:
                ask = f"Answer with one of {', '.join(question.options)}."
        return "\n".join([*lines, f"{ask} {THINK}" if self.cot else ask])

    def _worked(self, question: Question) -> str:
        answer = _usual(question) if question.gold is None else self._option(question, question.gold)
        return f"{question.worked.strip()}\nAnswer: {answer}" if self.cot else answer

    def judged(self, reply: str, sample: Sample) -> tuple[dict[str, float], str]:
        question: Question = sample["question"]
        answer = final_part(reply)
        if question.gold is not None:
            at = chosen(answer, reply, question.options, self._lettered(question))
            return {self.measure: float(at == question.gold)}, "" if at is None else question.options[at]
        more = {name: MEASURES[name](answer, question.ideal) for name in self.published.more}
        return {self.measure: self._measure(answer, question.ideal), **more}, answer

    def guess(self, sample: Sample) -> str:
        question: Question = sample["question"]
        said = guessed(self.prior, question.part, question.text)
        if question.gold is not None:
            return self._option(question, min(int(said or 0), len(question.options) - 1))
        return said

    def _option(self, question: Question, at: int) -> str:
        """An option as it is to be answered."""
        return chr(ord("A") + at) if self._lettered(question) else question.options[at]

    def _lettered(self, question: Question) -> bool:
        """Whether options get letters: not where they are letters of the picture themselves."""
        return self.published.listed and not all(len(option.strip()) == 1 for option in question.options)

    def answers(self, sample: Sample) -> Sequence[str]:
        question: Question = sample["question"]
        return [self._option(question, at) for at in range(len(question.options))]

    def chance(self, sample: Sample) -> float | None:
        options = sample["question"].options
        return 1 / len(options) if options else None

    def told(self) -> dict[str, Any]:
        of = "other questions of the same form" if self.shots else "the questions themselves"
        found: dict[str, Any] = {
            "protocol": {
                "shots": self.num_few_shot,
                "chain_of_thought": self.cot,
                "layout": self.layout,
                "by": self.by,
            },
            "majority_of": of,
        }
        return found | ({"without_image": self._left_out} if self.present_only else {})


def _source(path: str, annotations: str, images: str) -> Source:
    there = [Path(text).expanduser() if text else None for text in (annotations, images)]
    return Source(Path(path).expanduser(), there[0], there[1])


def _pictures(question: Question) -> list[ImagePart]:
    return [picture(image, question.place) for image in question.images]


def _usual(question: Question) -> str:
    """The right answer that most gave; of a closed question its place among the options."""
    if question.gold is not None:
        return str(question.gold)
    return Counter(question.ideal).most_common(1)[0][0]
