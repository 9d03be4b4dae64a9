"""The forms in which questions are published, row by row, and what is wrong with a row that is in none of them.

| form | columns |
|---|---|
| Global-MMLU | sample_id, subject, question, option_a … option_d, answer (A–D) |
| MMMLU | Question, A, B, C, D, Answer (A–D), Subject |
| MMLU | question, A, B, C, D, answer without a header; or question, choice0 … choice3, answer; or choices as a list |
| SEA-HELM | JSON lines with metadata, prompts, label |
| MGSM | question, tab, number; its options are made here |
| Foretell | JSON lines: id, language, subject, question, options, answer, as `exam languages translate` writes them |
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretell.errors import EvalError
from foretell.evals.languages.questions import LETTERS

Row = Mapping[str, Any]
_EXPECTED = (
    "question, option_a to option_d, answer (Global-MMLU); Question, A to D, Answer (MMMLU); question, A to D, answer "
    "without a header (MMLU); or JSON lines with question, options, answer"
)


@dataclass(frozen=True)
class Raw:
    """A row's own words, before they are checked. options: as many as it has room for. answer: as it stands."""

    question: Any
    options: Sequence[Any]
    answer: Any
    id: str = ""
    subject: str = ""
    language: str = ""
    instruction: str = ""
    flags: Sequence[str] = ()
    group: str | None = None


def form_of(columns: Sequence[str], place: str) -> tuple[str, Callable[[Row], Raw]]:
    """The form whose columns these are. Raises EvalError, naming what was found and expected, where there is none."""
    have = set(columns)
    for name, needed, read in _FORMS:
        if needed <= have:
            return name, read
    near = [(name, needed - have) for name, needed, _ in _FORMS]
    name, lacking = min(near, key=lambda one: len(one[1]))
    shown = ", ".join(str(column) for column in columns) or "nothing"
    raise EvalError(
        f"{place}: the columns are {shown[:200]}; {name}'s form lacks {', '.join(sorted(lacking))}. Expected "
        f"{_EXPECTED}. Rename the columns."
    )


def checked(raw: Raw, place: str, most: int = len(LETTERS)) -> tuple[str, tuple[str, ...], int]:
    """Question, options and index of the right one.

    Raises EvalError for an empty question, an option too few or too many, and gold that is missing or no option.
    """
    question = _text(raw.question)
    if not question:
        raise EvalError(f"{place}: the question is empty. Write it, or take the row out.")
    options = [_text(option) for option in raw.options]
    if lacking := [i for i, option in enumerate(options) if not option]:
        letters = ", ".join(LETTERS[i] if i < most else str(i + 1) for i in lacking)
        raise EvalError(
            f"{place}: {len(options) - len(lacking)} of {len(options)} options are there; {letters} is empty. Fill it "
            "in, or take the row out."
        )
    if len(options) != most:
        raise EvalError(f"{place}: there are {len(options)} options; expected {most}. Mend the row, or take it out.")
    return question, tuple(options), _gold(raw.answer, len(options), place)


def _gold(answer: Any, count: int, place: str) -> int:
    letters = LETTERS[:count]
    text = _text(answer)
    if not text:
        raise EvalError(
            f"{place}: there is no answer. Give the letter of the right option, {letters[0]}–{letters[-1]}."
        )
    bare = text.strip("().: ").upper()
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        if bare not in letters:
            raise EvalError(
                f"{place}: the answer is {text}, but the {count} options are {letters[0]}–{letters[-1]}. Mend the "
                "answer, or add the option."
            )
        return letters.index(bare)
    if re.fullmatch(r"\d+(\.0)?", bare):  # MMLU's later form counts from 0
        at = int(bare.partition(".")[0])
        if at >= count:
            raise EvalError(f"{place}: the answer is {at}, counted from 0, of {count} options. Mend it.")
        return at
    raise EvalError(f"{place}: the answer is {text[:40]!r}; expected a letter, {letters[0]}–{letters[-1]}. Mend it.")


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return str(value).strip()


