"""Learning from replies that another policy drew: how far it is from the one that learns, and truncated weights.

The one that draws (μ) differs from the one that learns (π) where its weights are older, and by rounding: it computes in
other batches, with other kernels, perhaps in another precision. The policy loss of each token is multiplied by
min(c, π/μ), π being the policy as the round is learned from begins, so that the clipped ratio of PPO stays that to π.

Sources: Ionides 2008, Truncated Importance Sampling (Journal of Computational and Graphical Statistics 17); Espeholt et
al. 2018 (arXiv 1802.01561), the ρ̄ of V-trace; Hilton et al. 2021 (arXiv 2110.00641), which keeps the policy that the
ratio is clipped to apart from the one that drew; Yao et al. 2025, On the Rollout-Training Mismatch in Modern RL
Systems.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretell.align.advantage import Floats
from foretell.align.episodes import Episode

SAMPLED, IMPORTANCE = "sampled", "importance"  # numbers of an episode: log μ as it drew, and the weights


def truncated_weights(learner: Floats, sampler: Floats, cap: float) -> Floats:
    """min(c, π/μ) of drawn tokens, from their log-probabilities: (n,), (n,) -> (n,).

    For any f of a token, Σ μ·min(c, π/μ)·f = Σ min(cμ, π)·f: the mean under π wherever π ≤ cμ, and short of it by
    Σ max(0, π − cμ)·f. So it holds for each token given those before it; that μ wrote those is left as it is.
    """
    return np.minimum(cap, np.exp(learner - sampler))


def weigh(episodes: Sequence[Episode], cap: float) -> dict[str, float]:
    """Give episodes their weights, from "old" and what the sampler told; returns what is logged of the two.

    logprob, largest: mean and greatest difference of log π and log μ, in nats a token. kl: of KL(μ ‖ π), by k3. weight:
    mean of the weights; truncated: share that the cap cut. effective: (Σw)² / (n Σw²), the share of the tokens that as
    many drawn by π itself would have told as much as.
    """
    for episode in episodes:
        numbers = episode.numbers
        numbers[IMPORTANCE] = truncated_weights(numbers["old"], numbers[SAMPLED], cap)
    gap = np.concatenate([episode.numbers["old"] - episode.numbers[SAMPLED] for episode in episodes])
    weights = np.concatenate([episode.numbers[IMPORTANCE] for episode in episodes])
    return {
        "logprob": float(np.abs(gap).mean()),
        "largest": float(np.abs(gap).max()),
        "kl": float((np.expm1(gap) - gap).mean()),
        "weight": float(weights.mean()),
        "truncated": float((np.exp(gap) > cap).mean()),
        "effective": float(weights.sum() ** 2 / (len(weights) * (weights**2).sum())),
    }
