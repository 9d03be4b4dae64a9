"""Image towers to graft: of a model of ours, of open weights that see, of a SigLIP tower alone, or a fresh one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from foretell.errors import CheckpointError, ForetellError
from foretell.files import read_json
from foretell.model.convert import join, table
from foretell.model.multimodal import Multimodal
from foretell.model.vision import position_ids
from foretell.model.weights import MODEL_TYPE, load_model
from foretell.recipe import ModelConfig, VisionConfig
from foretell.weights.fields import Fields
from foretell.weights.hub import resolve
from foretell.weights.importing import load_source
from foretell.weights.tensors import open_safetensors

FRESH = "fresh:"
MOST_TOKENS = 64  # of a tile, where nothing says how much a tower's patches are shuffled together
_FRESH = re.compile(r"fresh:(\d+),(\d+),(\d+),(\d+)")
_CONNECTOR = "connector"
_SIGLIP = ("siglip_vision_model", "siglip")
_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
_OURS = "model.vision_model."  # the prefix of the same tensors in Idefics3's form
_THEIRS = ("vision_model.", "")  # and in SigLIP's: transformers 5 writes a tower alone without one
_FIRST = "embeddings.patch_embedding.weight"


@dataclass(frozen=True)
class Tower:
    """config: its shape. state: our names without the prefix -> float32 tensors, all but the connector, which belongs
    to one decoder. origin: where it is from."""

    config: VisionConfig
    state: dict[str, Tensor]
    origin: str


def is_ours(ref: str | Path) -> bool:
    """Whether a reference is a checkpoint folder of ours."""
    config = Path(ref).expanduser() / "config.json"
    return config.is_file() and read_json(config).get("model_type") == MODEL_TYPE


def open_tower(vision: str | Path, *, seed: int = 0, **changes: Any) -> Tower:
    """The tower of a reference, on the CPU.

    vision: a checkpoint folder of ours; a folder or hub id in Idefics3 or SmolVLM form, or of a SigLIP tower; or
    fresh:SIDE,PATCH,WIDTH,DEPTH for an untrained one, drawn by `seed`. changes: fields of `VisionConfig` to replace,
    None for what is to stay.
    Raises CheckpointError for what is no tower, or cannot have these fields.
    """
    name = str(vision)
    changes = {field: value for field, value in changes.items() if value is not None}
    if name.startswith(FRESH):
        return _fresh(name, seed, changes)
    if is_ours(vision):
        model = load_model(Path(vision).expanduser())
    else:
        path = resolve(vision)
        raw = read_json(path / "config.json") if (path / "config.json").is_file() else {}
        if raw.get("model_type") in _SIGLIP:
            return _siglip(path, raw, name, changes)
        model = load_source(vision, lambda stored: torch.float32).model
    if model.config.vision is None:
        raise CheckpointError(
            f"{name} reads text only, so it has no tower to graft. Give a model that sees as VISION, or "
            "fresh:64,8,96,2 (side, patch, width, depth) for a tower that is yet to learn."
        )
    return Tower(_shape(name, model.config.vision.model_dump(), changes), _state(model), name)


def _fresh(name: str, seed: int, changes: dict[str, Any]) -> Tower:
    found = _FRESH.fullmatch(name)
    if found is None:
        raise CheckpointError(
            f"{name} is no tower; fresh ones are fresh:SIDE,PATCH,WIDTH,DEPTH, as in fresh:64,8,96,2."
        )
    side, patch, width, depth = map(int, found.groups())
    config = _shape(
        name, {"tile": side, "patch": patch, "width": width, "depth": depth, **_base(width, depth)}, changes
    )
    shape = ModelConfig(vocab_size=64, width=32, depth=1, head_dim=32, vision=config, zero_init_outputs=False)
    return Tower(config, _state(Multimodal(shape, torch.Generator().manual_seed(seed))), name)


def _siglip(path: Path, raw: dict[str, Any], name: str, changes: dict[str, Any]) -> Tower:
    """The tower of transformers' SiglipVisionModel, or of a SiglipModel; its pooling head and texts stay behind."""
    fields = Fields(raw, {}, "config.json")
    part = fields.part("vision_config", _DEFAULTS) if raw["model_type"] == "siglip" else Fields(
        raw, _DEFAULTS, "config.json"
    )  # fmt: skip
    part.only("hidden_act", ("gelu_pytorch_tanh",))
    part.only("num_channels", (3,))
    width, heads, depth = (part.count(f) for f in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    tile, patch = part.side("image_size"), part.side("patch_size")
    if width % heads:
        part.refuse("num_attention_heads", f"it does not divide hidden_size {width}")
    if not 1 <= (grid := tile // patch) <= 512:
        part.refuse("patch_size", f"1 to 512 patches on a side of {tile} pixels were expected")
    if not torch.equal(position_ids(grid), torch.arange(grid * grid)):
        part.refuse("patch_size", f"in Idefics3's form two of {grid} × {grid} patches would share a position")
    shape = {
        "tile": tile,
        "patch": patch,
        "shuffle": _shuffle(grid),
        "width": width,
        "depth": depth,
        "head_dim": width // heads,
        "ffn": part.count("intermediate_size"),
        "norm_eps": part.number("layer_norm_eps"),
        **_base(width, depth),
    }
    config = _shape(name, shape, changes)
    model = ModelConfig(vocab_size=64, width=32, depth=1, head_dim=32, vision=config)
    archive = open_safetensors(path, skip=("position_ids",))
    shapes, state = archive.shapes(), {}
    prefix = next((prefix for prefix in _THEIRS if prefix + _FIRST in shapes), _THEIRS[0])
    try:
        for entry in table(model):
            room, _, ours = entry.ours.partition(".")
            if room != "vision" or ours == _CONNECTOR:
                continue
            for piece in entry.pieces:
                theirs = prefix + piece.name.removeprefix(_OURS)
                if shapes.get(theirs) != piece.shape:
                    raise CheckpointError(
                        f"{name}: tensor {theirs} has shape {shapes.get(theirs)}, its configuration asks for "
                        f"{piece.shape}. Copy or download the tower again."
                    )
            state[ours] = join(entry, lambda name: archive.read(prefix + name.removeprefix(_OURS)).float()).clone()
    finally:
        archive.close()
    return Tower(config, state, name)


def _shuffle(grid: int) -> int:
    """The smallest factor that divides a side of so many patches and leaves few enough tokens; 1 if there is none."""
    return next((f for f in range(1, grid + 1) if grid % f == 0 and (grid // f) ** 2 <= MOST_TOKENS), 1)


def _base(width: int, depth: int) -> dict[str, int]:
    return {"base_width": width, "base_depth": depth}


def _state(model: Multimodal) -> dict[str, Tensor]:
    assert model.vision is not None
    return {key: value.detach().float() for key, value in model.vision.named_parameters() if key != _CONNECTOR}


def _shape(name: str, shape: dict[str, Any], changes: dict[str, Any]) -> VisionConfig:
    try:
        return VisionConfig.model_validate(shape | changes)
    except (ValidationError, ForetellError) as error:
        where, why = "", str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where, why = "".join(f"{part}: " for part in first["loc"]), first["msg"]
        raise CheckpointError(
            f"{name} cannot be a tower here: {where}{why.removeprefix('Value error, ').rstrip('.')}."
        ) from error
