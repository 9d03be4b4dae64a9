"""Truncated importance weights against sums over a whole vocabulary, through the loss that a run learns by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base

from foretell.align.episodes import Episode, pack_episodes
from foretell.align.examples import PromptRow
from foretell.align.importance import truncated_weights, weigh
from foretell.align.ppo import PolicyGradient
from foretell.chat import Conversation
from foretell.tuning import GRPOConfig

ROW = PromptRow(Conversation.from_openai([{"role": "user", "content": "x"}]), (), {}, "here")
PROMPT = [11, 12, 13]


def gradient(
    base: Base, cap: float | None, shift: np.ndarray
) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    """E over a sampler of the policy loss's gradient: every token of the vocabulary as a reply, by its probability.

    The sampler is the policy with logits moved by `shift` (V,); cap None draws from the policy itself, without weights.
    """
    model = base.model()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT]))[0, -1].double()
    policy = torch.log_softmax(logits, -1).numpy()
    sampler = policy if cap is None else torch.log_softmax(logits + torch.from_numpy(shift), -1).numpy()
    worth = np.random.default_rng(1).normal(size=len(policy))
    episodes = []
    for token, advantage in enumerate(worth):
        numbers = {"old": policy[[token]], "sampled": sampler[[token]], "advantage": np.array([advantage])}
        numbers |= {"reference": policy[[token]]}
        tiles = np.zeros((0, 0, 0, 3), np.uint8)
        episodes.append(Episode(0, ROW, [*PROMPT, token], tiles, [len(PROMPT)], ["x"], True, numbers))
    names = ["old", "advantage", "reference"]
    if cap is not None:
        weigh(episodes, cap)
        names.append("importance")
    objective = PolicyGradient(Any, GRPOConfig())  # type: ignore[arg-type]
    for part, batch in pack_episodes(episodes, 512, base.tokenizer.pad, names):
        chances = np.exp(sampler)[[episode.ids[-1] for episode in part]]
        batch.values["weight"][batch.values["weight"] > 0] = chances
        objective.loss(model, batch, torch.device("cpu"))[0].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found, np.exp(policy), np.exp(sampler)


def test_a_known_mismatch_is_put_right_up_to_the_truncation(base: Base) -> None:
    shift = np.random.default_rng(2).normal(size=base.config.vocab_size)
    wanted, policy, sampler = gradient(base, None, shift)
    ratio = (policy / sampler).max()
    whole, _, _ = gradient(base, float(ratio) * 1.01, shift)
    cut, _, _ = gradient(base, 1.0, shift)
    blind, _, _ = gradient(base, None, shift)
    size = max(float(g.abs().max()) for g in wanted.values())
    for name, g in wanted.items():
        assert torch.allclose(whole[name], g, atol=2e-4 * size), name
    assert not all(torch.allclose(cut[name], g, atol=2e-2 * size) for name, g in wanted.items())
    assert all(torch.equal(blind[name], g) for name, g in wanted.items())


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
