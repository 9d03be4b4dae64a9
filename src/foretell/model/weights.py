"""Weights on disk: a folder with model.safetensors, config.json and a manifest of hashes. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from foretell.errors import CheckpointError
from foretell.files import read_json, sha256_file, write_json
from foretell.model.lora import restore_lora
from foretell.model.multimodal import Multimodal, ScalarHead
from foretell.recipe import ModelConfig

MODEL_TYPE = "foretell"
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
ADAPTERS = "adapter"  # folder of a training checkpoint, and of a run
SCALAR_HEAD = "scalar_head.safetensors"
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_model(folder: Path, model: Multimodal) -> None:
    """Write model.safetensors and config.json into a folder; weights are stored unfolded, in the type they have.

    Adapters are merged into them. A scalar head lies beside them in a file of its own, so that the folder is a language
    model all the same.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in model.weights().items()}
    if model.scalar_head is not None:
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.scalar_head.state_dict().items()}
        save_file(head, folder / SCALAR_HEAD, metadata={"format": "pt"})
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    write_config(folder, model)


def write_config(folder: Path, model: Multimodal) -> None:
    write_json(folder / "config.json", {"model_type": MODEL_TYPE, **model.config.model_dump(mode="json")})


def seal(folder: Path, facts: dict[str, Any] | None = None, known: Mapping[str, str] | None = None) -> None:
    """Write the manifest: the SHA-256 of every file now in the folder, and any facts.

    known: file -> SHA-256, of files that were hashed as they were written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    hashes = {name: (known or {}).get(name) or sha256_file(path) for name, path in names.items()}
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
    raw = read_json(path)
    found = raw.pop("model_type", None)
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
    """Copy what is trained from a folder into a model of the same shape. Raises CheckpointError as `load_model`."""
    if model.lora is not None:
        restore_lora(folder / ADAPTERS, model)
    else:
        state = stored_weights(folder, model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith("scalar_head."):
                    parameter.copy_(state[name])
    if model.scalar_head is not None:
        read_scalar_head(folder, model)


def read_scalar_head(folder: Path, model: Multimodal) -> None:
    """Give a model the scalar head of a folder. Raises CheckpointError when there is none, or of another width."""
    path = folder / SCALAR_HEAD
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is no reward model: it has no {SCALAR_HEAD}. Train one with `foretell reward`."
        )
    head = ScalarHead(model.config.width)
    try:
        head.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not the head of this model ({error}). Use an earlier checkpoint.") from error
    if model.scalar_head is None:
        model.scalar_head = head.to(model.device)
    else:  # its parameter is in an optimizer already
        model.scalar_head.load_state_dict(head.state_dict())


def stored_weights(folder: Path, model: Multimodal) -> dict[str, Tensor]:
    """The memory-mapped tensors of model.safetensors, each with a place in the model."""
    path = folder / WEIGHTS
    if not path.is_file() and any(folder.glob("training/shard-*")):
        raise CheckpointError(
            f"{folder} holds the parts of a sharded run, which only that run reads. Resume it; its result is one model."
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}). Use an earlier checkpoint.") from error
    parameters = {name: p for name, p in model.named_parameters() if not name.startswith("scalar_head.")}
    for name in sorted(parameters.keys() | state.keys()):
        if name not in state or name not in parameters:
            where = "the checkpoint" if name not in state else "the model"
            raise CheckpointError(f"{path}: tensor {name} is not in {where}; the shapes in config.json differ.")
        if state[name].shape != parameters[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {tuple(state[name].shape)}, the model expects "
                f"{tuple(parameters[name].shape)}. Load it with the recipe it was trained with."
            )
        if state[name].dtype not in STORED.values():
            raise CheckpointError(
                f"{path}: tensor {name} is stored as {state[name].dtype}, expected one of {', '.join(STORED)}. "
                "Use an earlier checkpoint."
            )
    return state


def stored_dtype(folder: Path) -> torch.dtype:
    """The type that all weights of a checkpoint folder are stored in; float32 where they differ."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            found = {STORED.get(file.get_slice(name).get_dtype(), torch.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} cannot be read as safetensors ({error}). Use an earlier checkpoint."
        ) from error
    return found.pop() if len(found) == 1 else torch.float32


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, check: bool = True
) -> Multimodal:
    """The model of a checkpoint folder, ready to answer, with weights and products in `dtype`.

    Weights that are stored in `dtype` stay memory-mapped: they are read as they are used.
    Raises CheckpointError naming the first tensor that is missing, left over, of another shape or of no such type.
    """
    if check:
        verify(folder)
    model = Multimodal.empty(read_config(folder))
    state = {name: tensor.to(dtype) for name, tensor in stored_weights(folder, model).items()}
    model.load_state_dict(state, assign=True)
    model.compute_dtype = dtype
    return model.to(device).eval()
