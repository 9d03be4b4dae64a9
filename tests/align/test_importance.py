"""Truncated importance weights against sums over a whole vocabulary, through the loss that a run learns by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base

from foretell.align.advantage import Floats
from foretell.align.episodes import Episode, pack_episodes
from foretell.align.examples import PromptRow
from foretell.align.importance import truncated_weights, weigh
from foretell.align.ppo import PolicyGradient
from foretell.chat import Conversation
from foretell.model.multimodal import Multimodal
from foretell.tuning import GRPOConfig

ROW = PromptRow(Conversation.from_openai([{"role": "user", "content": "x"}]), (), {}, "here")
PROMPT = [11, 12, 13]


def test_a_known_mismatch_is_put_right_up_to_the_truncation(base: Base) -> None:
    """The policy loss's gradient over every token as a reply, each by its probability under who draws."""
    model = Multimodal(base.config.model_copy(update={"vision": None}), torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT]))[0, -1].double()
    shift = torch.from_numpy(np.random.default_rng(2).normal(size=len(logits)))
    learner, sampler = (torch.log_softmax(z, -1).numpy() for z in (logits, logits + shift))
    worth = np.random.default_rng(1).normal(size=len(learner))

    def gradient(chances: Floats, cap: float | None = None) -> dict[str, torch.Tensor]:
        made = []
        for token, advantage in enumerate(worth):
            numbers = {"old": learner[[token]], "sampled": sampler[[token]], "reference": learner[[token]]}
            numbers["advantage"] = np.array([advantage])
            tiles = np.zeros((0, 0, 0, 3), np.uint8)
            made.append(Episode(0, ROW, [*PROMPT, token], tiles, [len(PROMPT)], ["x"], True, numbers))
        names = ("old", "advantage", "reference")
        if cap is not None:
            weigh(made, cap)
            names = (*names, "importance")
        objective = PolicyGradient(Any, GRPOConfig())  # type: ignore[arg-type]
        model.zero_grad()
        for part, batch in pack_episodes(made, 512, base.tokenizer.pad, names):
            weight = batch.values["weight"]
            weight[weight > 0] = chances[[episode.ids[-1] for episode in part]]
            objective.loss(model, batch, torch.device("cpu"))[0].backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
        size = max(float(g.abs().max()) for g in wanted.values())
        return all(torch.allclose(found[name], g, atol=1e-4 * size) for name, g in wanted.items())

    policy, drawn = np.exp(learner), np.exp(sampler)
    wanted = gradient(policy)
    assert not equal(gradient(drawn), wanted)
    assert equal(gradient(drawn, float((policy / drawn).max())), wanted)
    assert equal(gradient(drawn, 1.5), gradient(np.minimum(1.5 * drawn, policy)))
    assert not equal(gradient(drawn, 1.5), wanted)


def test_what_truncation_takes_is_what_the_formula_says() -> None:
    rng = np.random.default_rng(3)
    policy, sampler = (np.exp(x) / np.exp(x).sum() for x in rng.normal(size=(2, 50)))
    f = rng.normal(size=50)
    for cap in (1.0, 1.7, 1e9):
        weights = truncated_weights(np.log(policy), np.log(sampler), cap)
        bias = sampler @ (weights * f) - policy @ f
        assert bias == pytest.approx(-np.maximum(0, policy - cap * sampler) @ f, abs=1e-12)


def test_the_mismatch_that_is_logged() -> None:
    numbers = {"old": np.log([0.5, 0.25]), "sampled": np.log([0.1, 0.5])}
    episode = Episode(0, ROW, [1, 2], np.zeros((0, 0, 0, 3), np.uint8), [0, 1], ["x"], True, numbers)
    found = weigh([episode], 2.0)
    assert episode.numbers["importance"].tolist() == pytest.approx([2.0, 0.5])
    assert found["logprob"] == pytest.approx((np.log(5) + np.log(2)) / 2) and found["largest"] == pytest.approx(
        np.log(5)
    )
    assert found["kl"] == pytest.approx((5 - 1 - np.log(5) + 0.5 - 1 + np.log(2)) / 2)
    assert found["weight"] == 1.25 and found["truncated"] == 0.5
    assert found["effective"] == pytest.approx(2.5**2 / (2 * (4 + 0.25)))
