"""Sexual and toxic text, found as GPT-4's data was filtered: a lexicon and a classifier together.

The lexicon reads everything and is fast; a document it finds nothing in stays. Of the rest the classifier reads the
pieces where most was found, and pieces from the whole. A document goes if the classifier is sure, or if it is fairly
sure and the lexicon finds much.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field

from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, labelled, pieces, removed, spread, text_of
from foretell.data.document import Document
from foretell.errors import DataError
from foretell.measure.classify import TextClassifier

LEXICON = Path(__file__).with_name("harm.yaml")
CLASSES: Mapping[str, tuple[str, ...]] = {
    "sexual": ("sexual", "sexual/minors", "S", "S3"),
    "toxic": (
        "toxic", "hate", "hate/threatening", "harassment", "harassment/threatening", "violence/graphic", "H", "H2", "HR",
        "V2",
    ),
}  # fmt: skip
"""Classes of a classifier that say a text is of a kind."""
STRONG = 3
_WORDS = re.compile(r"\w+")


def packaged_classifier() -> Path:
    """The classifier of the moderation endpoint, which scores these classes and others."""
    return Path(str(files("foretell").joinpath("safety", "classifier.npz")))


@dataclass(frozen=True)
class Lexicon:
    """mild, strong: regular expressions that begin and end at word boundaries. heads: how phrases begin, a first word or
    as much of it as is given."""

    mild: re.Pattern[str]
    strong: re.Pattern[str]
    heads: frozenset[str]

    def weight(self, text: str) -> int:
        """What all that is found weighs: a strong phrase 3, a mild one 1."""
        low = text.lower()
        if not any(_begins(word, self.heads) for word in {*_WORDS.findall(low)}):
            return 0
        return STRONG * len(self.strong.findall(low)) + len(self.mild.findall(low))

    @classmethod
    def load(cls, path: Path, kind: str) -> Lexicon:
        """Raises DataError for a file that is missing, or not of the form of the packaged one."""
        try:
            lists = yaml.safe_load(path.read_text(encoding="utf-8"))[kind]
            heads = {_WORDS.match(str(phrase).lower()) for name in ("mild", "strong") for phrase in lists[name]}
            found = frozenset(head[0] for head in heads if head)
            return cls(_joined(lists["mild"]), _joined(lists["strong"]), found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, re.error) as error:
            raise DataError(
                f"{path} has no lists of {kind} phrases ({error!r}). It needs `{kind}:` with `strong` and `mild`, each a "
                "list of phrases."
            ) from error


@lru_cache(1 << 16)
def _begins(word: str, heads: frozenset[str]) -> bool:
    return any(word[:end] in heads for end in range(2, len(word) + 1))


def _joined(phrases: list[str]) -> re.Pattern[str]:
    """One expression as a tree of first letters, which is tried letter by letter, not phrase by phrase."""
    tree: dict[str, object] = {}
    for phrase in phrases:
        node = tree
        for char in str(phrase).lower():
            node = node.setdefault(char, {})  # type: ignore[assignment]
        node[""] = {}
    return re.compile(rf"\b(?:{_branch(tree)})\b" if tree else r"(?!)")


def _branch(node: Mapping[str, object]) -> str:
    ways = []
    for char, rest in sorted(node.items(), reverse=True):  # "" last, so that the longest phrase is found
        if char == "":
            ways.append("")
        else:
            head = r"\w*" if char == "*" else r"\s+" if char == " " else re.escape(char)
            ways.append(head + _branch(rest))  # type: ignore[arg-type]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


class HarmSection(StepSection):
    """Settings that both kinds share.

    look: weight of lexicon finds per 1,000 words from which the classifier reads a document. sure: the classifier's
    score from which it goes; probable: the score from which it goes if the lexicon's weight is `dense` or more.
    classifier: an npz of foretell.measure.classify with classes of this kind; None for the one of the moderation
    endpoint. `foretell data quality train` and `fit_classifier` make one of labelled texts of one's own. act: `label`
    keeps the document and writes the score as a label.
    """

    look: float = Field(2.0, ge=0)
    dense: float = Field(20.0, ge=0)
    sure: float = Field(0.9, ge=0, le=1)
    probable: float = Field(0.5, ge=0, le=1)
    lexicon: Path = LEXICON
    classifier: Path | None = None
    act: Literal["remove", "label"] = "remove"


class SexualStep(HarmSection):
    """Removes sexual text; textbooks of medicine and law stay (docs: measured)."""

    step: Literal["sexual"] = "sexual"

    def make(self) -> Step:
        """Raises DataError for a lexicon or classifier that cannot be read."""
        return _checked(self, "sexual")


class ToxicStep(HarmSection):
    """Removes hate, harassment, threats and gore."""

    step: Literal["toxic"] = "toxic"

    def make(self) -> Step:
        """Raises DataError for a lexicon or classifier that cannot be read."""
        return _checked(self, "toxic")


def _checked(section: HarmSection, kind: str) -> Harm:
    step = Harm(
        kind,
        section.look,
        section.dense,
        section.sure,
        section.probable,
        section.lexicon,
        section.classifier or packaged_classifier(),
        section.act == "label",
    )
    _lexicon(step.lexicon, kind)
    _columns(step.classifier, kind)
    return step


@dataclass(frozen=True)
class Harm:
    name: str
    look: float
    dense: float
    sure: float
    probable: float
    lexicon: Path
    classifier: Path
    label: bool = False

    def __call__(self, document: Document) -> Document | Removed:
        density, score = self.measure(text_of(document))
        if self.label:
            return labelled(document, **{self.name: f"{score:.3f}"}) if density >= self.look else document
        if not self.holds(density, score):
            return document
        return removed(document, f"{self.name}.found", f"score {score:.2f}, lexicon {density:.0f}")

    def holds(self, density: float, score: float) -> bool:
        """Whether a document of this lexicon density and classifier score goes."""
        return density >= self.look and (score >= self.sure or (score >= self.probable and density >= self.dense))

    def measure(self, text: str) -> tuple[float, float]:
        """What the lexicon finds, per 1,000 words (of a short text as if it had 50), and the classifier's score.

        The score is 0 where the lexicon finds too little to look closer. Of a long text it is the mean over the half
        of the pieces read that score highest, so that one sentence in a book does not remove it.
        """
        lexicon = _lexicon(self.lexicon, self.name)
        weight = lexicon.weight(text)
        if not weight:
            return 0.0, 0.0
        density = 1000 * weight / max(len(_WORDS.findall(text)), 50)
        return density, self.score(text, lexicon) if density >= self.look else 0.0

    def score(self, text: str, lexicon: Lexicon) -> float:
        """The classifier's, over the three pieces of most finds and four from the whole text."""
        cut = pieces(text)
        if len(cut) > 1:
            weights = np.array([lexicon.weight(piece) for piece in cut])
            worst = np.argsort(-weights, kind="stable")[:3]
            cut = [cut[i] for i in sorted({*worst.tolist(), *spread(list(range(len(cut))), 4)})]
        classifier, columns = _columns(self.classifier, self.name)
        scores = np.sort(classifier.probabilities(cut)[:, columns].max(axis=1))
        return float(scores[len(scores) // 2 :].mean())


@lru_cache(8)
def _lexicon(path: Path, kind: str) -> Lexicon:
    return Lexicon.load(path, kind)


@lru_cache(8)
def _columns(path: Path, kind: str) -> tuple[TextClassifier, list[int]]:
    classifier = TextClassifier.load(path)
    columns = [i for i, name in enumerate(classifier.classes) if name in CLASSES[kind]]
    if not columns:
        raise DataError(
            f"{path} scores {', '.join(classifier.classes)}; expected a class of {', '.join(CLASSES[kind])}."
        )
    return classifier, columns
