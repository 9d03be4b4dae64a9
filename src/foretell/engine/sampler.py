"""From logits to tokens: pure functions, one random stream per reply.

A reply's token depends on its own logits and its own stream alone, so the same seed gives the same text
whatever else is in the batch (up to float rounding of the logits themselves).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foretell.errors import GenerationError
from foretell.generate import Sampling


def stream(seed: int | None, sample: int) -> torch.Generator:
    """The random stream of one sample of a request; seed None draws a fresh one."""
    entropy = None if seed is None else seed % 2**64
    state = np.random.SeedSequence(entropy, spawn_key=(sample,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def distribution(logits_BV: Tensor, temperature_B: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """What is sampled from: temperature, then top-k, then top-p.

    logits_BV: float; -inf is never drawn. temperature_B: 0 puts all mass on the first argmax. top_k_B: int64,
    0 means all; of equal tokens the lower ids stay. top_p_B: the smallest set of most likely tokens that holds
    at least this share; never empty. Returns (B, V) weights in id order, each row with a positive, finite sum.
    Source: nucleus sampling, Holtzman et al. 2020 (arXiv:1904.09751).
    """
    best_B1 = logits_BV.amax(-1, keepdim=True)
    greedy_B = temperature_B == 0
    weights_BV = ((logits_BV - best_B1) / temperature_B.masked_fill(greedy_B, 1)[:, None]).softmax(-1)
    cut = ((top_k_B > 0) | (top_p_B < 1)).nonzero()[:, 0]
    if len(cut):
        weights_BV[cut] = _truncate(weights_BV[cut], top_k_B[cut], top_p_B[cut])
    if greedy_B.any():
        rows = greedy_B.nonzero()[:, 0]
        weights_BV[rows] = torch.zeros_like(weights_BV[rows]).scatter_(1, logits_BV[rows].argmax(-1)[:, None], 1.0)
    return weights_BV


def _truncate(weights_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    size = weights_BV.shape[-1]
    sorted_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
    k_B1 = torch.where(top_k_B > 0, top_k_B, size).clamp(max=size)[:, None]
    mass_BV = sorted_BV.cumsum(-1, dtype=_wide(weights_BV))
    more_likely_BV = mass_BV - sorted_BV
    inside_BV = (more_likely_BV < top_p_B[:, None] * mass_BV.gather(1, k_B1 - 1)) | (top_p_B[:, None] >= 1)
    inside_BV &= torch.arange(size, device=weights_BV.device) < k_B1
    return torch.zeros_like(weights_BV).scatter_(1, order_BV, sorted_BV * inside_BV)


def draw(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Invert the cumulative distribution. weights_BV as from `distribution`; uniform_B in [0, 1). (B,) int64."""
    mass_BV = weights_BV.cumsum(-1, dtype=_wide(weights_BV))
    total_B1 = mass_BV[:, -1:]
    # Rounding may lift u · total to total itself, past every token.
    below_B1 = torch.minimum(
        uniform_B.to(mass_BV)[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1))
    )
    return torch.searchsorted(mass_BV, below_B1, right=True)[:, 0]


def weigh(logits_BV: Tensor, samplings: Sequence[Sampling], allowed_V: Tensor) -> Tensor:
    """What each row is sampled from, as `distribution` gives it; tokens outside allowed_V (bool) weigh nothing.

    Raises GenerationError when the logits are not finite numbers.
    """
    logits_BV, device = _checked(logits_BV, allowed_V), logits_BV.device
    return distribution(
        logits_BV,
        torch.tensor([s.temperature for s in samplings], device=device),
        torch.tensor([s.top_k for s in samplings], device=device),
        torch.tensor([s.top_p for s in samplings], device=device, dtype=_wide(logits_BV)),
    )


def choose(
    logits_BV: Tensor, samplings: Sequence[Sampling], streams: Sequence[torch.Generator], allowed_V: Tensor
) -> Tensor:
    """The next token of each row, (B,) int64; tokens outside allowed_V (bool) are never chosen.

    Raises GenerationError when the logits are not finite numbers.
    """
    if all(s.temperature == 0 for s in samplings):
        return _checked(logits_BV, allowed_V).argmax(-1)
    weights_BV = weigh(logits_BV, samplings, allowed_V)
    uniform_B = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in streams])
    return draw(weights_BV, uniform_B.to(weights_BV.device, _wide(weights_BV)))


def _checked(logits_BV: Tensor, allowed_V: Tensor) -> Tensor:
    logits_BV = logits_BV.float().masked_fill(~allowed_V, -torch.inf)
    if not torch.isfinite(logits_BV.amax(-1)).all():
        raise GenerationError(
            "The model's logits are not finite numbers, so no token can be drawn. The checkpoint comes from a run "
            "that diverged; load an earlier one (pretrain/checkpoints)."
        )
    return logits_BV


def log_probabilities(logits_BV: Tensor, chosen_B: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the model's own distribution, before temperature and truncation.

    Returns, in nats, that of the chosen tokens (B,), the k greatest (B, k), and their ids (B, k).
    """
    logs_BV = logits_BV.float().log_softmax(-1)
    top_Bk, ids_Bk = logs_BV.topk(min(k, logs_BV.shape[-1]), -1)
    return logs_BV.gather(1, chosen_B[:, None])[:, 0], top_Bk, ids_Bk


def _wide(like: Tensor) -> torch.dtype:
    return torch.float32 if like.device.type == "mps" else torch.float64
