"""A scorer on a model of one's own: logistic regression on its embeddings, in place of the packaged classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foretell.errors import MissingExtraError
from foretell.safety.generated import Example
from foretell.safety.policy import SCORED

Floats = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Texts → a vector each, such as a served model's /v1/embeddings gives."""


@dataclass(frozen=True)
class HeadScorer:
    """A `Scorer`. embed: of the model. weights: (width, 13); bias: (13,)."""

    embed: Embed
    weights: Floats
    bias: Floats

    def scores(self, texts: Sequence[str]) -> Floats:
        """(N, 13), in the order of SCORED."""
        if not texts:
            return np.zeros((0, len(SCORED)))
        logits = np.asarray(self.embed(texts), np.float64) @ self.weights + self.bias
        return np.asarray(0.5 * (1 + np.tanh(logits / 2)))


def train_head(embed: Embed, examples: Sequence[Example], plain: Sequence[str], c: float = 30.0) -> HeadScorer:
    """One logistic regression a category on a model's embeddings; a category without an example is never likely.

    plain: texts of which none holds. c: the inverse of the penalty. Raises MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("Training a moderation head", "dev") from error
    vectors = np.asarray(embed([*(example.text for example in examples), *plain]), np.float64)
    weights, bias = np.zeros((vectors.shape[1], len(SCORED))), np.full(len(SCORED), -20.0)
    for j, category in enumerate(SCORED):
        truth = np.array([*(category in example.labels for example in examples), *(False for _ in plain)])
        if truth.any() and not truth.all():
            model = LogisticRegression(C=c, max_iter=500).fit(vectors, truth)
            weights[:, j], bias[j] = model.coef_[0], model.intercept_[0]
    return HeadScorer(embed, weights, bias)
