"""The whole model: image features are written into the slots that the text keeps for them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from foretell.errors import ForetellError
from foretell.model.attention import (
    Plan,
    document_mask,
    document_spans,
    flash_attention,
    flash_ready,
    masked_attention,
    packed_attention,
)
from foretell.model.decoder import Attend, Decoder
from foretell.model.fused import linear
from foretell.model.parametrize import initialize
from foretell.model.vision import VisionTower
from foretell.recipe import ModelConfig
from foretell.tuning import LoraConfig


class ScalarHead(nn.Module):
    """One number for each final-normed state: a reward, or a value.

    mean, std: of the raw numbers on reference samples; what it gives is normalised by them, and raw as long as they are
    0 and 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (...) float32"""
        return (hidden.float() @ self.weight.float() - self.mean) / self.std


class Multimodal(nn.Module):
    """Decoder with an optional image tower, perhaps a scalar head beside the one for tokens, and adapters (`lora`).

    Weights are float32; `compute_dtype` sets the precision of activations and products (float32 or bfloat16,
    no autocast needed). Weights are drawn from `generator`, or from a fresh one seeded with 0; on the meta device
    none are.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)
        self.vision = VisionTower(config.vision, config.width) if config.vision is not None else None
        self.scalar_head: ScalarHead | None = None
        self.lora: LoraConfig | None = None
        self.compute_dtype = torch.float32
        if not self.decoder.embedding.is_meta:
            initialize(self, generator or torch.Generator().manual_seed(0))

    @classmethod
    def empty(cls, config: ModelConfig) -> Multimodal:
        """A model whose parameters have shapes but no memory, to be assigned; its buffers are real."""
        with torch.device("meta"):
            return cls(config)

    @property
    def head_weight(self) -> Tensor:
        """(V, D); logits are hidden states @ head_weight.T"""
        return self.decoder.head_weight

    @property
    def device(self) -> torch.device:
        return self.decoder.norm.device

    def weights(self) -> dict[str, Tensor]:
        """What a language model of this configuration has, by name: adapters are merged, which makes all of it float32,
        and a scalar head is left out."""
        beside = ("scalar_head.", ".adapters.")
        own: dict[str, Tensor] = {n: p.detach() for n, p in self.named_parameters() if not any(b in n for b in beside)}
        if self.lora is None:
            return own
        merged = {
            f"decoder.blocks.{i}.{name}": block.matrix(name)
            for i, block in enumerate(self.decoder.layers)
            for name in block.adapters or ()
        }
        return {name: weight.float() for name, weight in (own | merged).items()}

    def embed(self, tokens: Tensor, tiles: Tensor | None = None) -> Tensor:
        """tokens (B, T) and tiles (N, S, S, 3) uint8 in slot order -> input embeddings (B, T, D).

        tiles None leaves the image tower out; a stack of none goes through it, and gives its parameters gradients of 0.
        Raises ForetellError when slots and tiles do not match.
        """
        x = self.decoder.embed(tokens, self.compute_dtype)
        n = 0 if tiles is None else len(tiles)
        if self.config.vision is None:
            if n:
                raise ForetellError("This model reads text only, but image tiles were given. Leave them out.")
            return x
        slots = tokens == self.config.image_token
        per_tile = self.config.vision.tokens_per_tile
        if (found := int(slots.sum())) != n * per_tile:
            raise ForetellError(
                f"{found} image slots were found for {n} tiles of {per_tile} tokens each; expected {n * per_tile}. "
                "Build token ids with template.Template, which keeps slots and tiles together."
            )
        if tiles is None or self.vision is None:
            return x
        features = self.vision(tiles, self.compute_dtype).flatten(0, 1)
        return x.index_put((slots,), features)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        tiles: Tensor | None = None,
    ) -> Tensor:
        """Final-normed states (B, T, D) of packed rows.

        positions (B, T): place within the document; segments (B, T): document number; both None: one document a row.
        """
        self.decoder.reach(tokens.shape[1])
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        states: Tensor = self.decoder(self.embed(tokens, tiles), positions, self._attention(tokens, segments))
        return states

    def _attention(self, tokens: Tensor, segments: Tensor | None) -> Attend:
        longest, window, sliding = tokens.shape[1], self.config.sliding_window, frozenset(self.config.sliding_layers)
        if segments is not None and flash_ready(tokens.device, self.compute_dtype):
            starts = [row * longest + start for row, start, _ in document_spans(segments)]
            bounds = torch.tensor([*starts, tokens.numel()], dtype=torch.int32, device=tokens.device)
            flash = partial(flash_attention, bounds=bounds, longest=longest)
            return lambda layer, q, k, v: flash(q, k, v, window=window if layer in sliding else None)
        if tokens.device.type == "cpu" and (segments is not None or self.training):
            spans = document_spans(torch.zeros_like(tokens) if segments is None else segments)
            longest = max(end - start for _, start, end in spans)
            full = partial(packed_attention, plan=Plan(spans, tokens.shape[1]))
        else:
            full = partial(masked_attention, mask=None if segments is None else document_mask(segments))
        if window is None or longest <= window:
            return lambda layer, q, k, v: full(q, k, v)
        mask = document_mask(torch.zeros_like(tokens) if segments is None else segments, window)
        near = partial(masked_attention, mask=mask)
        return lambda layer, q, k, v: (near if layer in sliding else full)(q, k, v)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32"""
        return linear(hidden, self.head_weight).float()

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        tiles: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of packed rows; training uses `hidden` and a chunked loss instead."""
        return self.logits(self.hidden(tokens, positions, segments, tiles))

    def compile_blocks(self) -> None:
        """Compile what lies between attentions; one graph of each kind serves every layer."""
        for block in self.decoder.blocks:
            for half in ("before", "after"):
                setattr(block, half, torch.compile(getattr(block, half), dynamic=False))
