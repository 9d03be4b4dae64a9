"""Causal attention over packed documents: no query looks across a document's border.

torch's fused CPU kernels compute whole rows and mask. Here only the products that count are made: short documents
are padded to a few common lengths and multiplied together, long ones in blocks of queries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 192  # query rows of a long document multiplied at once; its scores then stay in cache
# Documents are padded to a multiple of these, short ones and long: of each shape that is new, oneDNN first compiles
# a kernel, for which it takes longer than for the product, and the lengths of every batch are new.
STEP, LONG_STEP = 32, 64
KEPT = 1024  # of longer documents the probabilities, which grow with the square, are made anew in the backward pass

Span = tuple[int, int, int]


def document_spans(segments: Tensor) -> list[Span]:
    """(row, start, end) of every run of equal ids in segments (B, T)."""
    host = segments.cpu()
    batch, time = host.shape
    changes = torch.ones(batch, time, dtype=torch.bool)
    changes[:, 1:] = host[:, 1:] != host[:, :-1]
    starts = changes.reshape(-1).nonzero().flatten().tolist()
    ends = [*starts[1:], batch * time]
    return [(s // time, s % time, s % time + e - s) for s, e in zip(starts, ends, strict=True)]


def document_mask(segments: Tensor, window: int | None = None) -> Tensor:
    """Boolean (B, 1, T, T), true where a query may look: same document, not later, less than `window` back."""
    same = segments[:, None, :, None] == segments[:, None, None, :]
    seen = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return same & (seen if window is None else seen.triu(1 - window))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by torch's fused kernels: mask is boolean, None means plain causal. Returns (B, T, H, D)."""
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2)


