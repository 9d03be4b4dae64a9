"""The decoder as a CPU multiplies it best: matrices rearranged for oneDNN, in the precision they are used in.

oneDNN's kernels on rearranged weights suit the few rows of decoding, which BLAS libraries are not made for, and from
two rows on each row of a product has the same bits whatever the number of rows. Decoding, prompts read in pieces of
any size, and batches of any size therefore agree bit by bit. The price is a second copy of the weights.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foretell.model.decoder import Decoder
from foretell.model.fused import PLAIN_ROWS

MATRICES = ("qkv", "attention_out", "gate_up", "down")


def pack(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight (N, D) as `fused.linear` takes it, in dtype; rearranged where that is possible."""
    weight = weight.detach().to(dtype)
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight, 16)  # type: ignore[no-any-return]
    except (AttributeError, RuntimeError):  # a build of torch, or a processor, that cannot
        return weight


def packed(decoder: Decoder, dtype: torch.dtype, head: bool = True) -> tuple[Decoder, Tensor]:
    """A decoder that computes the same without gradients, and the head's weight, packed if `head`. All but matrices is
    shared.

    The copy holds the weights as they are now: what changes them later does not change it.
    """
    blocks = [
        with_weights(block, {name: pack(getattr(block, name), dtype) for name in MATRICES}) for block in decoder.blocks
    ]
    twin = copy.copy(decoder)
    twin._modules = {**decoder._modules, "blocks": nn.ModuleList(blocks)}
    return twin, pack(decoder.head_weight, dtype) if head else decoder.head_weight


def row_multiple(weight: Tensor) -> int:
    """Products with this weight are to have a multiple of so many rows, for the same bits whatever the number."""
    return 4 if weight.layout is torch._mkldnn else 2 * PLAIN_ROWS  # type: ignore[attr-defined]


def with_weights(block: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A block that shares all but these weights."""
    twin = copy.copy(block)
    twin._parameters = {**block._parameters, **weights}  # type: ignore[dict-item]
    return twin
