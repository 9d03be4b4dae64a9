"""The losses of PPO and GRPO against the formulas, and their gradients on a model against plain autograd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from alignkit import Base

from foretell.align.episodes import Episode, of_episodes, pack_episodes
from foretell.align.examples import PromptRow
from foretell.align.ppo import Advantages, GroupAdvantages, PolicyGradient, clipped_policy_loss, clipped_value_loss
from foretell.align.reward import add_head
from foretell.chat import Conversation
from foretell.data.loader import PackedBatch
from foretell.tuning import GRPOConfig, PPOConfig

ROW = PromptRow(Conversation.from_openai([{"role": "user", "content": "x"}]), (), {}, "here")
NAMES = ("old", "advantage", "value", "return", "reference")


def episodes(base: Base, sizes: list[tuple[int, int]], seed: int = 0) -> list[Episode]:
    """Episodes of (prompt, reply) tokens with random numbers."""
    rng = np.random.default_rng(seed)
    made = []
    for prompt, reply in sizes:
        ids = rng.integers(10, 300, prompt + reply).tolist()
        numbers = {name: rng.normal(size=reply) for name in NAMES}
        numbers["old"] = numbers["reference"] = -np.abs(numbers["old"]) - 3
        drawn = list(range(prompt, prompt + reply))
        made.append(Episode(0, ROW, ids, np.zeros((0, 0, 0, 3), np.uint8), drawn, ["x"], True, numbers))
    return made


def plain_loss(base: Base, model: Any, critic: Any, made: list[Episode], config: PPOConfig) -> torch.Tensor:
    """The same, one episode at a time, with whole logits."""
    total, count = torch.zeros(()), 0
    for episode in made:
        ids = torch.tensor([episode.ids])
        states = torch.log_softmax(model(ids), -1)[0]
        values = critic.scalar_head(critic.hidden(ids))[0]
        for i, place in enumerate(episode.drawn):
            n = {name: float(column[i]) for name, column in episode.numbers.items()}
            ratio = torch.exp(states[place - 1, episode.ids[place]] - n["old"])
            cut = ratio.clamp(1 - config.clip_ratio, 1 + config.clip_ratio)
            total = total + torch.maximum(-n["advantage"] * ratio, -n["advantage"] * cut)
            value = values[place - 1]
            near = value.clamp(n["value"] - config.value_clip, n["value"] + config.value_clip)
            worse = torch.maximum((value - n["return"]) ** 2, (near - n["return"]) ** 2)
            total = total + config.value_weight * 0.5 * worse
            count += 1
    return total / count


def test_loss_and_every_gradient_equal_the_formula(base: Base) -> None:
    config = PPOConfig(value_weight=0.7)
    model, critic = base.model(), base.model()
    add_head(critic, 1)
    made = episodes(base, [(5, 4), (3, 1), (7, 6)])
    (found, batch), *more = pack_episodes(made, 1000, base.tokenizer.pad, NAMES)
    assert found == made and not more
    objective = PolicyGradient(Any, config, critic)  # type: ignore[arg-type]
    loss, sums = objective.loss(model, batch, torch.device("cpu"))
    (loss / objective.weight(batch)).backward()
    mine = {name: p.grad.clone() for m in (model, critic) for name, p in _named(m, m is critic) if p.grad is not None}
    for m in (model, critic):
        m.zero_grad()
    expected = plain_loss(base, model, critic, made, config)
    expected.backward()
    assert float(loss.detach() / 11) == pytest.approx(float(expected.detach()), abs=1e-5)
    theirs = {name: p.grad for m in (model, critic) for name, p in _named(m, m is critic) if p.grad is not None}
    for name, gradient in theirs.items():
        assert torch.allclose(mine[name], gradient, atol=1e-5), name
    assert float(sums["tokens"]) == 11


def _named(model: Any, critic: bool) -> list[tuple[str, Any]]:
    return [(f"critic.{name}" if critic else name, p) for name, p in model.named_parameters()]


def test_rows_of_pretraining_add_their_mean_loss_and_change_nothing_else(base: Base) -> None:
    made, model = episodes(base, [(5, 4), (3, 2)]), base.model()
    critic = base.model()
    add_head(critic, 1)
    rng = np.random.default_rng(5)
    tokens = rng.integers(10, 300, (2, 8))
    targets = np.concatenate([tokens[:, 1:], np.full((2, 1), -100)], 1)
    targets[:, 3] = -100
    segments = np.array([[0] * 4 + [1] * 4, [0] * 4 + [1] * 3 + [-1]], np.int32)
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3]] * 2)
    beside = PackedBatch(
        tokens, targets, positions, segments, np.zeros((2, 8), np.uint8), np.zeros((0, 0, 0, 3), np.uint8)
    )
    packed = [next(iter(pack_episodes(made, 1000, base.tokenizer.pad, NAMES, more)))[1] for more in (None, beside)]
    alone, mixed = packed
    assert np.array_equal(of_episodes(mixed, base.config).tokens, alone.tokens)
    mixed.values["ptx"][:] *= 0.25 * 6 / mixed.values["ptx"].sum()
    plain = PolicyGradient(Any, PPOConfig(), critic).loss(model, alone, torch.device("cpu"))[0]  # type: ignore[arg-type]
    both = PolicyGradient(Any, PPOConfig(ptx=0.25), critic)  # type: ignore[arg-type]
    total = both.loss(model, mixed, torch.device("cpu"))[0]
    with torch.no_grad():
        logits = torch.log_softmax(model(torch.tensor(tokens), torch.tensor(positions), torch.tensor(segments)), -1)
        kept = targets >= 0
        expected = -logits[torch.tensor(kept)].gather(1, torch.tensor(targets[kept])[:, None]).mean()
    assert float((total - plain).detach()) / 6 == pytest.approx(0.25 * float(expected), rel=1e-4)


def test_the_clipped_policy_loss_has_no_gradient_where_the_ratio_ran_away() -> None:
    old = torch.zeros(4)
    logprob = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    loss, cut = clipped_policy_loss(logprob, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    loss.sum().backward()
    assert cut.tolist() == [True, False, False, True]
    assert logprob.grad is not None
    ratio = logprob.detach().exp()
    assert logprob.grad.tolist() == pytest.approx([0.0, -float(ratio[1]), float(ratio[2]), 0.0])


def test_the_clipped_value_loss_takes_the_worse() -> None:
    value, old, target = torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0])
    loss, cut = clipped_value_loss(value, old, target, 0.2)
    assert loss.tolist() == pytest.approx([0.5 * 0.64, 0.5 * 0.81])
    assert cut.tolist() == [True, False]


def test_the_reward_lands_on_the_last_token_and_kl_is_paid_by_each(base: Base) -> None:
    made = episodes(base, [(3, 3), (2, 2)])
    for episode in made:
        episode.numbers["reference"] = episode.numbers["old"] - 0.5
    credit = Advantages(PPOConfig(kl=0.1, trace=1.0))
    found = credit.assign(made, np.array([2.0, -1.0]))
    assert made[0].numbers["return"] == pytest.approx([2 - 0.15, 2 - 0.1, 2 - 0.05])
    assert made[1].numbers["return"] == pytest.approx([-1.1, -1.05])
    every = np.concatenate([episode.numbers["advantage"] for episode in made])
    assert every.mean() == pytest.approx(0, abs=1e-9) and every.std() == pytest.approx(1, abs=1e-6)
    assert found["kl_coefficient"] == 0.1


def test_what_others_say_between_replies_is_no_step(base: Base) -> None:
    """Two replies with an observation between them have the advantages of one reply without it."""
    config = PPOConfig(kl=0.1)
    one = episodes(base, [(3, 5)])[0]
    other = replace(one, ids=[*one.ids[:5], 7, 7, 7, *one.ids[5:]], drawn=[3, 4, 8, 9, 10], numbers=dict(one.numbers))
    for episode in (one, other):
        Advantages(config).assign([episode], np.array([1.5]))
    assert np.array_equal(one.numbers["advantage"], other.numbers["advantage"])
    (_, batch), *_ = pack_episodes([other], 1000, 0, ("advantage",))
    assert batch.targets[0].tolist() == [-100, -100, *other.ids[3:5], -100, -100, -100, *other.ids[8:11], -100]


def test_groups_share_an_advantage(base: Base) -> None:
    made = episodes(base, [(3, 2), (3, 4), (3, 1), (3, 1)])
    found = GroupAdvantages(GRPOConfig(samples=2, scale_rewards=False)).assign(made, np.array([1.0, 0.0, 2.0, 2.0]))
    assert [e.numbers["advantage"].tolist() for e in made] == [[0.5, 0.5], [-0.5] * 4, [0.0], [0.0]]
    assert found["groups_alike"] == 0.5
