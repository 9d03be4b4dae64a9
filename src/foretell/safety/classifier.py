"""The packaged classifier of the 13 scored categories: linear on hashed words and letter groups, predicted by numpy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foretell.errors import DataError, ForetellError, MissingExtraError
from foretell.measure.classify import TextClassifier, hashed_features
from foretell.safety.generated import Example, generate, load_grammar
from foretell.safety.normalize import normalize
from foretell.safety.plain import plain_texts
from foretell.safety.policy import SCORED

PACKAGED = Path(__file__).with_name("classifier.npz")
BUCKETS = 1 << 14
C = 10.0
EACH, PLAIN, SEED = 60, 8000, 0
LABELLED = 20  # times that a person's label counts beside one generated text


@dataclass(frozen=True)
class LinearScorer:
    """A `Scorer` from a text classifier whose classes are the scored categories."""

    classifier: TextClassifier

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, 13), in the order of SCORED."""
        return self.classifier.probabilities(texts)


def load_classifier(path: Path = PACKAGED) -> LinearScorer:
    """Raises DataError for a file that is missing or damaged, or of other categories."""
    classifier = TextClassifier.load(path)
    if classifier.classes != SCORED or classifier.exclusive:
        raise DataError(f"{path} scores {', '.join(classifier.classes)}; expected {', '.join(SCORED)}.")
    return LinearScorer(classifier)


def train(examples: Sequence[Example], plain: Sequence[str]) -> LinearScorer:
    """One logistic regression a category. plain: texts of which none holds; what is rare among all stays unlikely.

    Raises MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("Training the moderation classifier", "dev") from error
    texts = [*(example.text for example in examples), *plain]
    features = hashed_features([normalize(text).text for text in texts], BUCKETS)
    weights, bias = np.zeros((BUCKETS, len(SCORED)), np.float32), np.zeros(len(SCORED))
    for j, category in enumerate(SCORED):
        truth = np.array([*(category in example.labels for example in examples), *(False for _ in plain)])
        model = LogisticRegression(C=C, solver="liblinear", random_state=0)
        model.fit(features, truth)
        weights[:, j], bias[j] = _rounded(model.coef_[0]), model.intercept_[0]
    return LinearScorer(TextClassifier(SCORED, weights, bias, exclusive=False))


def _rounded(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """To a sixty-fourth, which no score feels, and the file is a quarter of the size."""
    return np.asarray(np.round(weights * 64) / 64, np.float32)


def read_labels(path: Path) -> list[Example]:
    """What reviewers labelled, as `foretell admin labels` writes it. Raises DataError, naming file and line."""
    found = list[Example]()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"The labels {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            labels = tuple(name for name, held in row["labels"].items() if held and name in SCORED)
            found.append(Example(str(row["text"]), labels, -number))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: expected an object with text and labels.") from error
    return found


def main() -> None:
    """Train the packaged classifier again, from the packaged grammar and what lies on every machine.

    --labels: reviewers' decisions, which then count beside it. --out: where it is written; else the packaged file.
    """
    parser = argparse.ArgumentParser(prog="python -m foretell.safety.classifier", description=main.__doc__)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    asked = parser.parse_args()
    try:
        examples = generate(load_grammar(), EACH, SEED)
        examples += (read_labels(asked.labels) if asked.labels else []) * LABELLED
        train(examples, plain_texts(PLAIN, "train", SEED)).classifier.save(asked.out)
    except ForetellError as error:
        sys.exit(f"Error: {error}")
    print(f"{asked.out}: {asked.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
