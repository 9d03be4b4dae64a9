"""Moderation in two stages, rules and a classifier, judged by the policy; and OpenAI's form of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from foretell.errors import PolicyError
from foretell.safety.classifier import load_classifier
from foretell.safety.normalize import normalize
from foretell.safety.policy import SCORED, Action, Policy, load_policy, strictest
from foretell.safety.rules import Hit, Lexicon, load_lexicon

PIECE = 1000
"""Characters a classifier reads at a time: in a longer text, a bad passage would drown among the rest."""
OVERLAP = 200


class Scorer(Protocol):
    """How likely each category holds: the packaged classifier, or a head on a model of one's own."""

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, 13): from 0 to 1, in the order of `foretell.safety.policy.SCORED`."""
        ...


@dataclass(frozen=True)
class Finding:
    """What was found in a text.

    scores: of the 13 scored categories; a rule that hits lifts its category's to at least the flag level. flagged: all
    categories with an action, those without scores too. category: the one whose action counts. rule: the rule that
    brought its category there, and span its place in the text; None where the classifier did. words: what to say
    instead of an answer, where it is refused or blocked.
    """

    scores: Mapping[str, float]
    flagged: tuple[str, ...]
    action: Action
    category: str | None
    rule: str | None
    span: tuple[int, int] | None
    words: str | None


class Moderation:
    """Rules and a classifier together. scorer: None for rules alone; all scores are then what the rules say."""

    def __init__(self, policy: Policy, lexicon: Lexicon, scorer: Scorer | None) -> None:
        """Raises PolicyError for a rule of a category that the policy does not have."""
        for rule in lexicon.rules:
            if rule.category not in policy.categories:
                raise PolicyError(
                    f"Rule {rule.name} is of {rule.category}, of which the policy says nothing. Add it to the policy."
                )
        self.policy, self.lexicon, self.scorer = policy, lexicon, scorer

    @classmethod
    def packaged(cls) -> Moderation:
        """The policy, lexicon and classifier that come with the package."""
        return cls(load_policy(), load_lexicon(), load_classifier())

    def check(self, texts: Sequence[str]) -> list[Finding]:
        """A finding a text."""
        scores = self.scores(texts)
        return [self._finding(row, self.lexicon.scan(text).hits) for row, text in zip(scores, texts, strict=True)]

    def read(self, text: str, start: int = 0, final: bool = True) -> tuple[Finding, int]:
        """A finding for text that comes bit by bit: rules look at text[start:], the classifier at all of it.

        Returns the finding, and the place before which nothing that follows can make a rule hit; spans are of `text`.
        """
        scan = self.lexicon.scan(text[start:], final)
        hits = [Hit(hit.rule, hit.start + start, hit.end + start) for hit in scan.hits]
        return self._finding(self.scores([text])[0], hits), scan.settled + start

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, 13): what the classifier alone says, of a long text's worst piece."""
        if self.scorer is None or not texts:
            return np.zeros((len(texts), len(SCORED)))
        cut = [pieces(normalize(text).text) for text in texts]
        rows = self.scorer.scores([piece for some in cut for piece in some])
        ends = np.cumsum([0, *map(len, cut)])
        return np.stack([rows[a:b].max(axis=0) for a, b in pairwise(ends)])

    def _finding(self, row: npt.NDArray[np.float64], hits: Sequence[Hit]) -> Finding:
        categories = self.policy.categories
        scores = dict(zip(SCORED, map(float, row), strict=True))
        by_score = {name: categories[name].action(score) for name, score in scores.items()}
        by_rule = {hit.rule.category: categories[hit.rule.category].rule for hit in hits}
        for name in by_rule.keys() & scores.keys():
            scores[name] = max(scores[name], min(categories[name].levels.values()))
        actions = {
            name: strictest({"score": by_score.get(name, "allow"), "rule": by_rule.get(name, "allow")})[1]
            for name in categories
        }
        category, action = strictest(actions)
        hit = next((hit for hit in hits if hit.rule.category == category and by_rule[category] == action), None)
        return Finding(
            scores=scores,
            flagged=tuple(name for name, found in actions.items() if found != "allow"),
            action=action,
            category=category,
            rule=hit.rule.name if hit else None,
            span=(hit.start, hit.end) if hit else None,
            words=categories[category].words if category and action in ("refuse", "block") else None,
        )


def pieces(text: str) -> list[str]:
    """Overlapping pieces of at most PIECE characters, cut at white space where there is some; one for an empty text."""
    found, start = list[str](), 0
    while len(text) - start > PIECE:
        gap = text.rfind(" ", start + PIECE // 2, start + PIECE)
        end = gap if gap > 0 else start + PIECE
        found.append(text[start:end])
        start = end - OVERLAP
    return [*found, text[start:]]


def openai_result(finding: Finding) -> dict[str, Any]:
    """One of `results` of OpenAI's /v1/moderations.

    flagged: whether anything is, a category that this form does not have included.
    """
    return {
        "flagged": bool(finding.flagged),
        "categories": {name: name in finding.flagged for name in SCORED},
        "category_scores": {name: finding.scores[name] for name in SCORED},
        "category_applied_input_types": {name: ["text"] for name in SCORED},
    }


def openai_form(findings: Sequence[Finding], id: str, model: str = "foretell-moderation") -> dict[str, Any]:
    """The whole answer of OpenAI's /v1/moderations; id: `modr-…`."""
    return {"id": id, "model": model, "results": [openai_result(finding) for finding in findings]}
