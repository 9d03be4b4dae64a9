"""What every configuration is made of, and the settings of the one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Above = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME)]  # also of a folder


class Section(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def distinct(names: Sequence[str]) -> None:
    """Raises ValueError unless there are sources, each with a name of its own."""
    if not names:
        raise ValueError("sources is empty; name at least one source")
    if len(set(names)) < len(names):
        raise ValueError(f"two sources share a name ({', '.join(names)}); give each its own")


class OptimizerConfig(Section):
    """AdamW at the base shape; parametrisation scales it to every other shape.

    tau: time-scale of weight decay as a share of the run (λ = batch / (lr · tau · tokens)); 0 switches decay off.
    """

    lr: float = Field(4e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-12, gt=0)
    tau: float = Field(0.2, ge=0)
    clip: float = Field(1.0, gt=0)


class TrainConfig(Section):
    """tokens: how many to train on (the run's horizon). batch_tokens: tokens in one optimizer step.

    precision auto: bfloat16 where the hardware multiplies it, else float32.
    watch: what a loss spike or a non-finite step does.
    """

    tokens: Positive = 2_000_000
    batch_tokens: Positive = 8192
    micro_batch: Positive | None = None
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    warmup: Share = 0.02
    decay: Share = 0.2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint_minutes: float = Field(5.0, gt=0)
    keep: Positive = 2
    eval_every: Share = 0.1
    eval_batches: Positive = 8
    log_every: Positive = 10
    watch: Literal["skip", "rewind", "off"] = "skip"
    spike_sigmas: float = Field(8.0, gt=0)
