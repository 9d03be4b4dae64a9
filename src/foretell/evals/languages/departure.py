"""Whether a translation is in doubt: how far its back-translation departs from the source, and what it lost.

The measure is chrF of the back-translation against the source, over question and options: the F-score (β = 2) of
character n-grams up to 6, spaces left out, 0 to 100, as sacrebleu computes it. It says how much of the words came back,
not whether the sense did: a lost "not" hardly shows in it, so rules stand beside it.
Source: Popović (2015), chrF: character n-gram F-score for automatic MT evaluation.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from foretell.errors import MissingExtraError

THRESHOLD = 40.0  # chrF below which a back-translation departs
_MARGIN = 10.0  # points of chrF that options must gain by changing places
_NUMBER = re.compile(r"\d+(?:[.,’'\u00a0\u202f]\d+|[ ]\d{3}(?!\d))*")
_NEGATION = re.compile(
    r"\b(?:not|no|none|never|neither|nor|without|except|cannot|false|incorrect|least|unlike|other than|\w+n['’]t)\b",
    re.IGNORECASE,
)
FLAGS = {
    "departs": "the back-translation is below the threshold of chrF",
    "swapped": "options come back as one another",
    "equal": "options that differ are translated alike",
    "numbers": "a number of the source is not in the translation",
    "negation": "the question was negated, and comes back without, or the other way round (English only)",
    "untranslated": "the question is as it was",
}


@dataclass(frozen=True)
class Text:
    """A question's own words."""

    question: str
    options: tuple[str, ...]

    def joined(self) -> str:
        return "\n".join([self.question, *self.options])


def chrf(text: str, reference: str) -> float:
    """chrF of a text, 0 to 100. Raises MissingExtraError without the package that computes it."""
    return float(_metric().sentence_score(text, [reference]).score)


def doubts(
    source: Text, translation: Text, back: Text, threshold: float = THRESHOLD, english: bool = True
) -> tuple[float, tuple[str, ...]]:
    """chrF of the back-translation, and why the translation is in doubt, by the names of FLAGS.

    english: whether the source is, whose negations are then compared.
    """
    score = chrf(back.joined(), source.joined())
    found = {
        "departs": score < threshold,
        "swapped": _swapped(source.options, back.options),
        "equal": len(set(translation.options)) < len(set(source.options)),
        "numbers": bool(numbers(source.joined()) - numbers(translation.joined())),
        "negation": english and bool(_NEGATION.search(source.question)) != bool(_NEGATION.search(back.question)),
        "untranslated": _same(source.question, translation.question),
    }
    return score, tuple(name for name in FLAGS if found[name])


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, in digits of any script, without what groups them."""
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return Counter(re.sub(r"\D", "", number) for number in _NUMBER.findall(plain))


def _swapped(source: Sequence[str], back: Sequence[str]) -> bool:
    """Whether the options come back so that another order fits the source clearly better."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    likeness = np.array([[chrf(text, reference) for reference in source] for text in back])
    _, order = linear_sum_assignment(-likeness)
    own = float(np.trace(likeness))
    return bool(likeness[np.arange(len(order)), order].sum() > own + _MARGIN)


def _same(source: str, translation: str) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", source)
    return len(words) >= 3 and source.casefold().split() == translation.casefold().split()


@cache
def _metric() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ModuleNotFoundError as error:
        raise MissingExtraError("Checking a translation", "evals") from error
    return CHRF()
