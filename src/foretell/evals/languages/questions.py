"""A question in a language, and a set of them: what is asked, what is shown before it, where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foretell.errors import EvalError
from foretell.evals.languages.published import MMLU_SUBJECTS

LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    id: the same in every language that it was put into. gold: index of the right option. subject: what its score is
    reported under; group: questions that share one do not count as independent. place: file and line, for messages.
    instruction: what the model is told before it, in the question's language. flags: why its translation is in doubt.
    """

    id: str
    language: str
    question: str
    options: tuple[str, ...]
    gold: int
    subject: str = ""
    group: str | None = None
    place: str = field(default="", compare=False)
    instruction: str = ""
    flags: tuple[str, ...] = ()

    @property
    def letter(self) -> str:
        return LETTERS[self.gold]


@dataclass(frozen=True)
class Source:
    """A file that was read: its form, how many questions it gave, the SHA-256 of its bytes ("" of what was made)."""

    name: str
    form: str
    questions: int
    sha256: str = ""


@dataclass(frozen=True)
class QuestionSet:
    """Questions in one or more languages. shots: worked ones, by language. warnings: what is allowed but odd."""

    name: str
    questions: tuple[Question, ...]
    shots: Mapping[str, Sequence[Question]]
    sources: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order of their first question."""
        return tuple(dict.fromkeys(q.language for q in self.questions))

    @property
    def is_mmlu(self) -> bool:
        """Whether the questions are MMLU's, by their subjects, so that published figures are of the same ones."""
        return all(q.subject in MMLU_SUBJECTS for q in self.questions)

    @property
    def digest(self) -> str:
        """Of all that is asked and shown."""
        shown = [q for shots in self.shots.values() for q in shots]
        rows = [
            [q.id, q.language, q.subject, q.question, list(q.options), q.gold, q.instruction, list(q.flags)]
            for q in (*self.questions, *shown)
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    def of(self, codes: Sequence[str]) -> QuestionSet:
        """Only these languages, in this order. Raises EvalError for one that the set has not."""
        if lacking := [code for code in codes if code not in self.languages]:
            raise EvalError(f"{self.name} has no questions in {lacking[0]}; it has {', '.join(self.languages)}.")
        kept = tuple(q for code in codes for q in self.questions if q.language == code)
        return replace(self, questions=kept, shots={code: self.shots.get(code, ()) for code in codes})

    def take(self, most: int | None, seed: int = 0) -> QuestionSet:
        """At most so many questions of each language: the same ones wherever languages share them."""
        if most is None:
            return self
        order = {q.id: hashlib.sha256(f"{seed}/{q.id}".encode()).hexdigest() for q in self.questions}
        counts: dict[str, int] = {}
        for id in {(q.id, q.language) for q in self.questions}:
            counts[id[0]] = counts.get(id[0], 0) + 1
        kept = []
        for code in self.languages:
            own = [q for q in self.questions if q.language == code]
            # Those that more languages have come first, so that languages are compared on the same questions.
            chosen = {q.id for q in sorted(own, key=lambda q: (-counts[q.id], order[q.id]))[:most]}
            kept += [q for q in own if q.id in chosen]
        return replace(self, questions=tuple(kept))


def with_shots(name: str, asked: Sequence[Question], worked: Sequence[Question], count: int,
               sources: Sequence[Source] = (), warnings: Iterable[str] = ()) -> QuestionSet:  # fmt: skip
    """A set of the questions, with at least `count` worked ones in every language.

    Where a language has too few, others are drawn from its own questions, by their ids alone, and are not asked then in
    any language. Raises EvalError where that leaves none to ask.
    """
    told = list(warnings)
    shots: dict[str, list[Question]] = {}
    for q in worked:
        shots.setdefault(q.language, []).append(q)
    codes = list(dict.fromkeys(q.language for q in asked))
    short = [code for code in codes if len(shots.get(code, ())) < count]
    held: set[str] = set()
    if short and count:
        have = {code: {q.id for q in asked if q.language == code} for code in short}
        common = set.intersection(*have.values())
        pool = {code: common if len(common) >= count else have[code] for code in short}
        for code in short:
            ids = sorted(pool[code], key=lambda id: hashlib.sha256(f"shot/{id}".encode()).hexdigest())[:count]
            own = {q.id: q for q in asked if q.language == code}
            shots[code] = [own[id] for id in ids]
            held.update(ids)
        told.append(
            f"no worked questions came with {', '.join(short)}: {count} of the questions themselves are shown instead, "
            "and are not asked"
        )
    kept = tuple(q for q in asked if q.id not in held)
    if lost := next((code for code in codes if all(q.language != code for q in kept)), None):
        raise EvalError(
            f"{name} has too few questions in {lost} to show {count} of them and ask others. Give worked questions (a "
            "file with dev in its name), or lower --shots."
        )
    return QuestionSet(name, kept, {code: shots.get(code, ()) for code in codes}, tuple(sources), tuple(told))


def to_row(q: Question, **more: Any) -> dict[str, Any]:
    """A question as a row of JSON lines, as `reading` reads it."""
    row: dict[str, Any] = {"id": q.id, "language": q.language, "subject": q.subject, "question": q.question}
    row |= {"options": list(q.options), "answer": q.letter}
    row |= {"group": q.group} if q.group is not None else {}
    row |= {"instruction": q.instruction} if q.instruction else {}
    return row | {"flags": list(q.flags)} | more
