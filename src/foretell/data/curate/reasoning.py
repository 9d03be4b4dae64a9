"""Right and wrong, strong and weak reasoning: kept, and told apart by labels, as GPT-4's data had both."""

from __future__ import annotations

from typing import Literal

from foretell.data.curate.steps import Removed
from foretell.data.curate.texts import StepSection, labelled, removed, text_of
from foretell.data.document import Document

_YES = frozenset({"1", "true", "yes", "right", "correct", "passed", "pass", "accepted", "strong", "good"})
_NO = frozenset({"0", "false", "no", "wrong", "incorrect", "failed", "fail", "rejected", "weak", "bad"})


class ReasoningStep(StepSection):
    """Labels `answer` (right, wrong) and `reasoning` (strong, weak), from the labels that a source's own columns gave.

    answer_from: labels that say whether the answer is right, the first that is there counts. gold: a label with the
    right answer itself; the document is right if its text ends with it. reasoning_from: labels that say how good the
    reasoning is, as a word or a number; from `strong` on a number is strong. keep: GPT-4's data kept all.
    """

    step: Literal["reasoning"] = "reasoning"
    answer_from: tuple[str, ...] = ("answer", "correct", "is_correct", "label", "passed")
    gold: str | None = None
    reasoning_from: tuple[str, ...] = ("reasoning", "score", "rating")
    strong: float = 0.5
    keep: Literal["all", "right", "strong"] = "all"

    def __call__(self, document: Document) -> Document | Removed:
        labels = document.labels
        right = next((found for name in self.answer_from if (found := _truth(labels.get(name))) is not None), None)
        if self.gold is not None and labels.get(self.gold, "").strip():
            right = _ends_with(text_of(document), labels[self.gold].strip())
        strong = next(
            (found for name in self.reasoning_from if (found := self._strong(labels.get(name))) is not None), None
        )
        if self.keep == "right" and right is False:
            return removed(document, "reasoning.wrong")
        if self.keep == "strong" and strong is False:
            return removed(document, "reasoning.weak")
        new = {}
        if right is not None:
            new["answer"] = "right" if right else "wrong"
        if strong is not None:
            new["reasoning"] = "strong" if strong else "weak"
        return labelled(document, **new) if new else document

    def _strong(self, value: str | None) -> bool | None:
        try:
            return float(value) >= self.strong if value is not None else None
        except ValueError:
            return _truth(value)


def _truth(value: str | None) -> bool | None:
    word = (value or "").strip().lower()
    return True if word in _YES else False if word in _NO else None


def _ends_with(text: str, gold: str) -> bool:
    """Whether the last words are the answer, and no longer number or word that only ends alike."""
    text = text.rstrip(" \n.!$*}").lower()
    gold = gold.rstrip(" \n.!$*}").lower()
    if not text.endswith(gold):
        return False
    before = text[: len(text) - len(gold)][-1:]
    return not (before.isalnum() or before in (".", ",", "-"))
