"""Settings of fine-tuning: supervised, a reward model, and direct preference optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foretell.recipe import OptimizerConfig, Positive, Section, Share, TrainConfig


class Tuning(Section):
    """What all of them share.

    epochs: passes over the training rows. batch_tokens: in one optimizer step; fewer where the data make fewer.
    sequence_length: of a packed row, at most what the model reads; an example longer than a row is bad. heldout: share
    of the prompts that only evaluation sees. bad_rows: whether a row that cannot be used ends the command or is counted
    and left out. lr: of AdamW without weight decay, at the base shape for models trained here.
    """

    epochs: float = Field(1.0, gt=0)
    sequence_length: Annotated[int, Field(ge=16)] = 1024
    batch_tokens: Positive = 8192
    micro_batch: Positive | None = None
    lr: float = Field(2e-5, gt=0)
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    warmup: Share = 0.03
    clip: float = Field(1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    heldout: Share = 0.05
    bad_rows: Literal["stop", "skip"] = "stop"
    eval_every: Share = 0.1
    eval_batches: Positive = 8
    log_every: Positive = 10
    checkpoint_minutes: float = Field(5.0, gt=0)
    keep: Positive = 2
    watch: Literal["skip", "rewind", "off"] = "skip"

    def training(self, tokens: int, batch_tokens: int) -> TrainConfig:
        """The same for the one training loop. tokens: in all steps together."""
        shared = ("micro_batch", "schedule", "warmup", "precision", "device", "eval_every", "eval_batches", "log_every")
        return TrainConfig(
            tokens=tokens,
            batch_tokens=batch_tokens,
            optimizer=OptimizerConfig(lr=self.lr, tau=0, clip=self.clip),
            checkpoint_minutes=self.checkpoint_minutes,
            keep=self.keep,
            watch=self.watch,
            **{name: getattr(self, name) for name in shared},
        )


class SFTConfig(Tuning):
    """Supervised fine-tuning: next-token loss on what the assistant says, its end token included."""


class RewardConfig(Tuning):
    """A reward model: Bradley–Terry loss over all pairs of a prompt.

    centre: coefficient of the mean squared sum of a pair's rewards, which keeps them around 0 (Eisenstein et al.,
    arXiv 2312.09244).
    """

    lr: float = Field(1e-5, gt=0)
    centre: float = Field(0.0, ge=0)


class DPOConfig(Tuning):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290).

    beta: how strongly the model is held to the one it started from. label_smoothing: share of preferences taken to be
    noise (conservative DPO).
    """

    lr: float = Field(1e-6, gt=0)
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
