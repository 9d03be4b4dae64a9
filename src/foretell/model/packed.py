"""The decoder as the engine runs it: what does not change is folded into the matrices, and those lie as oneDNN reads
them best.

A step of decoding reads every weight once and does little else, so between two products nothing should be done that
could have been done before: gains, the scale of scores and branch factors are in the weights, residuals and gates in
the products. oneDNN's kernels on rearranged weights suit few rows, which BLAS libraries are not made for, and from two
rows on each row of a product has the same bits whatever the number of rows: decoding, prompts read in pieces of any
size, and batches of any size agree bit by bit. The price is a second copy of the weights.

They may be held in few bits as well (`model.quantized`), by kernels of which the same is true.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretell.model.decoder import Block, Decoder
from foretell.model.fused import PLAIN_ROWS, linear, rotate
from foretell.model.quantized import Bits, Quantized, quantize
from foretell.recipe import ModelConfig

MATRICES = ("qkv", "attention_out", "gate_up", "down")
Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, q (N, H, D), k before v (N, 2G, D)) -> (N, H·D); q carries the scale of the scores"""


Packed = Tensor | Quantized


def pack(weight: Tensor, dtype: torch.dtype, bits: Bits | None = None) -> Packed:
    """A weight (N, D) as `fused.linear` takes it, for products in dtype; rearranged where that is possible, or held in
    so many bits."""
    if bits is not None:
        return quantize(weight, bits)
    weight = weight.detach().to(dtype)
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight, 16)  # type: ignore[no-any-return]
    except (AttributeError, RuntimeError):  # a build of torch, or a processor, that cannot
        return weight


def row_multiple(weight: Packed) -> int:
    """Products with this weight are to have a multiple of so many rows, for the same bits whatever the number."""
    if isinstance(weight, Quantized):
        return 1
    return 4 if weight.layout is torch._mkldnn else 2 * PLAIN_ROWS  # type: ignore[attr-defined]


class PackedDecoder:
    """Computes what a decoder does, without gradients, in dtype, for rows of any sequences.

    It holds the weights as they are now: what changes them later does not change it. logits are `states @ headᵀ`; the
    head is only packed if `head`. bits: of the matrices, None for those of dtype; the head has 8, since logits suffer
    most, and embeddings are its rows where the two are one.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder, dtype: torch.dtype, head: bool = True, bits: Bits | None = None) -> None:
        self._decoder, self._dtype, self._config = decoder, dtype, decoder.config
        self._layers = [_Layer(block, self._config, dtype, bits) for block in decoder.layers]
        self._norm = (decoder.norm * decoder.output_multiplier).to(dtype)
        self.head: Packed = pack(decoder.head_weight, dtype, bits and 8) if head else decoder.head_weight

    def embed(self, ids_N: Tensor) -> Tensor:
        if isinstance(self.head, Quantized) and self._config.tie_embeddings:
            return self.head.rows(ids_N)[:, : self._config.width] * self._config.embed_multiplier
        return self._decoder.embed(ids_N, self._dtype)

    @property
    def weight_bytes(self) -> int:
        """What one step reads of the weights."""
        return self.head.nbytes + sum(matrix.nbytes for layer in self._layers for matrix in layer.matrices)

    def reach(self, length: int) -> None:
        self._decoder.reach(length)

    def __call__(self, x_ND: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Embedded rows -> their final-normed states; positions must be below what `reach` was last called with."""
        angles = self._decoder.table[:, positions_N, None].to(self._dtype)
        if x_ND.device.type == "cpu":  # broadcasting over heads is slower there than a table repeated for each
            angles = angles.expand(-1, -1, self._config.heads + self._config.n_kv_heads, -1).contiguous()
        cos, sin = angles.unbind()
        for i, layer in enumerate(self._layers):
            x_ND = layer(i, x_ND, cos, sin, attend)
        return F.rms_norm(x_ND, (x_ND.shape[-1],), self._norm, self._config.norm_eps)