def _global_mmlu(row: Row) -> Raw:
    options = [row[f"option_{letter}"] for letter in "abcd"]
    return Raw(row["question"], options, row.get("answer"), _text(row.get("sample_id")), _text(row.get("subject")),
               _text(row.get("language") or row.get("lang")))  # fmt: skip


def _mmmlu(row: Row) -> Raw:
    index = _text(row.get("") if "" in row else row.get("Unnamed: 0"))
    id = f"mmmlu/{index}" if index else ""
    return Raw(row["Question"], [row[letter] for letter in LETTERS], row["Answer"], id, _text(row.get("Subject")),
               _text(row.get("language") or row.get("Language")))  # fmt: skip


def _mmlu(row: Row) -> Raw:
    if "choices" in row or "options" in row:
        options: Sequence[Any] = row.get("choices", row.get("options"))
        options = options if isinstance(options, list | tuple) else []
    elif "choice0" in row:
        options = [row[f"choice{i}"] for i in range(4)]
    else:
        options = [row[letter] for letter in LETTERS]
    flags = row.get("flags") or ()
    return Raw(
        row["question"], options, row["answer"], _text(row.get("id")), _text(row.get("subject")),
        _text(row.get("language") or row.get("lang")), _text(row.get("instruction")),
        tuple(map(str, flags)) if isinstance(flags, list) else (), row.get("group"),
    )  # fmt: skip


def _seahelm(row: Row) -> Raw:
    prompts, about = row["prompts"], row["metadata"]
    asked = prompts[0] if isinstance(prompts, list) and prompts and isinstance(prompts[0], Mapping) else {}
    about = about if isinstance(about, Mapping) else {}
    options = [asked.get(f"option_{letter}") for letter in "abcd"]
    return Raw(asked.get("question"), options, row["label"], _text(about.get("sample_id") or row.get("id")),
               _text(asked.get("subject") or about.get("subject")), _text(about.get("language")))  # fmt: skip


_FORMS: tuple[tuple[str, frozenset[str], Callable[[Row], Raw]], ...] = (
    ("Global-MMLU", frozenset(("question", "option_a", "option_b", "option_c", "option_d", "answer")), _global_mmlu),
    ("MMMLU", frozenset(("Question", "A", "B", "C", "D", "Answer")), _mmmlu),
    ("MMLU", frozenset(("question", "choice0", "choice1", "choice2", "choice3", "answer")), _mmlu),
    ("MMLU", frozenset(("question", "choices", "answer")), _mmlu),
    ("MMLU", frozenset(("question", "A", "B", "C", "D", "answer")), _mmlu),
    ("Foretell", frozenset(("question", "options", "answer")), _mmlu),
    ("SEA-HELM", frozenset(("metadata", "prompts", "label")), _seahelm),
)


def mgsm_options(answer: str, number: int, place: str) -> tuple[tuple[str, ...], int]:
    """Four numbers, the right one among them, for row `number` of MGSM: the same in every language.

    Wrong ones are off as slips are: by one, two, ten or a hundred, doubled or halved. This is not MGSM's own protocol,
    in which the number is worked out and written (`foretell eval run mgsm`).
    Raises EvalError for an answer that is no whole number.
    """
    plain = answer.strip().replace(",", "")
    if not plain:
        raise EvalError(f"{place}: there is no answer behind the tab. Give the number.")
    if not re.fullmatch(r"-?\d+", plain):
        raise EvalError(f"{place}: the answer is {answer[:40]!r}; expected a whole number. Fetch the file again.")
    right, rng = int(plain), random.Random(f"mgsm/{number}")
    near = {right + step for step in (-10, -2, -1, 1, 2, 10)} | {2 * right, right // 2}
    near |= {right - 100, right + 100} if right > 100 else set()
    wrong = rng.sample(sorted(n for n in near if n != right and (n >= 0 or right < 0)), 3)
    at = rng.randrange(4)
    return tuple(str(n) for n in (*wrong[:at], right, *wrong[at:])), at
