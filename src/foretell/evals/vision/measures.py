"""Measures of visual benchmarks: each maps an answer and the right ones to a score from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from foretell.data.world.base import is_right
from foretell.evals.academic_judges import read_letter
from foretell.evals.basic import f1, normalize
from foretell.evals.vision.normal import textvqa_normal, vqa_normal

NEAR = 0.5  # of an edit similarity, below which an answer is taken for another word
TOLERANCE = 0.05  # of a number read off a chart
_AGREE = 3  # annotators who make an answer right
_FINAL = re.compile(r"(?:final\s+answer|answer)\s*(?:is|:)\s*:?", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_FRACTION = re.compile(r"\\[dt]?frac\{?(-?\d+)\}?\{?(\d+)\}?")


def vqa_score(answer: str, annotators: Sequence[str]) -> float:
    """VQA's score: of each annotator left out in turn, min(1, others who gave the answer / 3), averaged.

    Answers are written alike on both sides first (`vqa_normal`). The published code does so where annotators differ;
    where they all agree it compares letter by letter, so that "Yes" would be wrong: that is not followed.
    Source: Antol et al. (2015), arXiv 1505.00468, section 4; Goyal et al. (2017), arXiv 1612.00837; their code.
    """
    return _left_out(vqa_normal(answer), [vqa_normal(gold) for gold in annotators])


def textvqa_score(answer: str, annotators: Sequence[str]) -> float:
    """The same with TextVQA's way of writing answers, which is put on the annotators' as well.

    Source: Singh et al. (2019), arXiv 1904.08920; its evaluator in MMF.
    """
    return _left_out(textvqa_normal(answer), [textvqa_normal(gold) for gold in annotators])


def _left_out(answer: str, golds: Sequence[str]) -> float:
    """(m · min(1, (m − 1) / 3) + (n − m) · min(1, m / 3)) / n, m of n annotators having given the answer."""
    n, m = len(golds), sum(gold == answer for gold in golds)
    return (m * min(1.0, (m - 1) / _AGREE) + (n - m) * min(1.0, m / _AGREE)) / n if n else 0.0


def relaxed_accuracy(answer: str, golds: Sequence[str]) -> float:
    """1 for a number within 5 % of a right one, or another answer that is the same but for case; else 0.

    A number may end in "%"; one of 0 is compared as text, as the published code does.
    Source: Methani et al. (2020), arXiv 1909.00997; Masry et al. (2022), arXiv 2203.10244, section 5.1.
    """
    return float(any(_relaxed(answer, gold) for gold in golds))


def _relaxed(answer: str, gold: str) -> bool:
    told, right = _percentage(answer), _percentage(gold)
    if told is not None and right:
        return abs(told - right) / abs(right) <= TOLERANCE
    return answer.lower() == gold.lower()


def _percentage(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(answer: str, golds: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity, of one question: 1 − edits / longer length for the nearest right
    answer, without case and outer or doubled space; 0 below 0.5.

    At exactly 0.5 the published code scores 0.5, where the paper's formula has 0; this follows the code.
    Source: Biten et al. (2019), arXiv 1907.00490; DocVQA's and InfographicVQA's evaluation.
    """
    told = " ".join(answer.lower().split())
    best = max((_similarity(told, " ".join(gold.lower().split()), NEAR) for gold in golds), default=0.0)
    return best if best >= NEAR else 0.0


def edit_similarity(answer: str, golds: Sequence[str]) -> float:
    """1 − edits / longer length for the nearest right answer, whatever it is: how much of a page's source is right."""
    return max((_similarity(answer.strip(), gold.strip(), 0.0) for gold in golds), default=0.0)


def _similarity(a: str, b: str, least: float) -> float:
    """1 − Levenshtein distance / longer length; 0 where the lengths alone put it below `least`."""
    longest = max(len(a), len(b))
    if not longest:
        return 1.0
    if 1 - abs(len(a) - len(b)) / longest < least:
        return 0.0
    return 1 - levenshtein(a, b) / longest