class _Layer:
    def __init__(self, block: Block, config: ModelConfig, dtype: torch.dtype, bits: Bits | None) -> None:
        self.heads, self.turned, self.dim = config.heads, config.heads + config.n_kv_heads, config.head_dim
        self.eps, width, scale = config.norm_eps, config.width, config.head_dim**-0.5
        self.bound = torch.tensor((width * self.eps) ** 0.5, device=block.qkv.device)
        root = width**0.5  # of the norms, see `unit`
        before, after = block.attention_norm * root, block.mlp_norm * root
        self.before = self.after = None
        if bits is not None:  # folded, gains would widen the range that the numbers of a group share
            self.before, self.after = before.to(dtype), after.to(dtype)
            before, after = torch.ones_like(before), torch.ones_like(after)
        by_row = torch.ones(block.qkv.shape[0], device=block.qkv.device)
        self.gains: Tensor | None = None
        if block.q_norm is not None and block.k_norm is not None:
            q, k = block.q_norm.expand(self.heads, -1), block.k_norm.expand(config.n_kv_heads, -1)
            self.gains = torch.cat([q * scale, k]).to(dtype)
        else:
            by_row[: self.heads * self.dim] = scale
        self.qkv = pack(block.matrix("qkv").float() * before * by_row[:, None], dtype, bits)
        self.qkv_bias = None if block.qkv_bias is None else (block.qkv_bias * by_row).to(dtype)
        self.attention_out = pack(block.matrix("attention_out").float() * block.branch, dtype, bits)
        gate, up = (block.matrix("gate_up").float() * after).chunk(2)
        self.gate, self.up = pack(gate, dtype, bits), pack(up, dtype, bits)
        self.down = pack(block.matrix("down").float() * block.branch, dtype, bits)
        self.matrices = self.qkv, self.attention_out, self.gate, self.up, self.down

    def __call__(self, index: int, x_ND: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        heads_NHD = linear(self.unit(x_ND, self.before), self.qkv, self.qkv_bias).view(len(x_ND), -1, self.dim)
        qk, v = heads_NHD[:, : self.turned], heads_NHD[:, self.turned :]
        if self.gains is not None:
            qk = F.rms_norm(qk, (self.dim,), None, self.eps) * self.gains
        qk = rotate(qk, cos, sin)
        attended = attend(index, qk[:, : self.heads], torch.cat([qk[:, self.heads :], v], 1))
        x_ND = _plus(attended, self.attention_out, x_ND)
        h_ND = self.unit(x_ND, self.after)
        return _plus(_times(h_ND, self.up, _silu(h_ND, self.gate)), self.down, x_ND)

    def unit(self, x_ND: Tensor, gain: Tensor | None) -> Tensor:
        """x over its length, eps included: RMSNorm but for the gain and √D, which are in the weights, or in `gain`."""
        if gain is not None:
            return self.unit(x_ND, None) * gain
        if x_ND.dtype is torch.float32:
            length: Tensor = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
            return x_ND.div(length.hypot_(self.bound))
        length = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True, dtype=torch.float32)
        return x_ND.div(length.hypot_(self.bound)).to(x_ND.dtype)


def _fused(weight: Packed) -> TypeGuard[Tensor]:
    return isinstance(weight, Tensor) and weight.layout is torch._mkldnn  # type: ignore[attr-defined]


def _silu(x: Tensor, weight: Packed) -> Tensor:
    """silu(x @ weightᵀ)"""
    if _fused(weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "swish", [], "")  # type: ignore[no-any-return]
    return F.silu(linear(x, weight))


def _times(x: Tensor, weight: Packed, other: Tensor) -> Tensor:
    """(x @ weightᵀ) · other"""
    if _fused(weight):
        return torch.ops.mkldnn._linear_pointwise(x, other, weight, None, "mul")  # type: ignore[no-any-return]
    return linear(x, weight) * other


def _plus(x: Tensor, weight: Packed, other: Tensor) -> Tensor:
    """x @ weightᵀ + other"""
    if _fused(weight):
        return torch.ops.mkldnn._linear_pointwise(x, other, weight, None, "add")  # type: ignore[no-any-return]
    return other + linear(x, weight)


def give_up_matrices(decoder: Decoder) -> None:
    """Free the matrices of a decoder that was packed; what it is asked from now on only the packed one can answer."""
    head = "embedding" if decoder.head is None else "head"
    places: list[tuple[nn.Module, str]] = [(decoder, head)]
    places += [(block, name) for block in decoder.layers for name in MATRICES]
    for module, name in places:
        setattr(module, name, nn.Parameter(getattr(module, name).detach().to("meta"), requires_grad=False))


def with_weights(block: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A block that shares all but these weights, without the adapters it may have."""
    twin = copy.copy(block)
    twin._modules = {**block._modules, "adapters": None}
    twin._parameters = {**block._parameters, **weights}  # type: ignore[dict-item]
    return twin
