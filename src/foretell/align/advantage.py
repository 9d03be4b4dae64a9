"""What a reply's rewards say of its tokens: divergence from the reference, advantages, and how strongly KL is held.

Sources: Schulman 2020 (http://joschu.net/blog/kl-approx.html); Schulman et al. 2016 (arXiv 1506.02438); Ziegler et al.
2019 (arXiv 1909.08593).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Numbers = TypeVar("Numbers", Floats, Tensor)
MOST_ERROR = 0.2  # of a round, as a share of the target


def k1(policy: Numbers, reference: Numbers) -> Numbers:
    """log π − log π_ref of drawn tokens: its mean over tokens drawn by π is the divergence KL(π ‖ π_ref)."""
    return policy - reference


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """π_ref / π − 1 − log(π_ref / π): the same mean, never negative, with a smaller variance where the two are near."""
    gap = reference - policy
    return torch.expm1(gap) - gap


def gae(rewards: Floats, values: Floats, discount: float, trace: float) -> tuple[Floats, Floats]:
    """Generalised advantages of one reply's tokens, and the returns that its values are trained towards.

    rewards: (T,), of each token the policy drew, in order; what others said in between is left out, so that a value is
    followed by that of the next token drawn. values: (T,), before each. Nothing follows the last.
    """
    advantages = np.zeros(len(rewards))
    ahead = value = 0.0
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + discount * value - values[t] + discount * trace * ahead
        value = values[t]
        advantages[t] = ahead
    return advantages, advantages + values


def whiten(values: Floats, shift: bool = True) -> Floats:
    """Values with deviation 1 and mean 0; with their own mean unless `shift`. Those that do not differ become 0."""
    mean = values.mean()
    scaled = (values - mean) / (values.std() + 1e-8)
    return np.asarray(scaled if shift else scaled + mean)


def group_advantages(rewards: Sequence[float] | Floats, scale: bool) -> Floats:
    """Rewards of the replies to one prompt, less their mean; scale: over their deviation (of a sample)."""
    values = np.asarray(rewards, np.float64)
    centred = values - values.mean()
    return np.asarray(centred / (values.std(ddof=1) + 1e-4) if scale else centred)


def explained_variance(returns: Floats, values: Floats) -> float:
    """1 − Var(returns − values) / Var(returns): 1 of a perfect critic, 0 of one that knows but the mean."""
    spread = returns.var()
    return float(1 - (returns - values).var() / spread) if spread > 0 else 0.0


@dataclass
class KLControl:
    """The coefficient β of the penalty; with a target it grows where a round's KL is above, and falls below."""

    coefficient: float
    target: float | None = None
    gain: float = 0.1

    def update(self, kl: float) -> None:
        """kl: mean nats a reply in the round that is over."""
        if self.target is not None:
            error = max(-MOST_ERROR, min(MOST_ERROR, kl / self.target - 1))
            self.coefficient *= 1 + self.gain * error
