"""How a question in any language is put, by appendix F of the GPT-4 report, and how a letter is read from a reply."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from foretell.data.world.parallel import grammar, languages
from foretell.evals.exams.sitting import read_letters
from foretell.evals.languages.questions import LETTERS, Question

ANSWER = "Answer:"  # English in every language, as the letters are
LETTER_ONLY = "Write the letter of the answer, and nothing else."
_ENGLISH = "A highly knowledgeable and intelligent artificial intelligence model answers multiple-choice questions"
_ALONE = re.compile(rf"(?<![A-Za-z])[{LETTERS}](?![A-Za-z])")


def prompt_of(question: Question, shots: Sequence[Question]) -> str:
    """The instruction, worked questions with their letters, then the question up to "Answer:".

    Instruction, questions and options are in the question's language, "Answer:" and the letters in English.
    Source: GPT-4 Technical Report (2023), appendix F; the instruction is Gopher's (Rae et al. 2021, arXiv 2112.11446).
    """
    worked = [f"{put(shot)} {shot.letter}\n\n" for shot in shots]
    return "".join([instruction_of(question), "\n\n", *worked, put(question)])


def put(question: Question) -> str:
    """A question with lettered options, up to "Answer:"."""
    options = [f"{letter}) {text}" for letter, text in zip(LETTERS, question.options, strict=True)]
    return "\n".join([question.question, *options, ANSWER])


def instruction_of(question: Question) -> str:
    """What the model is told: what came with the question, else in its language where there is a grammar of it, else in
    English; in English with the subject."""
    if question.instruction:
        return question.instruction
    if question.language != "en" and question.language in languages():
        return grammar(question.language).instruction
    return english_instruction(question.subject)


def english_instruction(subject: str) -> str:
    """The instruction in English, with the subject where there is one."""
    return f"{_ENGLISH} about {subject.replace('_', ' ')}." if subject else f"{_ENGLISH}."


def shots_for(question: Question, worked: Sequence[Question], count: int) -> list[Question]:
    """`count` worked questions of the subject, filled up with others where it has fewer."""
    own = [q for q in worked if q.subject == question.subject and q.id != question.id]
    other = [q for q in worked if q.subject != question.subject and q.id != question.id]
    return [*own, *other][:count]


def letter_of(reply: str) -> str | None:
    """The letter that a reply chooses; None where it names none, or several.

    Full-width letters count, and letters between words of any script: "答案是Ｂ。" chooses B.
    """
    plain = unicodedata.normalize("NFKC", reply).strip()
    found: set[str] = set(_ALONE.findall(plain))
    # In English words a lone A may be the article, but not at the end.
    if len(found) == 1 and (found != {"A"} or not plain.isascii() or plain.rstrip(" .!)*]").endswith("A")):
        return found.pop()
    read = read_letters(plain, len(LETTERS))
    return read[0] if read else None
