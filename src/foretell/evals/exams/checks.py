"""What is wrong, or odd, with questions before anyone is asked them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from foretell.errors import EvalError
from foretell.evals.exams.definition import Item, Section, SectionFile

MARK = re.compile(r"<image ([^<>]+)>")
_ODD = 1e-3  # a key this unlikely by chance is told of
_MOST_OPTIONS = 26


def check_item(spec: SectionFile, item: Item, where: str, base: Path | None = None) -> None:
    """Raises EvalError for a question that its section cannot ask or count. base: where its images lie."""
    if spec.kind == "choice":
        _check_choice(item, where)
    elif item.options:
        raise EvalError(f"{where}: options: a {spec.kind} question has none. Make the section's kind choice.")
    elif spec.kind == "free" and not (item.rubric or item.letters):
        raise EvalError(f"{where}: it has neither rubric nor answer, so it cannot be graded. Add one.")
    elif spec.kind == "free" and item.rubric and item.letters:
        raise EvalError(f"{where}: it has a rubric and an answer. Take one; what a grader goes by is `reference`.")
    named = set(MARK.findall(item.passage + item.question + "".join(item.options)))
    if lacking := sorted(named - set(item.images)):
        raise EvalError(f"{where}: images: the text shows {lacking[0]!r}, which images does not name. Add it.")
    for name, place in item.images.items():
        if not place.startswith("data:") and (base is None or not (base / place).is_file()):
            raise EvalError(f"{where}: images.{name}: {place} is not there. Put the file beside the exam.")


def check_shot(spec: SectionFile, item: Item, where: str) -> None:
    """Raises EvalError for a worked question without what makes it worked."""
    if spec.kind != "choice":
        raise EvalError(f"{where}: only choice sections have worked questions. Take out the section's shots.")
    _check_choice(item, where)
    if spec.explain and item.explanation is None:
        raise EvalError(f"{where}: explanation is missing, and worked questions show one. Add it, or explain: false.")


def _check_choice(item: Item, where: str) -> None:
    count = len(item.options)
    if not 2 <= count <= _MOST_OPTIONS:
        raise EvalError(f"{where}: options: there are {count}; a choice has 2 to {_MOST_OPTIONS}. Add or merge some.")
    if len(set(item.options)) < count:
        twice = next(text for text, n in Counter(item.options).items() if n > 1)
        raise EvalError(f"{where}: options: {twice[:60]!r} stands there twice. Make them differ.")
    allowed = [chr(ord("A") + i) for i in range(count)]
    if not item.letters:
        raise EvalError(f"{where}: answer: the gold is missing; expected a letter from A to {allowed[-1]}. Add it.")
    if wrong := next((letter for letter in item.letters if letter not in allowed), None):
        raise EvalError(f"{where}: answer: it is {wrong!r}; expected a letter from A to {allowed[-1]}. Mend it.")
    if len(set(item.letters)) < len(item.letters):
        raise EvalError(f"{where}: answer: a letter stands there twice. Mend it.")


def unbalanced(section: Section) -> list[str]:
    """What a taker could guess by without reading: letters that are right too often, the longest option, options that
    differ in number. Tests at one in a thousand: chi-squared over letters, binomial for the longest."""
    from scipy.stats import binomtest, chisquare

    items = [item for item in section.items if len(item.letters) == 1 and item.options]
    if section.spec.kind != "choice" or not items:
        return []
    notes, sizes = [], Counter(len(item.options) for item in items)
    if len(sizes) > 1:
        told = ", ".join(f"{n} with {size}" for size, n in sorted(sizes.items()))
        notes.append(f"Section {section.name}: its questions have different numbers of options ({told}).")
    counts = Counter(item.answer for item in items)
    expected: Counter[str] = Counter()
    for item in items:
        expected.update({chr(ord("A") + i): 1 / len(item.options) for i in range(len(item.options))})
    p = chisquare([counts[letter] for letter in expected], list(expected.values())).pvalue
    if p < _ODD:
        letter, n = counts.most_common(1)[0]
        notes.append(
            f"Section {section.name}: options are unbalanced: {letter} is right {n} of {len(items)} times "
            f"(p = {p:.1g}). Shuffle them, or a model that prefers a letter is misjudged."
        )
    longest = sum(_is_longest(item) for item in items)
    chance = sum(1 / len(item.options) for item in items) / len(items)
    p = binomtest(longest, len(items), chance, alternative="greater").pvalue
    if p < _ODD:
        notes.append(
            f"Section {section.name}: options are unbalanced: the right one is the longest in {longest} of "
            f"{len(items)} (p = {p:.1g}), so that questions need not be read."
        )
    return notes


def _is_longest(item: Item) -> bool:
    right = len(item.options[ord(item.letters[0]) - ord("A")])
    return right > max(len(o) for i, o in enumerate(item.options) if i != ord(item.letters[0]) - ord("A"))
