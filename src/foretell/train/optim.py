"""AdamW over the parametrisation's groups, learning-rate schedules, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

Schedule = Literal["linear", "cosine", "wsd"]


def lr_factor(step: int, total: int, warmup: float, decay: float, kind: Schedule) -> float:
    """Share of the peak learning rate at `step` (0-based) of `total`.

    warmup, decay: shares of the run. linear falls to zero right after the warm-up, cosine likewise in a half wave,
    wsd stays at the peak and falls linearly over the last `decay` share. The first step is not at zero, nor the last.
    Source: Hägele et al. 2024 (WSD); Bergsma et al. 2025 (linear to zero).
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    if kind == "wsd":
        fall = max(1, min(round(decay * total), total - rise))
        return max(0.0, min(1.0, (total - step) / (fall + 1)))
    left = max(0.0, (total - step) / max(1, total - rise))
    return left if kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def build_adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW on the groups of `model.parametrize.parameter_groups`, fused where torch has the kernel.

    Each group's own learning rate is kept as `peak_lr`; `set_lr` multiplies it. Weight decay stays constant.
    """
    device = groups[0]["params"][0].device.type
    optimizer = torch.optim.AdamW(groups, fused=device in ("cpu", "cuda", "mps"))
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    optimizer.register_step_post_hook(_note_change)
    return optimizer


def _note_change(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Fused kernels leave parameters' versions as they were (torch 2.13), and who holds a copy could not tell."""
    torch.autograd.graph.increment_version([p for group in optimizer.param_groups for p in group["params"]])


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Global L2 norm of the gradients, a scalar on their device."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip(parameters: Iterable[Tensor], norm: float, limit: float) -> None:
    """Scale the gradients in place so that their global norm, already known to be `norm`, is at most `limit`."""
    if norm > limit:
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], limit / norm)


def named_moments(optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's tensors under `parameter name/moment name`, for a checkpoint."""
    return {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_moments(optimizer: torch.optim.Optimizer, names: dict[Tensor, str], tensors: dict[str, Tensor]) -> None:
    """Put back what `named_moments` gave; a parameter without moments starts anew."""
    parameters = {name: parameter for parameter, name in names.items()}
    optimizer.state.clear()
    for key, value in tensors.items():
        name, moment = key.rsplit("/", 1)
        parameter = parameters[name]
        # The step counter lives where the fused kernel wants it: beside its parameter.
        optimizer.state[parameter][moment] = value.to(parameter.device, copy=True)
