"""The one table between our tensors and Hugging Face's: multipliers fold into the weights on the way out, and what
is left is a plain Llama, Mistral or Qwen, or an Idefics3 with images, that other software serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, VisionConfig


@dataclass(frozen=True)
class Piece:
    """One tensor in Hugging Face form."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """Our parameter × factor, split along its first axis, is the pieces, each viewed in its own shape.

    Laid end to end, the elements of the pieces are the elements of ours.
    """

    ours: str
    pieces: tuple[Piece, ...]
    factor: float = 1.0


def table(config: ModelConfig) -> list[Entry]:
    """Every parameter once; a tied head has no entry. Factors are exactly 1.0 at the base shape without multipliers.

    Branch factors go into output projections, the embedding factor into the embedding, the logit factor into the
    final norm's gain.
    """
    root = "model." if config.vision is None else "model.text_model."
    logits = config.logit_multiplier * config.base_width / config.width
    tied = config.tie_embeddings
    width, vocab = config.width, config.vocab_size
    entries = [
        Entry("decoder.embedding", (Piece(root + "embed_tokens.weight", (vocab, width)),), config.embed_multiplier),
        Entry(
            "decoder.norm",
            (Piece(root + "norm.weight", (width,)),),
            logits / config.embed_multiplier if tied else logits,
        ),
    ]
    if not tied:
        entries.append(Entry("decoder.head", (Piece("lm_head.weight", (vocab, width)),)))
    for layer in range(config.depth):
        entries += _layer(config, f"decoder.blocks.{layer}.", f"{root}layers.{layer}.")
    return entries + ([] if config.vision is None else list(_vision(config.vision, width)))


def _layer(config: ModelConfig, ours: str, theirs: str) -> Iterator[Entry]:
    width, ffn, head = config.width, config.ffn_width, config.head_dim
    branch = config.base_depth / config.depth

    def one(name: str, their: str, *shape: int, factor: float = 1.0) -> Entry:
        return Entry(ours + name, (Piece(theirs + their, shape),), factor)

    def qkv(part: str, *shape: int) -> tuple[Piece, ...]:
        rows = (("q", config.heads), ("k", config.n_kv_heads), ("v", config.n_kv_heads))
        return tuple(Piece(f"{theirs}self_attn.{n}_proj.{part}", (heads * head, *shape)) for n, heads in rows)

    yield one("attention_norm", "input_layernorm.weight", width)
    yield Entry(ours + "qkv", qkv("weight", width))
    if config.qkv_bias:
        yield Entry(ours + "qkv_bias", qkv("bias"))
    if config.qk_norm:
        yield one("q_norm", "self_attn.q_norm.weight", head)
        yield one("k_norm", "self_attn.k_norm.weight", head)
    yield one("attention_out", "self_attn.o_proj.weight", width, config.heads * head, factor=branch)
    yield one("mlp_norm", "post_attention_layernorm.weight", width)
    halves = tuple(Piece(f"{theirs}mlp.{name}_proj.weight", (ffn, width)) for name in ("gate", "up"))
    yield Entry(ours + "gate_up", halves)
    yield one("down", "mlp.down_proj.weight", width, ffn, factor=branch)


def _vision(config: VisionConfig, out_width: int) -> Iterator[Entry]:
    width, ffn, root = config.width, config.ffn_width, "model.vision_model."
    branch = config.base_depth / config.depth

    def one(ours: str, theirs: str, *shape: int, factor: float = 1.0) -> Entry:
        return Entry("vision." + ours, (Piece(theirs, shape),), factor)

    def both(ours: str, theirs: str, *shape: int, factor: float = 1.0) -> Iterator[Entry]:
        yield one(ours, root + theirs + ".weight", *shape, factor=factor)
        yield one(ours + "_bias", root + theirs + ".bias", shape[0], factor=factor)

    yield from both("patch", "embeddings.patch_embedding", width, 3, config.patch, config.patch)
    yield one("positions", root + "embeddings.position_embedding.weight", (config.tile // config.patch) ** 2, width)
    for layer in range(config.depth):
        ours, theirs = f"blocks.{layer}.", f"encoder.layers.{layer}."
        yield from both(ours + "attention_norm", theirs + "layer_norm1", width)
        for name, part, shape in (("qkv", "weight", (width, width)), ("qkv_bias", "bias", (width,))):
            pieces = tuple(Piece(f"{root}{theirs}self_attn.{n}_proj.{part}", shape) for n in "qkv")
            yield Entry("vision." + ours + name, pieces)
        yield from both(ours + "attention_out", theirs + "self_attn.out_proj", width, width, factor=branch)
        yield from both(ours + "mlp_norm", theirs + "layer_norm2", width)
        yield from both(ours + "up", theirs + "mlp.fc1", ffn, width)
        yield from both(ours + "down", theirs + "mlp.fc2", width, ffn, factor=branch)
    yield from both("norm", "post_layernorm", width)
    proj = "model.connector.modality_projection.proj.weight"
    yield one("connector", proj, out_width, width * config.shuffle**2)


def split(entry: Entry, ours: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every piece of our parameter; views of it where the factor is 1."""
    folded = ours.detach() if entry.factor == 1 else ours.detach() * entry.factor
    sizes = [piece.shape[0] for piece in entry.pieces]
    for piece, part in zip(entry.pieces, torch.split(folded, sizes), strict=True):
        yield piece.name, part.view(piece.shape)


def join(entry: Entry, read: Callable[[str], Tensor]) -> Tensor:
    """Our parameter from its pieces, each got by name; the inverse of `split`."""
    parts = [read(piece.name) for piece in entry.pieces]
    parts = [part.flatten(1) if part.ndim > 2 else part for part in parts]
    ours = torch.cat(parts) if len(parts) > 1 else parts[0]
    return ours if entry.factor == 1 else ours / entry.factor


def fold(model: Multimodal) -> dict[str, Tensor]:
    """State dict of the equal Hugging Face model (`weights.families.hugging_face_config` says which), for
    `load_state_dict`; a tied head is in it twice. Exact up to float rounding.
    """
    weights = model.weights()
    state = {name: t.clone() for entry in table(model.config) for name, t in split(entry, weights[entry.ours])}
    if model.config.tie_embeddings:
        root = "model." if model.config.vision is None else "model.text_model."
        state["lm_head.weight"] = state[root + "embed_tokens.weight"]
    return state


def normalized_pixels(tiles: Tensor) -> Tensor:
    """uint8 tiles (N, S, S, 3) as the pixel values (N, 3, S, S) that transformers models read, in -1…1."""
    return (tiles.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5) / 0.5
