"""Parameters and FLOPs of a model, part by part, from its configuration alone (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from foretell.recipe import ModelConfig


@dataclass(frozen=True)
class Part:
    """parameters: count. forward, backward: FLOPs of matrix products a token (2 a multiply-add); the vision tower's are
    given a tile."""

    name: str
    parameters: int
    forward: float = 0.0
    backward: float = 0.0
    per: str = "token"

    @property
    def flops(self) -> float:
        """Training FLOPs: forward and backward."""
        return self.forward + self.backward


def describe(config: ModelConfig, context: float | None = None) -> list[Part]:
    """The parts of a model.

    context: mean number of positions a query attends to; default (max_length + 1) / 2, a causal row filled by one
    document. A product costs twice as much backward as forward (the gradients to its input and to its weight), but
    the image stem half of that, since no gradient goes to pixels, and looking up an embedding costs none. Attention
    counts the scores that causality and windows leave, 2 products forward and 4 backward; kernels that multiply what
    is masked, pad to blocks or compute scores twice do more. Elementwise work is not counted.
    Source: 6·N a token for matrices (Kaplan et al., arXiv 2001.08361), attention as in PaLM (arXiv 2204.02311, app. B).
    """
    context = (config.max_length + 1) / 2 if context is None else context
    width, depth = config.width, config.depth
    qkv = (config.heads + 2 * config.n_kv_heads) * config.head_dim
    attention = width * (qkv + config.heads * config.head_dim)
    seen = depth * context
    if config.sliding_window is not None:
        seen -= len(config.sliding_layers) * (context - _windowed(context, config.sliding_window))
    gains = (2 * depth + 1) * width + 2 * depth * config.head_dim * config.qk_norm
    mlp = 3 * width * config.ffn_width
    embedding = config.vocab_size * width
    head = "head (tied)" if config.tie_embeddings else "head"
    parts = [
        Part("embedding", embedding),
        _products("attention projections", depth * (attention + qkv * config.qkv_bias), depth * attention),
        _products("attention scores", 0, 2 * seen * config.heads * config.head_dim),
        _products("mlp", depth * mlp, depth * mlp),
        Part("norms", gains),
        _products(head, 0 if config.tie_embeddings else embedding, embedding),
    ]
    vision = config.vision
    if vision is not None:
        patches = (vision.tile // vision.patch) ** 2
        block = 4 * vision.width**2 + 2 * vision.width * vision.ffn_width
        biases = (3 + 1 + 1 + 4) * vision.width + vision.ffn_width
        stem = 3 * vision.patch**2 * vision.width
        once = 2.0 * patches * stem
        connector = vision.width * vision.shuffle**2 * width
        tower = vision.depth * (block + biases) + 2 * vision.width
        parts += [
            Part("vision patches", stem + (1 + patches) * vision.width, once, once, "tile"),
            _products("vision blocks", tower, vision.depth * patches * block, "tile"),
            _products("vision scores", 0, vision.depth * patches * 2 * patches * vision.width, "tile"),
            _products("connector", connector, vision.tokens_per_tile * connector, "tile"),
        ]
    return parts


def _products(name: str, parameters: int, multiply_adds: float, per: str = "token") -> Part:
    return Part(name, parameters, 2.0 * multiply_adds, 4.0 * multiply_adds, per)


def _windowed(context: float, window: int) -> float:
    """Mean of min(i, window) over the positions i of a causal row whose mean without a window is `context`."""
    length = 2 * context - 1
    return context if window >= length else window - window * (window - 1) / (2 * length)


def parameter_count(config: ModelConfig) -> int:
    return sum(part.parameters for part in describe(config))


def training_flops(
    config: ModelConfig, tokens: float, tiles: float = 0, context: float | None = None, head_tokens: float | None = None
) -> float:
    """FLOPs of training on `tokens` positions and `tiles` images.

    head_tokens: positions that carry loss, where only those reach the head; default all.
    """
    total = 0.0
    for part in describe(config, context):
        if part.per == "tile":
            total += part.flops * tiles
        elif part.name.startswith("head"):
            total += part.flops * (tokens if head_tokens is None else head_tokens)
        else:
            total += part.flops * tokens
    return total


def flops_per_token(config: ModelConfig, context: float | None = None) -> float:
    """Training FLOPs of one text token."""
    return training_flops(config, 1, context=context)