def levenshtein(a: str, b: str) -> int:
    """Insertions, deletions and substitutions of a character that turn one text into the other.

    Source: Wagner and Fischer (1974), Journal of the ACM 21:168.
    """
    before = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other)))
        before = row
    return before[-1]


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 for a right answer but for case, punctuation, English articles and space.

    Source: SQuAD's evaluation, Rajpurkar et al. (2016), arXiv 1606.05250.
    """
    return float(any(normalize(answer) == normalize(gold) for gold in golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """F1 of the bags of words with the best right answer, written as in `exact_match`. Source: as there."""
    return max((f1(answer, gold) if normalize(gold) else exact_match(answer, [gold]) for gold in golds), default=0.0)


def math_match(answer: str, golds: Sequence[str]) -> float:
    """1 for a right answer of mathematics: the same but for LaTeX's wrapping, or the same number to two decimals.

    Terms are not brought into one form by algebra, as MATH-Vision's own code does with latex2sympy.
    Source: Wang et al. (2024), arXiv 2402.14804, evaluation code.
    """
    return float(any(_same_term(answer, gold) for gold in golds))


def _same_term(answer: str, gold: str) -> bool:
    told, right = _term(answer), _term(gold)
    if not told or not right:
        return False
    a, b = _value(told), _value(right)
    return told == right or (a is not None and b is not None and round(a, 2) == round(b, 2))


def _term(text: str) -> str:
    plain = text.strip().strip("$").lower().rpartition("=")[2]
    plain = _FRACTION.sub(r"\1/\2", plain)
    plain = re.sub(r"\\text\s*\{[^}]*\}|\\left|\\right|\\!|\\,|\^\{?\\circ\}?|°|\\?%|\s", "", plain)
    return plain.rstrip(".").strip("$")


def _value(term: str) -> float | None:
    try:
        return float(Fraction(term.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        return None


def world_match(answer: str, golds: Sequence[str]) -> float:
    """1 for the generated world's answers, as `data.world.is_right` has it."""
    return float(any(is_right(answer, gold) for gold in golds))


Measure = Callable[[str, Sequence[str]], float]
MEASURES: dict[str, Measure] = {
    "vqa_score": vqa_score,
    "textvqa_score": textvqa_score,
    "relaxed_accuracy": relaxed_accuracy,
    "anls": anls,
    "exact_match": exact_match,
    "token_f1": token_f1,
    "math_match": math_match,
    "edit_similarity": edit_similarity,
    "world_match": world_match,
}


def final_part(reply: str) -> str:
    """What of a reply is the answer: the last \\boxed{…}; else what follows the last "answer is" or "Answer:" on its
    line; else its first line. Without quotes, asterisks and a full stop around it."""
    if boxes := list(_BOXED.finditer(reply)):
        return _braced(reply[boxes[-1].end() :]).strip()
    line = (reply.strip().splitlines() or [""])[0]
    if marks := list(_FINAL.finditer(reply)):
        line = (reply[marks[-1].end() :].strip().splitlines() or [""])[0]
    return _bare(line)


def _bare(line: str) -> str:
    plain = line.strip().strip("*").strip()
    if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'`":
        plain = plain[1:-1]
    return plain.removesuffix(".").strip().rstrip("*")


def _braced(text: str) -> str:
    """Up to the brace that closes."""
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if not depth:
            return text[:i]
    return text


def chosen(answer: str, reply: str, options: Sequence[str], lettered: bool = True) -> int | None:
    """The option that a reply picks; None where it picks none.

    It is the one whose words the answer is; else the letter that is told, where options are lettered; else the only one
    that stands in the answer as a word.
    """
    plain = answer.casefold().strip(" ().:'\"")
    same = [i for i, option in enumerate(options) if option.casefold().strip(" .") == plain]
    if len(same) == 1:
        return same[0]
    if lettered:
        found = read_letter(answer, len(options))
        return read_letter(reply, len(options)) if found is None else found
    within = [i for i, option in enumerate(options) if re.search(rf"\b{re.escape(option)}\b", answer, re.IGNORECASE)]
    return within[0] if len(within) == 1 else None
