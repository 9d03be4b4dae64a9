"""The elementwise parts of a layer in as few passes over memory as torch's own operations allow.

On small models these passes, not the matrix products, take most of an eager step. Under torch.compile the plain
formulas are used, since the compiler fuses them further.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foretell.model.quantized import Quantized

PLAIN_ROWS = 4  # from which on a row of MKL's float32 products has the same bits whatever their number


def linear(x: Tensor, weight: Tensor | Quantized, bias: Tensor | None = None) -> Tensor:
    """x @ weightᵀ + bias, in x's type. x: (..., D); weight: (N, D), as it is or by `packed.pack`. Returns (..., N)."""
    bias = None if bias is None else bias.to(x.dtype)
    if isinstance(weight, Quantized):
        return weight.product(x) if bias is None else weight.product(x).add_(bias)
    if weight.layout is torch._mkldnn:  # type: ignore[attr-defined]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight.to(x.dtype), bias)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / rms(x) · gain over the last axis, in x's type; x (..., D), gain (D,)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.rms_norm(x, (x.shape[-1],), gain.to(x.dtype), eps)
    return _RMSNorm.apply(x, gain.to(x.dtype), eps)  # type: ignore[no-any-return,no-untyped-call]


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up, where gate_up (..., 2F) holds gate before up. Returns (..., F)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate if torch.compiler.is_compiling() else gate.contiguous()) * up
    return _SwiGLU.apply(gate_up)  # type: ignore[no-any-return,no-untyped-call]


def swiglu_linear(x: Tensor, gate_up: Tensor) -> Tensor:
    """`swiglu(linear(x, gate_up))` of a weight (2F, D) that is not packed."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return swiglu(linear(x, gate_up))
    return _SwiGLULinear.apply(x, gate_up)  # type: ignore[no-any-return,no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of x (B, T, H, D) by their angles.

    cos and sin (B or 1, T, H or 1, D) hold each angle for both of a pair, the sine negative for the first.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def rotary_heads(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a fused projection qkv (B, T, (H + 2G)·D) and turn queries and keys as `rotate` does.

    Returns q (B, H, T, D), k and v (B, G, T, D), laid out as (B, T, ·, D).
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        x = qkv.view(*qkv.shape[:2], heads + 2 * groups, -1)
        turned = rotate(x[:, :, : heads + groups], cos, sin)
        q, k, v = turned[:, :, :heads], turned[:, :, heads:], x[:, :, heads + groups :]
    else:
        q, k, v = _RotaryHeads.apply(qkv, cos, sin, heads, groups)  # type: ignore[no-untyped-call]
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        inverse: Tensor = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, gain)
        return unit * gain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        unit, inverse, gain = ctx.saved_tensors
        product = (grad * unit).flatten(0, -2)
        along = (product @ gain).view(inverse.shape)
        dx = (grad * gain).addcmul_(unit, along, value=-1 / gain.numel()).mul_(inverse)
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        return dx, product.sum(0, dtype=torch.promote_types(gain.dtype, torch.float32)).to(gain.dtype), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        # silu of a strided half is more than twice as slow as copying it first.
        active = F.silu(gate.contiguous())
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        out = torch.empty_like(gate_up)
        d_gate, d_up = out.chunk(2, -1)
        torch.mul(active, grad, out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate.contiguous()))
        return out


class _SwiGLULinear(torch.autograd.Function):
    """Gate and up by a product each: halves of one result, which lie apart row by row, would have to be copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor) -> Tensor:
        flat, weight = x.flatten(0, -2), gate_up.to(x.dtype)
        gate, up = (flat @ half.T for half in weight.chunk(2))
        active = F.silu(gate)
        ctx.save_for_backward(flat, weight, gate, up, active)
        ctx.exact = gate_up.dtype
        return (active * up).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, gate, up, active = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        d_up = grad * active
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = torch.empty_like(weight)
            for half, d_half in zip(d_weight.chunk(2), (d_gate, d_up), strict=True):
                torch.mm(d_half.T, flat, out=half)
            d_weight = d_weight.to(ctx.exact)
        weight_gate, weight_up = weight.chunk(2)
        return (d_up @ weight_up).addmm_(d_gate, weight_gate).view(*grads[0].shape[:-1], -1), d_weight


class _RotaryHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, groups: int) -> tuple[Tensor, ...]:
        x = qkv.view(*qkv.shape[:2], heads + 2 * groups, -1)
        part = x[:, :, : heads + groups]
        turned = part.roll(part.shape[-1] // 2, -1).mul_(sin)
        turned += part * cos
        ctx.save_for_backward(cos, sin)
        ctx.heads, ctx.groups = heads, groups
        # A copy: a view of the input would tie the outputs together in autograd.
        return turned[:, :, :heads], turned[:, :, heads:], x[:, :, heads + groups :].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dq, dk, dv = grads
        cos, sin = ctx.saved_tensors
        part = torch.cat([dq, dk], 2)
        turned = (part * sin).roll(part.shape[-1] // 2, -1)
        return torch.cat([part.mul_(cos).add_(turned), dv], 2).flatten(2), None, None, None, None
