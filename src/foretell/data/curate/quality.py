"""A quality classifier of one's own: good against bad texts, scored on pieces, measured on documents held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, labelled, pieces, removed, spread, text_of
from foretell.data.document import Document
from foretell.data.splits import split_of
from foretell.errors import DataError
from foretell.measure.classify import TextClassifier, fit_classifier

CLASSES = ("bad", "good")
EACH = 4  # pieces of a document that are learned from, so that a book does not outweigh a thousand pages
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QualityReport:
    """What a quality classifier reaches on documents it has not seen. auc: chance that a good document scores
    above a bad one. threshold: where as large a share of good documents stays as of bad ones goes, and
    that share, `balanced`."""

    train_good: int
    train_bad: int
    heldout_good: int
    heldout_bad: int
    auc: float
    threshold: float
    balanced: float


def train_quality(
    good: Iterable[Document], bad: Iterable[Document], out: Path, *, heldout: float = 0.1, most: int = 20_000
) -> QualityReport:
    """Learn to tell good documents from bad, and write the classifier as npz.

    heldout: share of documents, decided by their ids, that only the measure sees. most: pieces a class that are
    learned from; from more, the first of each document are taken.
    Raises DataError where a class has no document for training, or none held out.
    """
    texts, targets, counts = list[str](), list[str](), dict[str, list[int]]()
    kept: dict[str, list[list[str]]] = {}
    for name, documents in (("good", good), ("bad", bad)):
        learned, counts[name], kept[name] = list[str](), [0, 0], []
        for document in documents:
            cut = spread(pieces(text_of(document)), EACH)
            if not cut[0].strip():
                continue
            held = split_of(document.id, heldout) == "heldout"
            counts[name][held] += 1
            if held:
                kept[name].append(cut)
            elif len(learned) < most:
                learned += cut
        if not all(counts[name]):
            raise DataError(
                f"Of {name} documents {counts[name][0]} are for training and {counts[name][1]} held out; at least one "
                "of each is needed, and some hundred for a measure that means something. Give more documents."
            )
        texts += learned[:most]
        targets += [name] * len(learned[:most])
    classifier = fit_classifier(texts, targets, CLASSES, balanced=True)
    classifier.save(out)
    scores = {name: np.array([_score(classifier, cut) for cut in kept[name]]) for name in kept}
    threshold, balanced = _balance(scores["good"], scores["bad"])
    return QualityReport(
        train_good=counts["good"][0],
        train_bad=counts["bad"][0],
        heldout_good=counts["good"][1],
        heldout_bad=counts["bad"][1],
        auc=auc(scores["good"], scores["bad"]),
        threshold=threshold,
        balanced=balanced,
    )


def auc(positive: Sequence[float] | Floats, negative: Sequence[float] | Floats) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, half where they are equal."""
    high, low = np.sort(np.asarray(positive, np.float64)), np.sort(np.asarray(negative, np.float64))
    below = np.searchsorted(low, high, "left").sum() + np.searchsorted(low, high, "right").sum()
    return float(below / 2 / len(high) / len(low))


def _balance(good: Floats, bad: Floats) -> tuple[float, float]:
    """The threshold where the smaller of both shares is largest, and that share."""
    cuts = np.unique(np.concatenate([good, bad]))
    shares = [min(float((good >= cut).mean()), float((bad < cut).mean())) for cut in cuts]
    best = int(np.argmax(shares))
    return float(cuts[best]), shares[best]


def _score(classifier: TextClassifier, cut: list[str]) -> float:
    return float(classifier.probabilities(cut)[:, classifier.classes.index("good")].mean())


class QualityStep(StepSection):
    """model: what `foretell data quality train` wrote. at_least: the score below which a document goes; its report
    names one. pieces: how many of 1,000 characters stand for a document. The score stays as the label `quality`."""

    step: Literal["quality"] = "quality"
    model: Path
    at_least: float = Field(0.5, ge=0, le=1)
    pieces: int = Field(4, gt=0)

    def make(self) -> Step:
        """Raises DataError for a file that is no quality classifier."""
        _loaded(self.model)
        return self

    def __call__(self, document: Document) -> Document | Removed:
        text = text_of(document)
        if not text.strip():
            return document
        score = self.score(text)
        if score < self.at_least:
            return removed(document, "quality.low", f"{score:.3f}")
        return labelled(document, quality=f"{score:.3f}")

    def score(self, text: str) -> float:
        """The mean probability of being good, over pieces from the whole of a text."""
        return _score(_loaded(self.model), spread(pieces(text), self.pieces))


@lru_cache(4)
def _loaded(path: Path) -> TextClassifier:
    classifier = TextClassifier.load(path)
    if "good" not in classifier.classes:
        raise DataError(f"{path} scores {', '.join(classifier.classes)}; expected a classifier with the class good.")
    return classifier
