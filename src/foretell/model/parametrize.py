"""CompleteP: how initial values, learning rates, decay and ε follow width and depth.

With m = fan_in / base fan_in and m_L = depth / base depth, hyper-parameters tuned at the base shape hold at every
shape. Sources: Yang et al., Tensor Programs V (arXiv 2203.03466); Dey et al., CompleteP (arXiv 2505.01618);
weight-decay time-scale: Wang and Aitchison (arXiv 2405.13698).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from foretell.recipe import ModelConfig, OptimizerConfig, VisionConfig

if TYPE_CHECKING:
    from foretell.model.multimodal import Multimodal

Role = Literal["embedding", "hidden", "output", "gain", "bias", "head"]


@dataclass(frozen=True)
class Scaling:
    """How one tensor scales. m: its fan-in over the base fan-in; m_width: the tower's width over its base; m_depth
    likewise (1 outside the blocks). `output` is a hidden matrix that writes into the residual stream."""

    role: Role
    m: float
    m_width: float
    m_depth: float

    @property
    def lr(self) -> float:
        return 1 / self.m if self.role in ("hidden", "output") else 1.0

    @property
    def decay(self) -> float:
        """Decay over the base λ: grows as the learning rate shrinks, so their product stays."""
        return self.m if self.role in ("hidden", "output") else 0.0

    @property
    def eps(self) -> float:
        if self.role in ("hidden", "output"):
            return 1 / (self.m * self.m_depth)
        if self.role in ("gain", "bias"):
            return 1 / (self.m_width * self.m_depth)
        return 1 / self.m_width

    def init_std(self, sigma: float, zero_outputs: bool) -> float | None:
        """Standard deviation of the initial values; None for a gain, which starts at one."""
        if self.role == "gain":
            return None
        if self.role == "bias" or (self.role == "output" and zero_outputs):
            return 0.0
        return sigma / self.m**0.5 if self.role in ("hidden", "output") else sigma


def scalings(config: ModelConfig) -> dict[str, Scaling]:
    """Parameter name -> how it scales, for every parameter of a Multimodal of this shape."""
    found = _decoder(config)
    if config.vision is not None:
        found |= _vision(config.vision)
    return found


def _decoder(config: ModelConfig) -> dict[str, Scaling]:
    m = config.width / config.base_width
    base = config.model_copy(update={"width": config.base_width})
    m_ffn = m if config.ffn else config.ffn_width / base.ffn_width
    m_depth = config.depth / config.base_depth
    found = {
        "decoder.embedding": Scaling("embedding", 1, m, 1),
        "decoder.norm": Scaling("gain", 1, m, 1),
    }
    if not config.tie_embeddings:
        found["decoder.head"] = Scaling("head", 1, m, 1)
    for layer in range(config.depth):
        prefix = f"decoder.blocks.{layer}."
        found |= {
            prefix + "attention_norm": Scaling("gain", 1, m, m_depth),
            prefix + "mlp_norm": Scaling("gain", 1, m, m_depth),
            prefix + "qkv": Scaling("hidden", m, m, m_depth),
            prefix + "gate_up": Scaling("hidden", m, m, m_depth),
            prefix + "attention_out": Scaling("output", m, m, m_depth),
            prefix + "down": Scaling("output", m_ffn, m, m_depth),
        }
        if config.qkv_bias:
            found[prefix + "qkv_bias"] = Scaling("bias", 1, m, m_depth)
        if config.qk_norm:
            found |= {prefix + name: Scaling("gain", 1, m, m_depth) for name in ("q_norm", "k_norm")}
    return found


def _vision(config: VisionConfig) -> dict[str, Scaling]:
    m = config.width / config.base_width
    m_depth = config.depth / config.base_depth
    found = {
        "vision.patch": Scaling("embedding", 1, m, 1),
        "vision.patch_bias": Scaling("bias", 1, m, 1),
        "vision.positions": Scaling("embedding", 1, m, 1),
        "vision.norm": Scaling("gain", 1, m, 1),
        "vision.norm_bias": Scaling("bias", 1, m, 1),
        "vision.connector": Scaling("hidden", m, m, 1),
    }
    for layer in range(config.depth):
        prefix = f"vision.blocks.{layer}."
        for norm in ("attention_norm", "mlp_norm"):
            found[prefix + norm] = Scaling("gain", 1, m, m_depth)
            found[f"{prefix}{norm}_bias"] = Scaling("bias", 1, m, m_depth)
        roles: dict[str, Role] = {"qkv": "hidden", "up": "hidden", "attention_out": "output", "down": "output"}
        for name, role in roles.items():
            found[prefix + name] = Scaling(role, m, m, m_depth)
            found[f"{prefix}{name}_bias"] = Scaling("bias", 1, m, m_depth)
    return found


@torch.no_grad()
def initialize(model: Multimodal, generator: torch.Generator) -> None:
    """Draw every parameter, in the order of their names, from `generator` (a CPU generator)."""
    named = dict(model.named_parameters())
    for name, value in initial(model.config, {name: p.shape for name, p in named.items()}, generator):
        named[name].copy_(value)


def initial(
    config: ModelConfig, shapes: Mapping[str, torch.Size], generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """The initial values that `initialize` gives parameters of these names and shapes, one at a time, on the CPU."""
    table = scalings(config)
    for name, shape in shapes.items():
        # Image patches have unit-sized inputs and a fixed fan-in; σ alone would start them an order too small.
        sigma = config.init_std
        if name == "vision.patch" and config.vision is not None:
            sigma = (3 * config.vision.patch**2) ** -0.5
        std = table[name].init_std(sigma, config.zero_init_outputs)
        if std is None:
            yield name, torch.ones(shape)
        else:
            yield name, torch.zeros(shape) if std == 0 else torch.randn(shape, generator=generator) * std


def base_decay(optimizer: OptimizerConfig, batch_tokens: int, total_tokens: int) -> float:
    """λ at the base shape, from the time-scale τ: λ = B / (η·τ·D); 0 when τ is 0."""
    return batch_tokens / (optimizer.lr * optimizer.tau * total_tokens) if optimizer.tau else 0.0


def parameter_groups(
    model: Multimodal, optimizer: OptimizerConfig, batch_tokens: int, total_tokens: int
) -> list[dict[str, Any]]:
    """AdamW groups of what is trained: parameters that scale alike share lr, weight_decay and eps; betas are common to
    all. Adapters do not scale."""
    table = scalings(model.config)
    table["scalar_head.weight"] = Scaling("head", 1, model.config.width / model.config.base_width, 1)
    decay = base_decay(optimizer, batch_tokens, total_tokens)
    vision = model.config.vision
    groups: dict[tuple[float, float, float], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scaling = Scaling("head", 1, 1, 1) if ".adapters." in name else table[name]
        tower = vision.lr_multiplier if vision is not None and name.startswith("vision.") else 1.0
        groups[scaling.lr * tower, scaling.decay / tower, scaling.eps].append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "lr": optimizer.lr * lr,
            "weight_decay": decay * weight_decay,
            "eps": optimizer.eps * eps,
            "betas": (optimizer.beta1, optimizer.beta2),
        }
        for (lr, weight_decay, eps), members in groups.items()
    ]
