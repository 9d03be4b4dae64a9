"""What every configuration is made of, and the settings of the one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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


class ParallelConfig(Section):
    """How a run lies on its processes, which are replicate × shard × tensor; numbers stay what they are on one.

    shard: processes that share weights, gradients and moments between them (FSDP2); auto takes what the others leave.
    replicate: copies of such a group, whose gradients are summed (hybrid sharding). tensor: processes that multiply one
    row of the batch together, each some heads and some of the MLP; sequence: they share what lies between those
    products as well, by positions. reshard: when a layer's gathered weights are let go. auto: after its forward and
    backward pass; gradients of a step's micro-batches are summed before they travel. always: gradients travel after
    every micro-batch, which holds the least memory. never: at the end of a step, which moves the fewest bytes.
    checkpoint: what of a layer is computed again in the backward pass. selective: all but its matrix products.
    full: all of it.
    """

    shard: Positive | Literal["auto"] = "auto"
    replicate: Positive = 1
    tensor: Positive = 1
    sequence: bool = False
    reshard: Literal["auto", "always", "never"] = "auto"
    checkpoint: Literal["none", "selective", "full"] = "none"

    @model_validator(mode="after")
    def _sequence(self) -> Self:
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence shares what tensor splits; set tensor above 1, or sequence to false")
        return self


class Distributed(Section):
    """Whatever may run on many processes. parallel: how it lies on them; without it each holds the whole model."""

    parallel: ParallelConfig | None = None

    @model_serializer(mode="wrap")
    def _plain(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the block a configuration has the digest that it had before there was one."""
        found: dict[str, Any] = dump(self)
        if self.parallel is None:
            found.pop("parallel", None)
        return found
