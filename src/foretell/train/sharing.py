"""Gradients of a micro-batch whose rows are shared between threads, on a CPU.

torch's own threads divide every single operation and wait for each other at its end, a few thousand times a step, and
between operations all but one are idle: on a small model that takes a third of the time. Threads that compute rows of
their own wait once. The price is a model's gradients, and its weights in the compute type, once more for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from foretell.data.loader import PackedBatch
from foretell.model.multimodal import Multimodal
from foretell.train.objective import Objective, Sums, add, split

_LEAST = 512  # tokens of a share, and no fewer than the model is wide: more is spent on weights than on rows below


def sharers(rows: int, length: int, width: int) -> int:
    """How many threads share so many rows on a CPU: each has as many, and as many of torch's own threads."""
    found = math.gcd(rows, torch.get_num_threads())
    return found if rows * length >= found * max(_LEAST, width) else 1


def add_gradients(
    objective: Objective, model: Multimodal, batch: PackedBatch, weight: float, trained: Iterable[Tensor], threads: int
) -> tuple[Tensor, Sums]:
    """Add the gradients of a batch's loss over `weight` to those of what is trained; returns the loss, and its sums.

    threads: that share its rows. Which of them is first does not change a bit.
    """
    if threads == 1:
        total, sums = objective.loss(model, batch, model.device)
        if total.requires_grad:  # rows without images have nothing to teach where only vision is trained
            (total / weight).backward()  # type: ignore[no-untyped-call]
        return total.detach(), sums
    parameters, own = list(trained), torch.get_num_threads()

    def gradients(share: PackedBatch) -> tuple[Tensor, Sums, tuple[Tensor | None, ...]]:
        torch.set_num_threads(max(1, own // threads))  # of this thread; but MKL's are those of all
        total, sums = objective.loss(model, share, model.device)
        found = torch.autograd.grad(total / weight, parameters, allow_unused=True) if total.requires_grad else ()
        return total.detach(), sums, found

    config = model.config
    shares = split(
        batch, len(batch.tokens) // threads, config.image_token, config.vision.tokens_per_tile if config.vision else 1
    )
    try:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(gradients, shares))
    finally:
        torch.set_num_threads(own)
    sums = Sums()
    for _, share_sums, found in results:
        sums = add(sums, share_sums)
        for parameter, gradient in zip(parameters, found, strict=bool(found)):
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient)
            elif gradient is not None:
                parameter.grad = gradient.contiguous()  # as its parameter lies, which fused kernels rely on
    return torch.stack([total for total, *_ in results]).sum(), sums
