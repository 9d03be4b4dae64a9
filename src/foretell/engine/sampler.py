"""From logits to tokens: pure functions; a random number follows from a seed and a place alone.

A reply's token depends on its own logits, its seed, and how many tokens stand before it, so the same seed gives the
same text whatever else is in the batch, and however often it is computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foretell.errors import GenerationError
from foretell.generate import Sampling

_FEW = 512  # tokens among which top-k and top-p mostly cut
FORBIDDEN = -100  # a bias that no logit outweighs
NOT_FINITE = (
    "The model's logits are not finite numbers, so no token can be drawn. The checkpoint comes from a run "
    "that diverged; load an earlier one (pretrain/checkpoints)."
)


def uniform(seed: int, sample: int, position: int) -> float:
    """A number in [0, 1) for one token of one sample: a hash of where it stands, so that none depends on another."""
    place = b"".join((part % 2**64).to_bytes(8, "little") for part in (seed, sample, position))
    return (int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 11) / 2**53


def distribution(
    logits_BV: Tensor, temperature_B: Tensor, top_k_B: Tensor, top_p_B: Tensor, min_p_B: Tensor | None = None
) -> Tensor:
    """What is sampled from: temperature, then min-p, then top-k, then top-p.

    logits_BV: float; -inf is never drawn. temperature_B: 0 puts all mass on the first argmax. top_k_B: int64,
    0 means all; of equal tokens the lower ids stay. top_p_B: the smallest set of most likely tokens that holds
    at least this share; never empty. min_p_B: tokens below this share of the likeliest weigh nothing.
    Returns (B, V) weights in id order, each row with a positive, finite sum.
    Source: nucleus sampling, Holtzman et al. 2020 (arXiv:1904.09751).
    """
    best_B1 = logits_BV.amax(-1, keepdim=True)
    greedy_B = temperature_B == 0
    weights_BV = ((logits_BV - best_B1) / temperature_B.masked_fill(greedy_B, 1)[:, None]).softmax(-1)
    if min_p_B is not None:
        weights_BV = weights_BV.masked_fill(weights_BV < min_p_B[:, None] * weights_BV.amax(-1, keepdim=True), 0)
    cut = ((top_k_B > 0) | (top_p_B < 1)).nonzero()[:, 0]
    if len(cut):
        weights_BV[cut] = _truncate(weights_BV[cut], top_k_B[cut], top_p_B[cut])
    if greedy_B.any():
        rows = greedy_B.nonzero()[:, 0]
        weights_BV[rows] = torch.zeros_like(weights_BV[rows]).scatter_(1, logits_BV[rows].argmax(-1)[:, None], 1.0)
    return weights_BV


def _truncate(weights_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """Top-k and top-p. Where the cut lies among the likeliest few, as it does nearly always, only these are sorted."""
    size = weights_BV.shape[-1]
    if size <= 2 * _FEW:
        return _cut(weights_BV, top_k_B, top_p_B, None)
    least_B1 = weights_BV.topk(_FEW, -1).values[:, -1:]
    inside_BV = weights_BV > least_B1  # not those equal to the least, of which others may be outside
    few_BV = weights_BV * inside_BV
    total_B = weights_BV.cumsum(-1, dtype=_wide(weights_BV))[:, -1]
    mass_B = few_BV.cumsum(-1, dtype=_wide(weights_BV))[:, -1]
    count_B = inside_BV.sum(-1)
    enough_B = torch.where(top_k_B > 0, top_k_B <= count_B, (top_p_B < 1) & (mass_B >= top_p_B * total_B))
    few, all_ = enough_B.nonzero()[:, 0], (~enough_B).nonzero()[:, 0]
    out_BV = torch.zeros_like(weights_BV)
    if len(few):
        ids_BK = inside_BV[few].int().topk(_FEW, -1).indices.sort(-1).values
        weights_BK = _cut(few_BV[few].gather(1, ids_BK), top_k_B[few], top_p_B[few], total_B[few])
        out_BV[few] = torch.zeros_like(few_BV[few]).scatter_(1, ids_BK, weights_BK)
    if len(all_):
        out_BV[all_] = _cut(weights_BV[all_], top_k_B[all_], top_p_B[all_], None)
    return out_BV


def _cut(weights_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor, total_B: Tensor | None) -> Tensor:
    """total_B: the mass of all tokens, where weights_BV holds some of them."""
    size = weights_BV.shape[-1]
    sorted_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
    k_B1 = torch.where(top_k_B > 0, top_k_B, size).clamp(max=size)[:, None]
    mass_BV = sorted_BV.cumsum(-1, dtype=_wide(weights_BV))
    more_likely_BV = mass_BV - sorted_BV
    whole_B1 = mass_BV.gather(1, k_B1 - 1)
    if total_B is not None:
        whole_B1 = torch.where(top_k_B[:, None] > 0, whole_B1, total_B[:, None])
    inside_BV = (more_likely_BV < top_p_B[:, None] * whole_B1) | (top_p_B[:, None] >= 1)
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


def adjust(logits_BV: Tensor, samplings: Sequence[Sampling], counts: Sequence[Mapping[int, int]]) -> Tensor:
    """Logits with each row's penalties, for tokens drawn so often, and biases."""
    changed = [i for i, s in enumerate(samplings) if s.frequency_penalty or s.presence_penalty or s.logit_bias]
    if not changed:
        return logits_BV
    logits_BV = logits_BV.clone()
    for i in changed:
        s = samplings[i]
        added = dict(s.logit_bias)
        if s.frequency_penalty or s.presence_penalty:
            for token, count in counts[i].items():
                added[token] = added.get(token, 0) - s.frequency_penalty * count - s.presence_penalty
        ids = torch.tensor(list(added), dtype=torch.int64, device=logits_BV.device)
        values = [-torch.inf if s.logit_bias.get(token) == FORBIDDEN else value for token, value in added.items()]
        logits_BV[i, ids] += torch.tensor(values, dtype=logits_BV.dtype, device=logits_BV.device)
    return logits_BV


