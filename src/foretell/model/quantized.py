"""Weights in few bits: a matrix of integers with scales, which torch's kernels multiply as it lies.

int8 is symmetric with a scale a row; int4 has a scale and a zero for each GROUP of a row's numbers. Activations stay
bfloat16, so no data are needed to calibrate by. What rounding costs, and what it gains, is in docs/speed.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Bits = Literal[8, 4]
GROUP = 32  # numbers of a row that share a scale in int4
_SHARES = (1.0, 0.9, 0.8)  # of a group's range that its 16 levels may span, clipping the rest
_DTYPE = torch.bfloat16  # the one type that the kernels are fast for


@dataclass(frozen=True)
class Quantized:
    """A matrix (N, D), D in whole groups. data: int8 (N, D), or int4 as `_weight_int4pack_mm_for_cpu` takes it.
    scales: bfloat16, (N,), or (D / GROUP, N, 2) of a scale and a zero each."""

    bits: Bits
    data: Tensor
    scales: Tensor

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    def product(self, x: Tensor) -> Tensor:
        """x @ selfᵀ of bfloat16 x; a row's bits do not depend on how many there are."""
        flat = _whole_groups(x.reshape(-1, x.shape[-1])).contiguous()
        if self.bits == 8:
            out = torch._weight_int8pack_mm(flat, self.data, self.scales)
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.data, GROUP, self.scales)
        return out.view(*x.shape[:-1], -1)

    def rows(self, index: Tensor) -> Tensor:
        """Some of the rows (..., D), of int8."""
        return self.data[index].to(_DTYPE) * self.scales[index].unsqueeze(-1)


def _whole_groups(x: Tensor) -> Tensor:
    """x (..., D) with zeros up to a multiple of GROUP: the kernels read so many numbers at once."""
    return F.pad(x, (0, -x.shape[-1] % GROUP)) if x.shape[-1] % GROUP else x


def quantize(weight: Tensor, bits: Bits) -> Quantized:
    """A weight (N, D) on the CPU in so many bits, each number rounded to the nearest level.

    int4 takes of _SHARES what leaves the least squared error in each group. It needs N in multiples of 16; other
    matrices are held in int8.
    """
    weight = _whole_groups(weight.detach().float())
    rows, wide = weight.shape
    if bits == 8 or rows % 16:
        scale = weight.abs().amax(1).clamp_min(1e-12).div_(127).to(_DTYPE)
        data = weight.div(scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        return Quantized(8, data, scale)
    groups = weight.view(rows, -1, GROUP)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    least = torch.full_like(low, float("inf"))
    levels, scale, zero = torch.zeros_like(groups), torch.ones_like(low), torch.zeros_like(low)
    for share in _SHARES:
        step = ((high - low) * (share / 15)).clamp_min(1e-12).to(_DTYPE).float()
        middle = ((high + low + step) / 2).to(_DTYPE).float()  # of levels -8 to 7
        near = groups.sub(middle).div_(step).round_().clamp_(-8, 7)
        error = near.mul(step).add_(middle).sub_(groups).square_().sum(2, keepdim=True)
        better = error < least
        least, levels = torch.where(better, error, least), torch.where(better, near, levels)
        scale, zero = torch.where(better, step, scale), torch.where(better, middle, zero)
    data = torch.ops.aten._convert_weight_to_int4pack_for_cpu((levels + 8).view(rows, wide).to(torch.int32), 1)
    return Quantized(4, data, torch.cat([scale, zero], 2).transpose(0, 1).to(_DTYPE).contiguous())
