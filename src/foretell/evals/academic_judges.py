"""How published benchmarks read an answer and score it, each by its own rules."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from foretell.evals.basic import f1, normalize

_NUMBER = re.compile(r"-?\$?\d[\d.,]*")
_GROUPED = re.compile(r"-?\d{1,3}([.,  ])\d{3}(?:\1\d{3})*")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LETTERS = (
    r"(?i:answer(?:\s+is)?)\s*:?\s*\**\s*\(?([A-Z])\b",
    r"^\W*([A-Z])(?=[).:,]|\s*$)",
    r"\(([A-Z])\)",
    r"^\W*([B-HJ-Z])\b",
)


def last_number(text: str) -> Decimal | None:
    """The number after "####" where it is written, else the last number; None where there is none.

    Digits of any script count; currency signs and commas between digits do not.
    Source: GSM8K, Cobbe et al. (2021), arXiv 2110.14168.
    """
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    marked = _NUMBER.match(plain.split("####")[1].lstrip(" $")) if "####" in plain else None
    found = [marked] if marked else list(_NUMBER.finditer(plain))
    return _decimal(found[-1][0].replace(",", "")) if found else None


def same_number(reply: str, ideal: str, any_grouping: bool = False) -> bool:
    """Whether the last number of a reply is the ideal's value.

    any_grouping: 70.000 and 70 000 are taken for 70000 where that is the ideal, as many languages write it.
    """
    right = last_number(ideal)
    if right is None:
        return False
    if last_number(reply) == right:
        return True
    found = list(_GROUPED.finditer(reply)) if any_grouping else []
    return bool(found) and _decimal(re.sub(r"[^\d-]", "", found[-1][0])) == right


def bbh_answer(reply: str) -> str:
    """What follows the last "answer is" on its line, without full stop, or the option it begins with; "" if nothing.

    Source: BIG-Bench Hard, Suzgun et al. (2022), arXiv 2210.09261, whose worked samples all end so.
    """
    _, told, rest = reply.rpartition("answer is")
    line = rest.strip(" *:").split("\n")[0].rstrip(" *").removesuffix(".").rstrip(" *") if told else ""
    option = re.match(r"\([A-Z]\)", line)
    return option[0] if option else line


def read_letter(reply: str, count: int) -> int | None:
    """The index of the lettered answer, of `count`, that a reply chooses; None where it names none."""
    for pattern in _LETTERS:
        found = [ord(letter) - ord("A") for letter in re.findall(pattern, reply.strip(), re.MULTILINE)]
        if found and found[0] < count:
            return found[0]
    return None


def first_word(text: str) -> str:
    """The first word of a continuation, without what is not part of it."""
    words = text.split()
    return words[0].strip(string.punctuation + "“”‘’…—") if words else ""


def coqa_scores(reply: str, golds: Sequence[str]) -> dict[str, float]:
    """{"f1", "em"} of a reply; with several references the mean over leaving out each, as people were scored.

    Source: CoQA's evaluation script, Reddy et al. (2019), arXiv 1808.07042.
    """
    told = reply.strip().split("\n")[0]
    sets = [[*golds[:i], *golds[i + 1 :]] for i in range(len(golds))] if len(golds) > 1 else [list(golds)]
    return {
        "f1": sum(max(_f1(told, gold) for gold in left) for left in sets) / len(sets),
        "em": sum(max(normalize(told) == normalize(gold) for gold in left) for left in sets) / len(sets),
    }


def drop_scores(reply: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """{"f1", "em"} of the spans that were answered, with the best of the references.

    Source: DROP's evaluation script, Dua et al. (2019), arXiv 1903.00161.
    """
    best = {"f1": 0.0, "em": 0.0}
    for gold in golds:
        if gold and gold[0].strip():
            told, right = [_drop_plain(span) for span in reply], [_drop_plain(span) for span in gold]
            best["em"] = max(best["em"], float(set(told) == set(right) and len(told) == len(right)))
            best["f1"] = max(best["f1"], _aligned(told, right))
    return best


def _f1(told: str, gold: str) -> float:
    plain = normalize(told), normalize(gold)
    return f1(told, gold) if all(plain) else float(plain[0] == plain[1])


def _aligned(told: Sequence[str], gold: Sequence[str]) -> float:
    """Mean F1 of the best one-to-one pairing, where pairs must share a number if the gold span has one."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    scores = np.array([[_bag_f1(set(t.split()), set(g.split())) for t in told] for g in gold])
    rows, columns = linear_sum_assignment(-scores)
    return round(float(scores[rows, columns].sum()) / max(len(gold), len(told)), 2)


def _bag_f1(told: set[str], gold: set[str]) -> float:
    numbers = {word for word in gold if _is_number(word)}
    if numbers and not numbers & told:
        return 0.0
    same = len(told & gold)
    precision, recall = (same / len(bag) if bag else 1.0 for bag in (told, gold))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _drop_plain(text: str) -> str:
    return " ".join(word for token in re.split("[ -]", text.lower()) for word in [_drop_token(token)] if word)


def _drop_token(token: str) -> str:
    if not _is_number(token):
        token = "".join(c for c in token if c not in string.punctuation)
    if _is_number(token):
        token = str(float(token))
    return " ".join(_ARTICLES.sub(" ", token).split())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace("$", "").rstrip(".,"))
    except InvalidOperation:  # 1.2.3
        return None
