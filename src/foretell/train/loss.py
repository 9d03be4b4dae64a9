"""Next-token cross-entropy in chunks: the full logits (tokens × vocabulary) never exist."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100
CHUNK = 512


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward, chunk by chunk, while the chunk's probabilities are in the cache."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, index: Tensor | None, chunk: int, train: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = hidden_ND.dtype
        exact = torch.promote_types(dtype, torch.float32)
        weight = weight_VD.to(dtype)
        nll = torch.empty(targets.numel(), dtype=exact, device=hidden_ND.device)
        places = torch.arange(chunk, device=hidden_ND.device) * len(weight)
        grad_hidden = torch.zeros_like(hidden_ND) if train else None
        grad_weight = torch.zeros_like(weight_VD, dtype=exact) if train and ctx.needs_input_grad[1] else None
        for start in range(0, targets.numel(), chunk):
            part = slice(start, start + chunk)
            rows = part if index is None else index[part]
            hidden, target = hidden_ND[rows], targets[part]
            logits = hidden @ weight.T
            # In training the probabilities are needed in the compute type anyway, and bfloat16 logits are no more
            # exact than bfloat16 probabilities; softmax widens them while it works.
            probs = torch.softmax(logits, dim=-1, dtype=dtype if train else exact)
            # Of the flat matrix, since scatter_ on a CPU copies all of its target, twice.
            flat, place = probs.view(-1), target + places[: len(target)]
            p = flat[place]
            nll[part] = p.to(exact).clamp_min(torch.finfo(exact).tiny).log_().neg_()
            if grad_hidden is None:
                continue
            flat[place] = p - 1
            grad_hidden[rows] = probs @ weight
            if grad_weight is None:
                continue
            if dtype == exact:
                grad_weight.addmm_(probs.T, hidden)
            else:
                grad_weight.add_(probs.T @ hidden)
        if grad_hidden is not None:
            ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden * scale, None if grad_weight is None else grad_weight * scale, None, None, None, None


class _ChunkedLogprobs(torch.autograd.Function):
    """Logits are made twice, a chunk at a time: in the backward each token's own gradient is known."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, index: Tensor, chunk: int) -> Tensor:
        exact = torch.promote_types(hidden_ND.dtype, torch.float32)
        weight = weight_VD.to(hidden_ND.dtype)
        logprobs = torch.empty(targets.numel(), dtype=exact, device=hidden_ND.device)
        for start in range(0, targets.numel(), chunk):
            part = slice(start, start + chunk)
            logits = (hidden_ND[index[part]] @ weight.T).to(exact)
            logprobs[part] = logits.gather(1, targets[part].unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
        ctx.save_for_backward(hidden_ND, weight_VD, targets, index)
        ctx.chunk = chunk
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets, index = ctx.saved_tensors
        dtype, exact = hidden_ND.dtype, grads[0].dtype
        weight = weight_VD.to(dtype)
        grad_hidden = torch.zeros_like(hidden_ND)
        grad_weight = torch.zeros_like(weight_VD, dtype=exact) if ctx.needs_input_grad[1] else None
        for start in range(0, targets.numel(), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            rows, scale = index[part], grads[0][part].unsqueeze(1)
            hidden = hidden_ND[rows]
            g = torch.softmax(hidden @ weight.T, dim=-1, dtype=exact).mul_(-scale)
            g = g.scatter_add_(1, targets[part].unsqueeze(1), scale).to(dtype)
            grad_hidden[rows] = g @ weight
            if grad_weight is not None:
                grad_weight.add_(g.T @ hidden)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype), None, None, None


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, index: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """The log-probability of each target, differentiable one by one; arguments as of `chunked_cross_entropy`.

    Returns (n,) float32 or wider, in nats, of the counted targets in order. For losses that weigh tokens by what
    other tokens gave, at the price of a second product with the head in the backward pass.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if index is None:
        index = (targets != IGNORE).nonzero().squeeze(1)
    found: Tensor = _ChunkedLogprobs.apply(hidden, weight, targets[index], index, chunk)  # type: ignore[no-untyped-call]
    return found


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, index: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Sum of next-token losses, and each one alone.

    hidden (..., D) with logits = hidden @ weight.T; weight (V, D); targets (...) int64, -100 where there is no loss.
    index: flat positions of the targets that count, when the caller knows them (saves a host sync on a GPU).
    Returns (sum, in nats, differentiable; nll (n,) float32, detached, of the counted targets in order). Matmuls run
    in the hidden states' type, sums of softmax and the weight's gradient in float32 or wider. One loss is capped at
    -log of the smallest normal number (87 nats in float32); its gradient is not.
    Source: the chunked loss of torchtitan and Liger Kernel.
    """
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = targets.reshape(-1)
    if index is None:
        index = (targets != IGNORE).nonzero().squeeze(1)
    if index.numel() == targets.numel():
        index = None
    else:
        targets = targets[index]
    train = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total, nll = _ChunkedCrossEntropy.apply(hidden, weight, targets, index, chunk, train)  # type: ignore[no-untyped-call]
    return total, nll
