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
from safetensors.torch import load_file
from torch import Tensor, nn

from foretell.errors import CheckpointError
from foretell.files import read_json
from foretell.model.convert import join, split, table
from foretell.model.decoder import Decoder
from foretell.model.multimodal import Multimodal
from foretell.model.packed import MATRICES, with_weights

Lora = dict[str, tuple[Tensor, Tensor]]
"""By the weight's name in Hugging Face form: α/r · B (N, r) and A (r, D)."""

_PLAIN = {"use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None}


def read_lora(folder: Path, model: Multimodal) -> Lora:
    """The adapter in a folder. Raises CheckpointError for one that is damaged, or not of this model's decoder."""
    config = read_json(folder / "adapter_config.json")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    odd = [name for name, plain in _PLAIN.items() if (config.get(name) or plain) != plain]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or odd:
        raise CheckpointError(
            f"{folder} is no plain LoRA adapter ({', '.join(odd) or 'peft_type, bias'}). Merge it with PEFT instead."
        )
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"{folder} has r {rank!r} and lora_alpha {alpha!r}; expected numbers. Copy it again.")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    file = folder / "adapter_model.safetensors"
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors ({error}). Copy it again.") from error
    shapes = {
        piece.name: piece.shape
        for entry in table(model.config)
        if entry.ours.startswith("decoder.blocks.") and entry.ours.rpartition(".")[2] in MATRICES
        for piece in entry.pieces
    }
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
