"""Sexual and toxic text, found as GPT-4's data was filtered: a lexicon and a classifier together.

The lexicon reads everything and is fast; a document it finds nothing in stays. Of the rest the classifier reads the
pieces where most was found, and pieces from the whole. Its log-odds and the lexicon's density add up to one score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field

from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, labelled, pieces, removed, spread, text_of
from foretell.data.document import Document
from foretell.errors import DataError
from foretell.measure.classify import TextClassifier

LEXICON = Path(__file__).with_name("harm.yaml")
CLASSIFIER = Path(__file__).with_name("harm.npz")
"""Trained by `foretell.data.curate.harm_train`, which says on what."""
CLASSES: Mapping[str, tuple[str, ...]] = {
    "sexual": ("sexual", "sexual/minors", "S", "S3"),
    "toxic": (
        "toxic", "hate", "hate/threatening", "harassment", "harassment/threatening", "violence/graphic", "H", "H2",
        "HR", "V2",
    ),
}  # fmt: skip
"""Classes of a classifier that say a text is of a kind."""
STRONG = 3
DENSITY = 0.5
"""What a factor of e in lexicon density adds to the log-odds; cross-validation is flat around it."""
_WORDS = re.compile(r"\w+")
_APART = bytes(code if code > 127 or _WORDS.match(chr(code)) else ord(" ") for code in range(256))
_KNOWN = 100_000  # harmless words that are remembered


@dataclass(frozen=True)
class Lexicon:
    """mild, strong: regular expressions that begin and end at word boundaries. heads: how phrases begin, a first word
    or as much of it as is given; one of a single letter stands for itself alone."""

    mild: re.Pattern[str]
    strong: re.Pattern[str]
    heads: frozenset[str]

    def weight(self, text: str) -> int:
        """What all that is found weighs: a strong phrase 3, a mild one 1."""
        low, harmless, hits = text.lower(), _harmless(self.heads), list[str]()
        longest = max(map(len, self.heads), default=0)
        for word in _words_of(low) - harmless:  # texts repeat their words, and the next text those of this one
            if word in self.heads or any(word[:end] in self.heads for end in range(2, min(len(word), longest + 1))):
                hits.append(word)
                continue
            if len(harmless) > _KNOWN:
                harmless.clear()
            harmless.add(word)
        if not hits:
            return 0
        places = sorted({place for word in hits for place in _places(word, low)})
        return STRONG * _count(self.strong, low, places) + _count(self.mild, low, places)

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
                f"{path} has no lists of {kind} phrases ({error!r}). It needs `{kind}:` with `strong` and `mild`, each "
                "a list of phrases."
            ) from error


def _places(word: str, low: str) -> Iterator[int]:
    """Where words begin with a word."""
    at = low.find(word)
    while at >= 0:
        if not at or not (low[at - 1].isalnum() or low[at - 1] == "_"):
            yield at
        at = low.find(word, at + 1)


def _count(phrases: re.Pattern[str], low: str, places: list[int]) -> int:
    """As many as findall would find, of a pattern that can match at these places alone."""
    count = end = 0
    for place in places:
        if place >= end and (found := phrases.match(low, place)):
            count, end = count + 1, found.end()
    return count


@lru_cache(4)
def _harmless(heads: frozenset[str]) -> set[str]:
    """Words that are known to begin with none of the heads; the same set at each call."""
    return set()


@lru_cache(1)
def _words_of(low: str) -> frozenset[str]:
    """The different words of a text, which the lexicon of one kind reads after that of another."""
    parts = {*low.encode("utf-8", "surrogatepass").translate(_APART).split()}
    return frozenset(_WORDS.findall(b" ".join(parts).decode("utf-8", "surrogatepass")))


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

    look: weight of lexicon finds per 1,000 words from which the classifier reads a document. at_least: the score, from
    0 to 1, from which it goes. lexicon: lists of phrases in YAML. classifier: an npz of foretell.measure.classify with
    classes of this kind, such as that of the moderation endpoint (safety/classifier.npz). None for the packaged ones.
    act: `label` keeps the document and writes the score as a label.
    """

    look: float = Field(2.0, ge=0)
    at_least: float = Field(0.7, ge=0, le=1)
    lexicon: Path | None = None
    classifier: Path | None = None
    act: Literal["remove", "label"] = "remove"

    def make(self) -> Step:
        """Raises DataError for a lexicon or classifier that cannot be read."""
        _lexicon(self.lexicon or LEXICON, self.name)
        _columns(self.classifier or CLASSIFIER, self.name)
        return self

    def __call__(self, document: Document) -> Document | Removed:
        score = self.score(text_of(document))
        if self.act == "label":
            return labelled(document, **{self.name: f"{score:.3f}"}) if score else document
        if score < self.at_least or not score:
            return document
        return removed(document, f"{self.name}.found", f"{score:.2f}")

    def score(self, text: str) -> float:
        """How surely a text is of the kind, 0 where the lexicon finds too little to look closer.

        Density is per 1,000 words, of a short text as if it had 50. Of a long text the classifier's log-odds are the
        mean over the half of the pieces read that score highest, so that one sentence in a book does not remove it.
        """
        lexicon = _lexicon(self.lexicon or LEXICON, self.name)
        weight = lexicon.weight(text)
        density = 1000 * weight / max(len(_WORDS.findall(text)), 50) if weight else 0.0
        if not weight or density < self.look:
            return 0.0
        classifier, columns = _columns(self.classifier or CLASSIFIER, self.name)
        likely = classifier.probabilities(_telling(text, lexicon))[:, columns].max(axis=1)
        return combined(likely, density)


class SexualStep(HarmSection):
    """Removes sexual text; textbooks of medicine and law stay (docs: measured)."""

    step: Literal["sexual"] = "sexual"


class ToxicStep(HarmSection):
    """Removes hate, harassment, threats and gore."""

    step: Literal["toxic"] = "toxic"


def combined(likely: npt.NDArray[np.float64], density: float) -> float:
    """One score of the classifier's probabilities over pieces and the lexicon's density."""
    odds = np.sort(np.log(np.clip(likely, 1e-6, 1 - 1e-6) / (1 - np.clip(likely, 1e-6, 1 - 1e-6))))
    total = odds[len(odds) // 2 :].mean() + DENSITY * np.log1p(density)
    return float(1 / (1 + np.exp(-total)))


def _telling(text: str, lexicon: Lexicon) -> list[str]:
    """The three pieces of most finds, and four from the whole text."""
    cut = pieces(text)
    if len(cut) == 1:
        return cut
    weights = np.array([lexicon.weight(piece) for piece in cut])
    worst = np.argsort(-weights, kind="stable")[:3]
    return [cut[i] for i in sorted({*worst.tolist(), *spread(list(range(len(cut))), 4)})]


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
