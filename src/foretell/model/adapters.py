"""What is trained of a model: low-rank adapters beside the decoder's matrices, or all but the parts that are frozen.

Names and initial values are PEFT's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from foretell.errors import TrainingError
from foretell.model.convert import Entry, table
from foretell.model.lowrank import LowRank
from foretell.model.multimodal import Multimodal
from foretell.model.packed import MATRICES
from foretell.recipe import ModelConfig
from foretell.tuning import LoraConfig, Training


def matrices(config: ModelConfig) -> Iterator[tuple[int, str, Entry]]:
    """Layer, name and entry of every matrix of the decoder's blocks."""
    for entry in table(config):
        room, _, place = entry.ours.partition(".blocks.")
        layer, _, name = place.partition(".")
        if room == "decoder" and name in MATRICES:
            yield int(layer), name, entry


def target(name: str) -> str:
    """What PEFT calls the module of a weight in Hugging Face form: q_proj of model.layers.0.self_attn.q_proj.weight."""
    return name.split(".")[-2]


def add_adapters(model: Multimodal, config: LoraConfig, seed: int) -> None:
    """Give the decoder adapters and freeze what it has. B is zero, so that nothing changes yet, and A Kaiming-uniform.

    Adapters are those of the equal model in Hugging Face form: what folds into its matrices divides their scale here.
    Raises TrainingError for a rank above that of a matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = config.alpha / (config.rank**0.5 if config.rslora else config.rank)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    blocks = model.decoder.layers
    for block in blocks:
        block.adapters = nn.ModuleDict()
    for layer, name, entry in matrices(model.config):
        width = entry.pieces[0].shape[1]
        rows = {target(piece.name): piece.shape[0] for piece in entry.pieces}
        for part in rows.keys() & set(config.targets):
            if config.rank > (most := min(rows[part], width)):
                raise TrainingError(
                    f"lora.rank is {config.rank}, but {part} of this model is {rows[part]} × {width}, a matrix of rank "
                    f"{most} at most. Set lora.rank to at most that, or name other lora.targets."
                )
        adapters = blocks[layer].adapters
        if adapters is not None and rows.keys() & set(config.targets):
            low = LowRank(rows, width, config.targets, config.rank, scale / entry.factor)
            for a in low.a.values():
                nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            adapters[name] = low.to(model.device)
    model.lora = config
    if model.scalar_head is not None:
        model.scalar_head.requires_grad_(True)


@contextmanager
def without_adapters(model: Multimodal) -> Iterator[None]:
    """What is computed inside is computed by the base, such as the log-probabilities of a reference."""
    blocks = model.decoder.layers
    held = [block.adapters for block in blocks]
    try:
        for block in blocks:
            block.adapters = None
        yield
    finally:
        for block, adapters in zip(blocks, held, strict=True):
            block.adapters = adapters


def choose_trained(model: Multimodal, settings: Training) -> None:
    """Leave only what the settings train to be trained (requires_grad); a scalar head always is, and adapters are.

    Raises TrainingError as `add_adapters`, for a part that the model has not, and where nothing is left.
    """
    if settings.lora.rank:
        add_adapters(model, settings.lora, settings.seed)
    names = {name: _part(name) for name, _ in model.named_parameters()}
    has = {part for part in names.values() if part}
    if missing := [part for part in settings.freeze if part not in has]:
        raise TrainingError(
            f"freeze names {', '.join(missing)}, which this model does not have by itself (a tied head is its "
            f"embedding). Parts that can be frozen are {', '.join(sorted(has))}."
        )
    for name, parameter in model.named_parameters():
        if names[name] in settings.freeze:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError(f"freeze is {', '.join(settings.freeze)}, which is all of this model. Leave a part out.")


def _part(name: str) -> str | None:
    """The part of a model that a parameter is of; None for what is never frozen."""
    if name.startswith("scalar_head.") or ".adapters." in name:
        return None
    if name in ("vision.connector", "decoder.embedding", "decoder.head"):
        return name.partition(".")[2]
    return name.partition(".")[0]
