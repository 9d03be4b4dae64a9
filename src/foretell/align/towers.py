"""Image towers to graft: of a model of ours, of open weights, or a fresh one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from foretell.errors import CheckpointError, ForetellError
from foretell.loading import find_checkpoint, is_foreign
from foretell.model.multimodal import Multimodal
from foretell.model.weights import load_model
from foretell.recipe import ModelConfig, VisionConfig
from foretell.weights.importing import load_source

FRESH = re.compile(r"fresh:(\d+),(\d+),(\d+),(\d+)")
CONNECTOR = "connector"


@dataclass(frozen=True)
class Tower:
    """config: its shape. state: our names without the prefix -> float32 tensors, all but the connector, which belongs
    to one decoder. origin: where it is from."""

    config: VisionConfig
    state: dict[str, Tensor]
    origin: str


def open_tower(vision: str | Path, *, seed: int = 0, **changes: Any) -> Tower:
    """The tower of a reference, on the CPU.

    vision: a run or checkpoint of ours that sees; a folder or hub id in Idefics3 form (SmolVLM); one of a SigLIP tower
    alone; or fresh:SIDE,PATCH,WIDTH,DEPTH for an untrained one. changes: fields of its `VisionConfig` to replace.
    Raises CheckpointError for what is no tower, or cannot have these fields.
    """
    name = str(vision)
    if name.startswith("fresh:"):
        return _fresh(name, seed, changes)
    model = (
        load_source(vision, lambda stored: torch.float32).model
        if is_foreign(vision)
        else load_model(find_checkpoint(vision))
    )
    if model.config.vision is None or model.vision is None:
        raise CheckpointError(
            f"{name} reads text only, so it has no tower to graft. Give a model that sees as VISION, or "
            "fresh:64,8,96,2 (side, patch, width, depth) for a tower that is yet to learn."
        )
    return Tower(_changed(model.config.vision, name, changes), _state(model), name)


def _fresh(name: str, seed: int, changes: dict[str, Any]) -> Tower:
    found = FRESH.fullmatch(name)
    if found is None:
        raise CheckpointError(f"{name} is no tower; fresh ones are fresh:SIDE,PATCH,WIDTH,DEPTH, as in fresh:64,8,96,2.")
    side, patch, width, depth = map(int, found.groups())
    shape: dict[str, Any] = {"tile": side, "patch": patch, "width": width, "depth": depth}
    shape |= {"base_width": width, "base_depth": depth}
    try:
        config = VisionConfig(**shape | changes)
    except (ValidationError, ForetellError) as error:
        raise _refused(name, error) from error
    model = Multimodal(
        ModelConfig(vocab_size=64, width=32, depth=1, head_dim=32, vision=config, zero_init_outputs=False),
        torch.Generator().manual_seed(seed),
    )
    return Tower(config, _state(model), name)


def _state(model: Multimodal) -> dict[str, Tensor]:
    assert model.vision is not None
    return {key: value.detach().float() for key, value in model.vision.named_parameters() if key != CONNECTOR}


def _changed(config: VisionConfig, name: str, changes: dict[str, Any]) -> VisionConfig:
    try:
        return VisionConfig.model_validate({**config.model_dump(), **changes})
    except (ValidationError, ForetellError) as error:
        raise _refused(name, error) from error


def _refused(name: str, error: Exception) -> CheckpointError:
    why = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else str(error)
    return CheckpointError(f"{name} cannot be a tower here: {why}.")
