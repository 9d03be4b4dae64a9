"""PPO and GRPO: how rewards are credited to tokens, and the clipped losses that learn from it.

Sources: Schulman et al. 2017 (arXiv 1707.06347); Ouyang et al. 2022 (arXiv 2203.02155, appendix C); Huang et al. 2024,
The N+ Implementation Details of RLHF with PPO (arXiv 2403.17031); Shao et al. 2024 (arXiv 2402.03300).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretell.align.advantage import Floats, KLControl, explained_variance, gae, group_advantages, k1, k3, whiten
from foretell.align.episodes import Episode, of_episodes
from foretell.align.importance import IMPORTANCE
from foretell.align.rollout import Rollouts, logprobs, token_values
from foretell.data.loader import PackedBatch
from foretell.model.multimodal import Multimodal
from foretell.train.objective import Sums, to_device
from foretell.tuning import GRPOConfig, PolicyConfig, PPOConfig


class Advantages:
    """PPO's credit: the reward lands on the last token, the divergence is paid for token by token."""

    names: tuple[str, ...] = ("advantage", "value", "return")
    values = True

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self.control = KLControl(config.kl, config.kl_target, config.kl_gain)

    def assign(self, episodes: Sequence[Episode], rewards: Floats) -> dict[str, float]:
        config = self.config
        scaled = rewards / (rewards.std() + 1e-8) if config.whiten_rewards else rewards
        for episode, reward in zip(episodes, scaled, strict=True):
            numbers = episode.numbers
            paid = -self.control.coefficient * k1(numbers["old"], numbers["reference"])
            paid[-1] += reward
            numbers["advantage"], numbers["return"] = gae(paid, numbers["value"], config.discount, config.trace)
        every = {name: np.concatenate([e.numbers[name] for e in episodes]) for name in self.names}
        flat, at = whiten(every["advantage"]), 0
        for episode in episodes:
            episode.numbers["advantage"] = flat[at : at + len(episode.drawn)]
            at += len(episode.drawn)
        return {
            "kl_coefficient": self.control.coefficient,
            "explained_variance": explained_variance(every["return"], every["value"]),
        }

    def learn(self, kl: float) -> None:
        self.control.update(kl)

    def state_dict(self) -> dict[str, float]:
        return {"coefficient": self.control.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.control.coefficient = state["coefficient"]


class GroupAdvantages:
    """GRPO's credit: a reply is as good as it is better than the others to its prompt, all its tokens alike."""

    names: tuple[str, ...] = ("advantage", "reference")
    values = False

    def __init__(self, config: GRPOConfig) -> None:
        self.config = config

    def assign(self, episodes: Sequence[Episode], rewards: Floats) -> dict[str, float]:
        size = self.config.samples
        flat = 0
        for start in range(0, len(episodes), size):
            group = rewards[start : start + size]
            flat += bool(group.std() == 0)
            for episode, advantage in zip(
                episodes[start : start + size], group_advantages(group, self.config.scale_rewards), strict=True
            ):
                episode.numbers["advantage"] = np.full(len(episode.drawn), advantage)
        return {"groups_alike": flat / max(1, len(episodes) // size)}

    def learn(self, kl: float) -> None:
        pass

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


def clipped_policy_loss(logprob: Tensor, old: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """max(−A·ρ, −A·clamp(ρ, 1 ± clip)) token by token, ρ = π/π_old; and whether the clamp decided; all (n,)."""
    ratio = torch.exp(logprob - old)
    plain, clamped = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, clamped), clamped > plain


def clipped_value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """½ max((V − R)², (clamp(V, V_old ± clip) − R)²) token by token, and whether the clamp decided; all (n,)."""
    clamped = torch.clamp(value, old - clip, old + clip)
    plain, cut = (value - target).square(), (clamped - target).square()
    return 0.5 * torch.maximum(plain, cut), cut > plain


class PolicyGradient:
    """The objective: mean clipped policy loss over drawn tokens, plus what is given of value loss, divergence and ptx.

    rollouts: whose batches come, and whose statistics join the log. critic: trained beside the policy. divergence:
    coefficient of k3 to the reference in the loss.
    """

    def __init__(
        self, rollouts: Rollouts, config: PolicyConfig, critic: Multimodal | None = None, divergence: float = 0.0
    ) -> None:
        self.rollouts, self.config, self.critic, self.divergence = rollouts, config, critic, divergence

    def weight(self, batch: PackedBatch) -> float:
        return float(batch.values["weight"].sum())

    def loss(self, model: Any, batch: PackedBatch, device: torch.device) -> tuple[Tensor, Sums]:
        counted = np.flatnonzero(batch.targets.reshape(-1) >= 0)

        def numbers(name: str) -> Tensor:
            return to_device(batch.values[name].reshape(-1)[counted], device)

        weight, ptx, old = numbers("weight"), numbers("ptx"), numbers("old")
        logprob = logprobs(model, batch, device)
        policy, cut = clipped_policy_loss(logprob, old, numbers("advantage"), self.config.clip_ratio)
        if IMPORTANCE in batch.values:
            policy = policy * numbers(IMPORTANCE)
        ours = weight > 0
        sums = {"policy_loss": (weight * policy).sum(), "clipped": (weight * cut).sum(), "tokens": weight.sum()}
        sums["approx_kl"] = k3(logprob[ours], old[ours]).detach().sum()
        total = sums["policy_loss"]
        if self.config.ptx:
            sums["ptx_loss"] = -(ptx * logprob).sum()
            total = total + sums["ptx_loss"]
        if self.divergence:
            sums["divergence"] = k3(logprob[ours], numbers("reference")[ours]).sum()
            total = total + self.divergence * sums["divergence"]
        if self.critic is not None:
            sums |= self._value_loss(of_episodes(batch, model.config), device)
            total = total + getattr(self.config, "value_weight", 1.0) * sums["value_loss"]
        sums["loss"] = total
        return total, {name: value.detach().double().cpu() for name, value in sums.items()}

    def _value_loss(self, batch: PackedBatch, device: torch.device) -> Sums:
        assert isinstance(self.config, PPOConfig)
        counted = np.flatnonzero(batch.targets.reshape(-1) >= 0)
        old, target = (to_device(batch.values[name].reshape(-1)[counted], device) for name in ("value", "return"))
        found = token_values(self.critic, batch, device)
        loss, cut = clipped_value_loss(found, old, target, self.config.value_clip)
        return {"value_loss": loss.sum(), "value_clipped": cut.float().sum()}

    def summary(self, sums: Sums) -> dict[str, Any]:
        count = max(1.0, float(sums["tokens"]))
        means = {name: float(value) / count for name, value in sums.items() if name != "tokens"}
        if self.config.ptx:
            means["ptx_loss"] /= self.config.ptx
        return means | self.rollouts.stats