def weigh(logits_BV: Tensor, samplings: Sequence[Sampling], allowed_V: Tensor) -> Tensor:
    """What each row is sampled from, as `distribution` gives it; tokens outside allowed_V (bool) weigh nothing.

    Raises GenerationError when the logits are not finite numbers.
    """
    logits_BV = logits_BV.float().masked_fill(~allowed_V, -torch.inf)
    if not torch.isfinite(logits_BV.amax(-1)).all():
        raise GenerationError(NOT_FINITE)
    return _weigh(logits_BV, samplings)


def _weigh(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    device, wide = logits_BV.device, _wide(logits_BV)
    return distribution(
        logits_BV,
        torch.tensor([s.temperature for s in samplings], device=device),
        torch.tensor([s.top_k for s in samplings], device=device),
        torch.tensor([s.top_p for s in samplings], device=device, dtype=wide),
        torch.tensor([s.min_p for s in samplings], device=device) if any(s.min_p for s in samplings) else None,
    )


def pick(logits_BV: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """The next token of each row, (B,) int64. Every row's greatest logit is finite; -inf is never chosen."""
    if all(s.temperature == 0 for s in samplings):
        return logits_BV.argmax(-1)
    weights_BV = _weigh(logits_BV, samplings)
    return draw(weights_BV, torch.tensor(uniforms, dtype=_wide(weights_BV), device=weights_BV.device))


def log_probabilities(logits_BV: Tensor, chosen_B: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the model's own distribution, before temperature and truncation.

    Returns, in nats, that of the chosen tokens (B,), the k greatest (B, k), and their ids (B, k).
    """
    logs_BV = logits_BV.float().log_softmax(-1)
    top_Bk, ids_Bk = logs_BV.topk(min(k, logs_BV.shape[-1]), -1)
    return logs_BV.gather(1, chosen_B[:, None])[:, 0], top_Bk, ids_Bk


def _wide(like: Tensor) -> torch.dtype:
    return torch.float32 if like.device.type == "mps" else torch.float64
