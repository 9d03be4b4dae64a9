"""What low-rank adapters add to a matrix product.

Source: LoRA, Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from foretell.model.fused import linear


class LowRank(nn.Module):
    """The adapters of one of a block's matrices (N, D), part by part as Hugging Face splits it.

    rows: of every part, in order. A part that has an adapter has a (r, D) and b (rows, r), which add scale · B A to it.
    The gradient of the matrix itself, and B A, are never made in training.
    """

    def __init__(self, rows: Mapping[str, int], width: int, targets: Collection[str], rank: int, scale: float) -> None:
        super().__init__()
        self.rows, self.rank, self.scale = dict(rows), rank, scale
        adapted = {name: count for name, count in rows.items() if name in targets}
        self.a = nn.ParameterDict({name: torch.empty(rank, width) for name in adapted})
        self.b = nn.ParameterDict({name: torch.zeros(count, rank) for name, count in adapted.items()})

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x (..., D) and its product with the matrix, y (..., N) -> y + scale · x Aᵀ Bᵀ"""
        low = torch.split(linear(x.flatten(0, -2), torch.cat([*self.a.values()])), self.rank, -1)
        given = dict(zip(self.a, low, strict=True))
        parts = [
            torch.addmm(part, given[name], self.b[name].to(x.dtype).T, alpha=self.scale) if name in given else part
            for name, part in zip(self.rows, torch.split(y.flatten(0, -2), [*self.rows.values()], -1), strict=True)
        ]
        return (torch.cat(parts, -1) if len(parts) > 1 else parts[0]).view(y.shape)

    @torch.no_grad()
    def merge(self, weight: Tensor) -> Tensor:
        """The matrix with the adapters in it, a new tensor in float32."""
        merged = weight.to(torch.float32, copy=True)
        for name, part in zip(self.rows, torch.split(merged, [*self.rows.values()]), strict=True):
            if name in self.a:
                part.addmm_(self.b[name], self.a[name], alpha=self.scale)
        return merged
