"""The decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention; the Llama form, with
the multipliers of CompleteP that `convert` folds away.

Matrices are kept in float32 and cast to `x.dtype` where they are used, so the residual stream's type alone
decides the precision of a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretell.model.fused import linear, rms_norm, rotary_heads, swiglu, swiglu_linear
from foretell.model.lowrank import LowRank
from foretell.recipe import ModelConfig

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q (B, H, T, D), k, v (B, G, T, D)) -> (B, T, H, D)"""


FIRST_POSITIONS = 4096  # that a model's rotary table holds before any are used


def rotary_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Angle a position of each pair (head_dim / 2), float64 on the CPU, and the factor on cos and sin."""
    half = config.head_dim // 2
    frequency = config.rope_theta ** -(torch.arange(half, dtype=torch.float64, device="cpu") / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequency, 1.0
    stretched = frequency / scaling.factor
    original = scaling.original_max_position_embeddings or config.max_length
    if scaling.kind == "llama3":
        turns = original * frequency / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    elif scaling.kind == "yarn":

        def pair(turns: float) -> float:
            """The pair, counted in fractions, that makes so many turns over the original length."""
            return half * math.log(original / (turns * 2 * math.pi)) / math.log(config.rope_theta)

        first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
        if scaling.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, config.head_dim - 1)
        last += 0.001 if first == last else 0
        kept = 1 - ((torch.arange(half, dtype=torch.float64, device="cpu") - first) / (last - first)).clamp(0, 1)
    else:
        return stretched, 1.0
    factor = 1.0
    if scaling.kind == "yarn":
        factor = scaling.attention_factor or (0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0)
    return stretched * (1 - kept) + frequency * kept, factor


def rotary_table(config: ModelConfig, length: int, device: torch.device | None = None) -> Tensor:
    """cos and sin of the first positions' angles, as `fused.rotate` takes them: (2, length, head_dim), float32."""
    frequency, factor = rotary_frequencies(config)
    angles = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * frequency
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)]).to(device, torch.float32)


class Block(nn.Module):
    """One layer. `before` and `after` attention are separate so that each can be compiled whole."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn, head = config.width, config.ffn_width, config.head_dim
        self.heads, self.kv_heads, self.head_dim, self.eps = config.heads, config.n_kv_heads, head, config.norm_eps
        self.branch = config.base_depth / config.depth
        self.attention_norm = nn.Parameter(torch.empty(width))
        self.qkv = nn.Parameter(torch.empty((config.heads + 2 * config.n_kv_heads) * head, width))
        self.qkv_bias = nn.Parameter(torch.empty(self.qkv.shape[0])) if config.qkv_bias else None
        self.q_norm = nn.Parameter(torch.empty(head)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.empty(head)) if config.qk_norm else None
        self.attention_out = nn.Parameter(torch.empty(width, config.heads * head))
        self.mlp_norm = nn.Parameter(torch.empty(width))
        self.gate_up = nn.Parameter(torch.empty(2 * ffn, width))
        self.down = nn.Parameter(torch.empty(width, ffn))
        self.adapters: nn.ModuleDict | None = None  # by matrix, each a LowRank

    def product(self, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x times one of the matrices, and what its adapters add."""
        y, low = linear(x, getattr(self, name), bias), self.adapter(name)
        return y if low is None else low.add(x, y)

    def matrix(self, name: str) -> Tensor:
        """One of the matrices, with its adapters merged into it."""
        weight: Tensor = getattr(self, name)
        low = self.adapter(name)
        return weight if low is None else low.merge(weight)

    def adapter(self, name: str) -> LowRank | None:
        """What is trained beside one of the matrices."""
        low = self.adapters[name] if self.adapters is not None and name in self.adapters else None
        return low if isinstance(low, LowRank) else None

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = rms_norm(x, self.attention_norm, self.eps)
        qkv = self.product("qkv", h, self.qkv_bias)
        if self.q_norm is not None and self.k_norm is not None:
            heads = qkv.view(*x.shape[:2], -1, self.head_dim)
            q, k, v = torch.split(heads, [self.heads, self.kv_heads, self.kv_heads], 2)
            qkv = torch.cat([rms_norm(q, self.q_norm, self.eps), rms_norm(k, self.k_norm, self.eps), v], 2).flatten(2)
        return rotary_heads(qkv, cos, sin, self.heads, self.kv_heads)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        x = torch.add(x, self.product("attention_out", attended.flatten(2)), alpha=self.branch)
        h = rms_norm(x, self.mlp_norm, self.eps)
        # Adapters, and tensor parallelism, have a `product` of their own.
        plain = self.adapter("gate_up") is None and "product" not in vars(self)
        h = swiglu_linear(h, self.gate_up) if plain else swiglu(self.product("gate_up", h))
        return torch.add(x, self.product("down", h), alpha=self.branch)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, layer: int) -> Tensor:
        return self.after(x, attend(layer, *self.before(x, cos, sin)))


class Decoder(nn.Module):
    """The stack of blocks with its embedding and head."""

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.Parameter(torch.empty(config.width))
        self.head = None if config.tie_embeddings else nn.Parameter(torch.empty(config.vocab_size, config.width))
        length = min(config.max_length, FIRST_POSITIONS)
        self.register_buffer("table", rotary_table(config, length), persistent=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, known as such."""
        return [block for block in self.blocks if isinstance(block, Block)]

    @property
    def head_weight(self) -> Tensor:
        return self.embedding if self.head is None else self.head

    @property
    def output_multiplier(self) -> float:
        """α_out / m_d, applied to the final norm so that logits are one plain product."""
        return self.config.logit_multiplier * self.config.base_width / self.config.width

    def reach(self, length: int) -> None:
        """Make the rotary table hold `length` positions (at most max_length); it grows by doubling."""
        if length > (size := self.table.shape[1]):
            while size < length:
                size *= 2
            self.table = rotary_table(self.config, min(size, self.config.max_length), self.table.device)

    def embed(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """tokens (B, T) -> (B, T, D)"""
        return F.embedding(tokens, self.embedding).to(dtype) * self.config.embed_multiplier

    def forward(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """x (B, T, D) and positions (B or 1, T) -> final-normed states (B, T, D); logits are these @ head_weight.T

        Positions must be below what `reach` was last called with.
        """
        angles = self.table[:, positions, None].to(x.dtype)
        if x.device.type == "cpu":  # broadcasting over heads is slower there than a table repeated for each
            angles = angles.expand(-1, -1, -1, self.config.heads + self.config.n_kv_heads, -1).contiguous()
        cos, sin = angles.unbind()
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, attend, layer)
        return rms_norm(x, self.norm * self.output_multiplier, self.config.norm_eps)
