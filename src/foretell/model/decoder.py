"""The decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention; the Llama form, with
the multipliers of CompleteP that `convert` folds away.

Matrices are kept in float32 and cast to `x.dtype` where they are used, so the residual stream's type alone
decides the precision of a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretell.model.fused import rms_norm, rotary_heads, swiglu
from foretell.recipe import ModelConfig

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q (B, H, T, D), k, v (B, G, T, D)) -> (B, T, H, D)"""


def rotary_table(config: ModelConfig, device: torch.device | None = None) -> Tensor:
    """cos and sin of every position's angles, as `fused.rotate` takes them: (2, max_length, head_dim), float32."""
    half = config.head_dim // 2
    frequency = config.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(config.max_length, dtype=torch.float64)[:, None] * frequency
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)]).to(device, torch.float32)


class KVCache:
    """Static key and value buffers for batched decoding.

    keys, values: per layer (B, G, length, D). lengths: (B,) int64, how many positions of each row are filled.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (batch, config.n_kv_heads, length, config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.depth)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.depth)]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.length = length

    def attend(self, positions: Tensor) -> Attend:
        """Attention that first writes the new keys and values at `positions` (B, t)."""
        reach = int(positions.max()) + 1
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]
        mask = torch.arange(reach, device=positions.device) <= positions[:, None, :, None]

        def attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[rows, :, positions] = k.transpose(1, 2).to(keys.dtype)
            values[rows, :, positions] = v.transpose(1, 2).to(values.dtype)
            out = F.scaled_dot_product_attention(
                q,
                keys[:, :, :reach].to(q.dtype),
                values[:, :, :reach].to(q.dtype),
                mask,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            return out.transpose(1, 2)

        return attention


class Block(nn.Module):
    """One layer. `before` and `after` attention are separate so that each can be compiled whole."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn, head = config.width, config.ffn_width, config.head_dim
        self.heads, self.kv_heads, self.head_dim, self.eps = config.heads, config.n_kv_heads, head, config.norm_eps
        self.branch = config.base_depth / config.depth
        self.attention_norm = nn.Parameter(torch.empty(width))
        self.qkv = nn.Parameter(torch.empty((config.heads + 2 * config.n_kv_heads) * head, width))
        self.attention_out = nn.Parameter(torch.empty(width, width))
        self.mlp_norm = nn.Parameter(torch.empty(width))
        self.gate_up = nn.Parameter(torch.empty(2 * ffn, width))
        self.down = nn.Parameter(torch.empty(width, ffn))

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = rms_norm(x, self.attention_norm, self.eps)
        return rotary_heads(F.linear(h, self.qkv.to(x.dtype)), cos, sin, self.heads, self.kv_heads)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        x = torch.add(x, F.linear(attended.flatten(2), self.attention_out.to(x.dtype)), alpha=self.branch)
        h = rms_norm(x, self.mlp_norm, self.eps)
        h = swiglu(F.linear(h, self.gate_up.to(x.dtype)))
        return torch.add(x, F.linear(h, self.down.to(x.dtype)), alpha=self.branch)

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
        self.register_buffer("table", rotary_table(config), persistent=False)

    @property
    def head_weight(self) -> Tensor:
        return self.embedding if self.head is None else self.head

    @property
    def output_multiplier(self) -> float:
        """α_out / m_d, applied to the final norm so that logits are one plain product."""
        return self.config.logit_multiplier * self.config.base_width / self.config.width

    def embed(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """tokens (B, T) -> (B, T, D)"""
        return F.embedding(tokens, self.embedding).to(dtype) * self.config.embed_multiplier

    def forward(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """x (B, T, D) and positions (B or 1, T) -> final-normed states (B, T, D); logits are these @ head_weight.T"""
        angles = self.table.to(x.dtype)[:, positions, None]
        if x.device.type == "cpu":  # broadcasting over heads is slower there than a table repeated for each
            angles = angles.expand(-1, -1, -1, self.config.heads + self.config.n_kv_heads, -1).contiguous()
        cos, sin = angles.unbind()
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, attend, layer)
        return rms_norm(x, self.norm * self.output_multiplier, self.config.norm_eps)