def flash_ready(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this GPU and this torch have the kernel of `flash_attention` for a type."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and find_spec("torch.nn.attention.varlen") is not None


def flash_attention(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, window: int | None = None) -> Tensor:
    """Causal attention within each document by the GPU's flash kernel, which visits no pair of two documents.

    q: (B, H, T, D); k, v: (B, G, T, D), float16 or bfloat16. bounds: (documents + 1,) int32, where each begins in the
    rows laid end to end. longest: of their lengths, or more. window: positions a query sees. Returns (B, T, H, D).
    """
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, time, dim = q.shape
    left = -1 if window is None else window - 1
    grouped = heads != k.shape[1]
    out = varlen_attn(
        _flat(q), _flat(k), _flat(v), bounds, bounds, longest, longest, window_size=(left, 0), enable_gqa=grouped
    )
    assert isinstance(out, Tensor)
    return out.view(batch, time, heads, dim)


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of all to all, for the few patches of a tile: q, k, v (N, H, P, D) -> (N, P, H, D).

    On a CPU these are plain products: the fused kernel's blocks are made for long rows.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (torch.softmax(scores, -1) @ v).transpose(1, 2)


@dataclass(frozen=True)
class Bucket:
    """Short documents padded to one length. index: (count · length,) flat positions, padding on the last document's
    place; real: the same shape, false on padding, or None where nothing is padded."""

    count: int
    length: int
    index: Tensor
    real: Tensor | None


@dataclass(frozen=True)
class Plan:
    """How the documents of a batch are multiplied; one plan serves every layer."""

    buckets: list[Bucket]
    long: list[Span]


def plan(spans: list[Span], time: int) -> Plan:
    """Sort spans by length: up to BLOCK into buckets, longer ones stay by themselves."""
    by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
    long = []
    for row, start, end in spans:
        if end - start <= BLOCK:
            by_length[-(-(end - start) // STEP) * STEP].append((row * time + start, end - start))
        else:
            long.append((row, start, end))
    buckets = []
    for length, documents in sorted(by_length.items()):
        starts, sizes = torch.tensor(documents).unbind(1)
        offsets = torch.arange(length)
        real = offsets < sizes[:, None]
        index = starts[:, None] + torch.minimum(offsets, sizes[:, None] - 1)
        padded = not bool(real.all())
        buckets.append(Bucket(len(documents), length, index.flatten(), real.flatten() if padded else None))
    return Plan(buckets, long)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Causal attention within each document, scaled by 1/√head_dim.

    q: (B, H, T, D); k, v: (B, G, T, D) with H a multiple of G; the plan covers every position. Returns (B, T, H, D).
    """
    return _PackedAttention.apply(q, k, v, plan)  # type: ignore[no-any-return,no-untyped-call]


def _causal_bias(block: int, like: Tensor) -> Tensor:
    return torch.full((block, block), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        batch, heads, time, dim = q.shape
        repeat, scale = heads // k.shape[1], dim**-0.5
        out = q.new_empty(batch, time, heads, dim)
        bias = _causal_bias(BLOCK, q)
        keep = any(ctx.needs_input_grad[:3])
        kept: list[Tensor] = []
        flat = [_flat(x) for x in (q, k, v)]
        for bucket in plan.buckets:
            queries, keys, values = (_gather(x, bucket, r) for x, r in zip(flat, (1, repeat, repeat), strict=True))
            p = torch.baddbmm(bias[: bucket.length, : bucket.length], queries.mul_(scale), keys.transpose(1, 2))
            p = torch.softmax(p, -1)
            _scatter(_flat(out.transpose(1, 2)), bucket, torch.bmm(p, values))
            if keep:
                kept += [queries, keys, values, p]
        for b, start, end in plan.long:
            one = slice(start, end)
            queries, keys, values = (
                _padded(x[b, :, one], r) for x, r in zip((q, k, v), (1, repeat, repeat), strict=True)
            )
            queries.mul_(scale)
            if keep:
                kept += [queries, keys, values]
            for i, j in _blocks(queries.shape[1]):
                p = _probabilities(queries[:, i:j], keys[:, :j], bias)
                out[b, one][i:j] = torch.bmm(p, values[:, :j])[:, : end - start - i].transpose(0, 1)
                if keep and end - start <= KEPT:
                    kept.append(p)
        ctx.save_for_backward(*kept)
        ctx.plan, ctx.shape, ctx.groups = plan, q.shape, k.shape[1]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        (batch, heads, time, dim), groups = ctx.shape, ctx.groups
        repeat, scale = heads // groups, dim**-0.5
        dq = grad.new_empty(batch, time, heads, dim)
        dk, dv = (grad.new_empty(batch, time, groups, dim) for _ in range(2))
        kept = iter(ctx.saved_tensors)
        bias = _causal_bias(BLOCK, grad)
        upstream = _flat(grad.transpose(1, 2))
        into = [_flat(x.transpose(1, 2)) for x in (dq, dk, dv)]
        for bucket in ctx.plan.buckets:
            queries, keys, values, p = (next(kept) for _ in range(4))
            g = _gather(upstream, bucket, 1)
            if bucket.real is not None:
                g *= bucket.real.view(bucket.count, 1, bucket.length, 1).expand(-1, heads, -1, -1).flatten(0, 1)
            ds = torch._softmax_backward_data(torch.bmm(g, values.transpose(1, 2)), p, -1, p.dtype)
            _scatter(into[0], bucket, torch.bmm(ds, keys).mul_(scale))
            _scatter(into[1], bucket, torch.bmm(ds.transpose(1, 2), queries), repeat)
            _scatter(into[2], bucket, torch.bmm(p.transpose(1, 2), g), repeat)
        for b, start, end in ctx.plan.long:
            one, length = slice(start, end), end - start
            queries, keys, values = (next(kept) for _ in range(3))
            row = _padded(grad[b, one].transpose(0, 1), 1)
            d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
            for i, j in _blocks(queries.shape[1]):
                p = next(kept) if length <= KEPT else _probabilities(queries[:, i:j], keys[:, :j], bias)
                g = row[:, i:j]
                ds = torch._softmax_backward_data(torch.bmm(g, values[:, :j].transpose(1, 2)), p, -1, p.dtype)
                dq[b, one][i:j] = torch.bmm(ds, keys[:, :j]).mul_(scale)[:, : length - i].transpose(0, 1)
                d_keys[:, :j].baddbmm_(ds.transpose(1, 2), queries[:, i:j])
                d_values[:, :j].baddbmm_(p.transpose(1, 2), g)
            dk[b, one] = _sum_groups(d_keys[:, :length], repeat).transpose(0, 1)
            dv[b, one] = _sum_groups(d_values[:, :length], repeat).transpose(0, 1)
        return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), None


def _blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of a document's queries."""
    return [(i, min(i + BLOCK, length)) for i in range(0, length, BLOCK)]


def _probabilities(queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """(H, S, L) of a block's queries (H, S, D) over its document's keys (H, L, D), which end where the block does."""
    block = queries.shape[1]
    scores = torch.bmm(queries, keys.transpose(1, 2))
    scores[:, :, -block:] += bias[:block, :block]
    return torch.softmax(scores, -1)


def _flat(x: Tensor) -> Tensor:
    """(B, H, T, D), laid out as (B, T, H, D) -> (B·T, H, D); a view where the layout allows it."""
    return x.transpose(1, 2).flatten(0, 1)


def _gather(flat: Tensor, bucket: Bucket, repeat: int) -> Tensor:
    """(B·T, G, D) -> contiguous (count · G · repeat, length, D)"""
    x = flat.index_select(0, bucket.index).view(bucket.count, bucket.length, *flat.shape[1:]).transpose(1, 2)
    return (x.repeat_interleave(repeat, 1) if repeat > 1 else x.contiguous()).flatten(0, 1)


def _scatter(into: Tensor, bucket: Bucket, x: Tensor, repeat: int = 1) -> None:
    """The inverse of `_gather`: padding is dropped, repeated heads are summed."""
    x = x.view(bucket.count, -1, bucket.length, x.shape[-1])
    x = (x if repeat == 1 else x.view(bucket.count, -1, repeat, *x.shape[2:]).sum(2)).transpose(1, 2).flatten(0, 1)
    if bucket.real is None:
        into[bucket.index] = x
    else:
        into[bucket.index[bucket.real]] = x[bucket.real]


def _padded(x: Tensor, repeat: int) -> Tensor:
    """(G, L, D) -> a new contiguous (G·repeat, L in whole steps, D), zeros behind the document."""
    wide = x.new_zeros(x.shape[0], -(-x.shape[1] // LONG_STEP) * LONG_STEP, x.shape[2])
    wide[:, : x.shape[1]] = x
    return wide if repeat == 1 else wide.repeat_interleave(repeat, 0)


def _sum_groups(x: Tensor, repeat: int) -> Tensor:
    return x if repeat == 1 else x.reshape(-1, repeat, *x.shape[1:]).sum(1)
