"""Low-rank adapters in the form that PEFT writes: adapter_config.json and adapter_model.safetensors.

Source: LoRA, Hu et al. 2021 (arXiv:2106.09685): a matrix W becomes W + α/r · B A.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foretell.errors import CheckpointError
from foretell.files import atomic_folder, read_json, write_json
from foretell.model.adapters import matrices, target
from foretell.model.convert import join, split, table
from foretell.model.decoder import Decoder
from foretell.model.multimodal import Multimodal
from foretell.model.packed import MATRICES, with_weights

CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
Lora = dict[str, tuple[Tensor, Tensor]]
"""By the weight's name in Hugging Face form: α/r · B (N, r) and A (r, D)."""

_PLAIN = {"use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None}


def read_lora(folder: Path, model: Multimodal) -> Lora:
    """The adapter in a folder. Raises CheckpointError for one that is damaged, or not of this model's decoder."""
    config = read_json(folder / CONFIG)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    odd = [name for name, plain in _PLAIN.items() if (config.get(name) or plain) != plain]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or odd:
        raise CheckpointError(
            f"{folder} is no plain LoRA adapter ({', '.join(odd) or 'peft_type, bias'}). Merge it with PEFT instead."
        )
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"{folder} has r {rank!r} and lora_alpha {alpha!r}; expected numbers. Copy it again.")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    file = folder / ADAPTER
    found = _load(file)
    shapes = {piece.name: piece.shape for _, _, entry in matrices(model.config) for piece in entry.pieces}
    lora: Lora = {}
    for key in found:
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
        name = f"{match[1]}.weight" if match else key
        a, b = (found.get(f"base_model.model.{name[:-7]}.lora_{half}.weight") for half in "AB")
        if name not in shapes or a is None or b is None:
            raise CheckpointError(f"{file} holds {key}, which changes no matrix of this model's decoder.")
        if (b.shape[0], a.shape[-1]) != shapes[name] or a.shape[0] != rank or b.shape[-1] != rank:
            raise CheckpointError(
                f"{file}: {name} is changed by {tuple(b.shape)} × {tuple(a.shape)}; expected rank {rank} and "
                f"{shapes[name]}. The adapter is another model's."
            )
        lora[name] = (b.float() * scale, a.float())
    return lora


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors ({error}). Copy it again.") from error


def trained(model: Multimodal) -> dict[str, Tensor]:
    """The parameters of a model's adapters, by PEFT's names."""
    found: dict[str, Tensor] = {}
    for layer, name, entry in matrices(model.config):
        low = model.decoder.layers[layer].adapter(name)
        if low is None:
            continue
        for piece in entry.pieces:
            if (part := target(piece.name)) in low.a:
                stem = f"base_model.model.{piece.name.removesuffix('.weight')}"
                found |= {f"{stem}.lora_A.weight": low.a[part], f"{stem}.lora_B.weight": low.b[part]}
    return found


def write_lora(folder: Path, model: Multimodal, base: str | None = None) -> None:
    """Write the adapters that were trained, whole or not at all, as PEFT does.

    base: what PEFT is told that they were trained on.
    """
    config = model.lora
    assert config is not None
    targets: list[str] | str = list(config.targets)
    if model.config.vision is not None:  # the image tower has modules of the same names; PEFT reads a text as a pattern
        targets = rf"model\.text_model\.layers\..*\.({'|'.join(targets)})"
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "target_modules": targets,
        "use_rslora": config.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        **_PLAIN,
    }
    with atomic_folder(folder) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained(model).items()}
        save_file(tensors, temporary / ADAPTER, metadata={"format": "pt"})
        write_json(temporary / CONFIG, settings)


@torch.no_grad()
def restore_lora(folder: Path, model: Multimodal) -> None:
    """Put back the adapters that `write_lora` wrote of a model with the same. Raises CheckpointError for others."""
    found, own = _load(folder / ADAPTER), trained(model)
    if {name: tensor.shape for name, tensor in found.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise CheckpointError(f"{folder} holds other adapters than are trained. Resume with the settings of its run.")
    for name, tensor in own.items():
        tensor.copy_(found[name])


@torch.no_grad()
def merged(model: Multimodal, lora: Mapping[str, tuple[Tensor, Tensor]]) -> Decoder:
    """The model's decoder with an adapter in its matrices; what does not change is shared."""
    changed: dict[str, Tensor] = {}
    own = dict(model.named_parameters())
    for entry in table(model.config):
        if any(piece.name in lora for piece in entry.pieces):
            weight = own[entry.ours]
            pieces = dict(split(entry, weight.float()))
            for name in pieces.keys() & lora.keys():
                b, a = lora[name]
                pieces[name] = pieces[name] + (b @ a).to(weight.device)
            changed[entry.ours] = join(entry, pieces.__getitem__).to(weight.dtype)
    decoder = model.decoder
    blocks = [
        with_weights(block, {n: t for n in MATRICES if (t := changed.get(f"decoder.blocks.{i}.{n}")) is not None})
        for i, block in enumerate(decoder.blocks)
    ]
    twin = copy.copy(decoder)
    twin._modules = {**decoder._modules, "blocks": nn.ModuleList(blocks)}
    return twin
