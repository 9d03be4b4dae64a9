"""Causal attention over packed documents: no query looks across a document's border.

torch's fused CPU kernels compute whole rows and mask, and of one document a call take longer in the backward pass.
Here only the products that count are made: documents are padded to a few common lengths, those of one length are
multiplied together, a block of queries at a time with the keys up to its end.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # queries of a document multiplied at once
# Documents are padded to a multiple of the first, those longer than BLOCK of the second: of each shape that is new,
# oneDNN first compiles a kernel, for which it takes longer than for the product.
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
    """Documents padded to one length, from padded position `start` on."""

    count: int
    length: int
    start: int

    def part(self, x: Tensor, heads: int, begin: int, end: int) -> Tensor:
        """Of padded rows (P·heads, D), those from `begin` to `end` of each document: (count · heads, ·, D)."""
        first, last = ((self.start + self.count * place) * heads for place in (begin, end))
        return x[first:last].view(self.count * heads, end - begin, -1)

    def blocks(self) -> list[tuple[int, int]]:
        """Start and end of each block of queries; their keys are those before the end."""
        return [(i, min(i + BLOCK, self.length)) for i in range(0, self.length, BLOCK)]


@dataclass(frozen=True)
class Rows:
    """Where heads lie. taken: of each padded row, which one of (B, T, H) it is, padding being its document's last;
    place: of each row of (B, T, H), where it is padded; padding: the rows that are."""

    taken: Tensor
    place: Tensor
    padding: Tensor


class Plan:
    """How the documents of a batch are multiplied; one plan serves every layer.

    Padded rows lie bucket by bucket, and there by document, head and place in the document. Those of queries first lie
    block by block, so that what is multiplied at once need not be copied together.
    """

    def __init__(self, spans: list[Span], time: int) -> None:
        by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, start, end in spans:
            step = STEP if end - start <= BLOCK else LONG_STEP
            by_length[-(-(end - start) // step) * step].append((row * time + start, end - start))
        self.buckets: list[Bucket] = []
        self._documents: list[Tensor] = []
        at = 0
        for length, documents in sorted(by_length.items()):
            self.buckets.append(Bucket(len(documents), length, at))
            self._documents.append(torch.tensor(documents))
            at += len(documents) * length
        self._rows: dict[tuple[int, bool], Rows] = {}

    def rows(self, heads: int, blocked: bool) -> Rows:
        """Of tensors with so many heads. blocked: of queries, and what is alike."""
        if (heads, blocked) not in self._rows:
            self._rows[heads, blocked] = self._make(heads, blocked)
        return self._rows[heads, blocked]

    def _make(self, heads: int, blocked: bool) -> Rows:
        head = torch.arange(heads)[:, None]
        taken, padded = [], []
        for bucket, documents in zip(self.buckets, self._documents, strict=True):
            start, size = documents[..., None, None].unbind(1)
            for i, j in bucket.blocks() if blocked else [(0, bucket.length)]:
                offset = torch.arange(i, j)
                taken.append(((start + torch.minimum(offset, size - 1)) * heads + head).flatten())
                padded.append((offset >= size).expand(-1, heads, -1).flatten())
        rows, is_padding = torch.cat(taken), torch.cat(padded)
        real = (~is_padding).nonzero()[:, 0]
        place = torch.empty_like(real)
        place[rows[real]] = real
        return Rows(rows, place, is_padding.nonzero()[:, 0])


def packed_attention(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Causal attention within each document, scaled by 1/√head_dim.

    q: (B, H, T, D); k, v: (B, G, T, D) with H a multiple of G; the plan covers every position. Returns (B, T, H, D).
    """
    return _PackedAttention.apply(q, k, v, plan)  # type: ignore[no-any-return,no-untyped-call]


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        heads, groups = q.shape[1], k.shape[1]
        queries = _taken(q, plan, True).mul_(q.shape[-1] ** -0.5)
        keys, values = _taken(k, plan, False), _taken(v, plan, False)
        out, bias = torch.empty_like(queries), _causal_bias(q)
        keep, kept = any(ctx.needs_input_grad[:3]), list[Tensor]()
        for bucket in plan.buckets:
            k_, v_ = (_repeated(bucket.part(x, groups, 0, bucket.length), heads // groups) for x in (keys, values))
            for i, j in bucket.blocks():
                p = _probabilities(bucket.part(queries, heads, i, j), k_[:, :j], bias)
                torch.bmm(p, v_[:, :j], out=bucket.part(out, heads, i, j))
                if keep and bucket.length <= KEPT:
                    kept.append(p)
        if keep:
            ctx.save_for_backward(queries, keys, values, *kept)
        ctx.plan, ctx.heads, ctx.groups = plan, heads, groups
        return _placed(out, plan, heads, True, q.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        plan, heads, groups, repeat = ctx.plan, ctx.heads, ctx.groups, ctx.heads // ctx.groups
        queries, keys, values, *kept = ctx.saved_tensors
        bias = _causal_bias(grad)
        g = _taken(grad.transpose(1, 2), plan, True).index_fill_(0, plan.rows(heads, True).padding, 0)
        dq, dk, dv = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
        for bucket in reversed(plan.buckets):
            k_, v_, into_k, into_v = (bucket.part(x, groups, 0, bucket.length) for x in (keys, values, dk, dv))
            k_, v_ = _repeated(k_, repeat), _repeated(v_, repeat)
            dk_, dv_ = (into_k, into_v) if repeat == 1 else (torch.empty_like(k_), torch.empty_like(v_))
            for i, j in reversed(bucket.blocks()):
                q_, g_ = (bucket.part(x, heads, i, j) for x in (queries, g))
                p = kept.pop() if bucket.length <= KEPT else _probabilities(q_, k_[:, :j], bias)
                dp = torch.bmm(g_, v_[:, :j].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
                torch.bmm(ds, k_[:, :j], out=bucket.part(dq, heads, i, j))
                for into, left, right in ((dk_, ds, q_), (dv_, p, g_)):
                    if j == bucket.length:
                        torch.bmm(left.transpose(1, 2), right, out=into)
                    else:
                        into[:, :j].baddbmm_(left.transpose(1, 2), right)
            if repeat > 1:
                for into, found in ((into_k, dk_), (into_v, dv_)):
                    torch.sum(found.view(-1, repeat, *found.shape[1:]), 1, out=into)
        dq.mul_(queries.shape[-1] ** -0.5)
        of = ((dq, heads, True), (dk, groups, False), (dv, groups, False))
        return *(_placed(x, plan, count, blocked, grad).transpose(1, 2) for x, count, blocked in of), None


def _taken(x: Tensor, plan: Plan, blocked: bool) -> Tensor:
    """(B, H, T, D), laid out as (B, T, H, D) -> padded rows (P·H, D)"""
    return x.transpose(1, 2).reshape(-1, x.shape[-1]).index_select(0, plan.rows(x.shape[1], blocked).taken)


def _placed(rows: Tensor, plan: Plan, heads: int, blocked: bool, like: Tensor) -> Tensor:
    """The inverse of `_taken`, (B, T, H, D); like: (B, T, ·, D)."""
    x = rows.index_select(0, plan.rows(heads, blocked).place)
    return x.view(*like.shape[:2], heads, like.shape[-1])


def _repeated(x: Tensor, repeat: int) -> Tensor:
    return x if repeat == 1 else x.repeat_interleave(repeat, 0)


def _causal_bias(like: Tensor) -> Tensor:
    return torch.full((BLOCK, BLOCK), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


def _probabilities(queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """(N, S, L) of a block's queries (N, S, D) over the keys (N, L, D), which end where the block does."""
    block = queries.shape[1]
    scores = torch.bmm(queries, keys.transpose(1, 2))
    scores[:, :, -block:] += bias[:block, :block]
    return torch.softmax(scores, -1)


def _flat(x: Tensor) -> Tensor:
    """(B, H, T, D), laid out as (B, T, H, D) -> (B·T, H, D); a view where the layout allows it."""
    return x.transpose(1, 2).flatten(0, 1)
