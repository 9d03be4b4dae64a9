"""A moderation head on embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretell.safety.generated import Example
from foretell.safety.head import train_head
from foretell.safety.moderation import Moderation
from foretell.safety.policy import SCORED, load_policy
from foretell.safety.rules import load_lexicon


def embed(texts: Sequence[str]) -> list[list[float]]:
    """What a model might tell: how much of a text is about zork, about blim, and how long it is."""
    return [[text.count("zork"), text.count("blim"), len(text) / 100] for text in texts]


def test_a_head_learns_from_embeddings_and_takes_the_classifiers_place() -> None:
    examples = [Example(f"zork {'x' * i}", ("violence",), i) for i in range(20)]
    examples += [Example(f"blim {'x' * i}", ("hate",), i) for i in range(20)]
    head = train_head(embed, examples, [f"plain {'x' * i}" for i in range(40)])
    scores = head.scores(["a zork", "a blim", "a cat"])
    at = [SCORED.index(name) for name in ("violence", "hate", "sexual")]
    assert (scores[:, at] > 0.5).tolist() == [[True, False, False], [False, True, False], [False, False, False]]
    assert scores[:, at[2]].max() < 1e-6, "of what it has never seen it says nothing"
    findings = Moderation(load_policy(), load_lexicon(), head).check(["one zork more", "good morning"])
    assert [finding.flagged for finding in findings] == [("violence",), ()]
    assert head.scores([]).shape == (0, 13)
    logits = np.asarray(embed(["a zork"])) @ head.weights + head.bias
    assert np.allclose(scores[0], 1 / (1 + np.exp(-logits[0])))
