"""Weights on disk: a folder with model.safetensors, config.json and a manifest of hashes. Never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foretell.errors import CheckpointError
from foretell.files import sha256_file, write_json
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig

MODEL_TYPE = "foretell"
MANIFEST = "manifest.json"


def write_model(folder: Path, model: Multimodal) -> None:
    """Write model.safetensors and config.json into a folder; weights are stored unfolded, in float32."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.named_parameters()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {"model_type": MODEL_TYPE, **model.config.model_dump(mode="json")})


def seal(folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write the manifest: the SHA-256 of every file now in the folder, and any facts."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_json(folder / MANIFEST, {**(facts or {}), "files": hashes})


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as they were written.

    Raises CheckpointError naming the first missing or changed file.
    """
    if not folder.is_dir():
        raise CheckpointError(f"No checkpoint at {folder}: there is no such folder. Check the path, or train first.")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes: dict[str, str] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} has no readable {MANIFEST}, so it is not a whole checkpoint. Use an earlier checkpoint."
        ) from error
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} lacks {name}, which its manifest lists. Use an earlier checkpoint.")
        if sha256_file(path) != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}. Use an earlier checkpoint, or copy anew."
            )
    return manifest


def read_config(folder: Path) -> ModelConfig:
    """The model configuration of a checkpoint folder. Raises CheckpointError when it is of another kind."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON, so the model's shape is unknown ({error}). Use an earlier checkpoint, or "
            "copy anew."
        ) from error
    found = raw.pop("model_type", None) if isinstance(raw, dict) else None
    if found != MODEL_TYPE:
        raise CheckpointError(
            f"{path} has model_type {found!r}; a Foretell checkpoint has {MODEL_TYPE!r}. Give a folder that "
            "`foretell run` wrote."
        )
    try:
        return ModelConfig.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"{path} is not a model configuration: {error.errors()[0]['msg']}.") from error


def read_weights(folder: Path, model: Multimodal) -> None:
    """Load model.safetensors into a model of the same shape.

    Raises CheckpointError naming the first tensor that is missing, left over, or of another shape.
    """
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}). Use an earlier checkpoint.") from error
    parameters = dict(model.named_parameters())
    for name in sorted(parameters.keys() | state.keys()):
        if name not in state or name not in parameters:
            where = "the checkpoint" if name not in state else "the model"
            raise CheckpointError(f"{path}: tensor {name} is not in {where}; the shapes in config.json differ.")
        if state[name].shape != parameters[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {tuple(state[name].shape)}, the model expects "
                f"{tuple(parameters[name].shape)}. Load it with the recipe it was trained with."
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, check: bool = True
) -> Multimodal:
    """The model of a checkpoint folder, ready to answer; `dtype` is its compute type."""
    if check:
        verify(folder)
    model = Multimodal(read_config(folder))
    read_weights(folder, model)
    model.compute_dtype = dtype
    return model.to(device).eval()
