"""A model that reads, and the tower of one that sees, joined into one by a fresh connector.

The tower's features are shuffled, projected to the decoder's width, and stand where the text keeps slots for them, as
in every model here; so what comes out is a checkpoint like any other. Nothing that the text model knows is moved: new
control tokens take new ids behind its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor

from foretell.data.tokenizer import Tokenizer
from foretell.errors import CheckpointError
from foretell.files import atomic_folder, write_json
from foretell.images import Tiling
from foretell.model.describe import parameter_count
from foretell.model.multimodal import Multimodal
from foretell.model.weights import seal, write_model
from foretell.run import code_version
from foretell.template import CHAT_TEMPLATE, END, GLOBAL_IMAGE, IMAGE, IMAGE_EDGE, PAD, special_tokens
from foretell.weights.importing import Opened, load_checkpoint, load_source
from foretell.weights.towers import Tower, is_ours, open_tower

SPREAD = 0.02  # of the noise on a new embedding, as a share of the table's own spread
BESIDE = {
    "image_token": IMAGE,
    "fake_image_token": IMAGE_EDGE,
    "global_image_token": GLOBAL_IMAGE,
    "pad_token": PAD,
}


@dataclass(frozen=True)
class Grafted:
    """model: in float32 on the CPU. tokenizer: with the control tokens of images. new: the ids that these took."""

    model: Multimodal
    tokenizer: Tokenizer
    new: range


def graft(vision: str | Path, lm: str | Path, out: Path, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Write the joined model, not yet trained, as a checkpoint folder.

    vision: as of `towers.open_tower`. lm: a checkpoint folder of ours, or open weights. changes: fields of
    `VisionConfig` that may differ from the tower's own (grid, shuffle, lr_multiplier).
    Returns the facts of its manifest. Raises CheckpointError for what cannot be joined, saying what could.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise CheckpointError(f"{out} exists already. Give another folder with --out, or remove it.")
    tower = open_tower(vision, seed=seed, **changes)
    opened = open_text(lm)
    joined = join_models(tower, opened, str(lm), seed)
    facts = {
        "imported_from": str(lm),
        "tower_from": tower.origin,
        "new_ids": len(joined.new),
        "parameters": parameter_count(joined.model.config),
        "code": code_version(),
    }
    ends = sorted(joined.tokenizer.ends)
    with atomic_folder(out.resolve()) as folder:
        write_model(folder, joined.model)
        joined.tokenizer.save(folder)
        write_json(folder / "generation_config.json", {**opened.sampling, "eos_token_id": ends})
        seal(folder, facts)
    return facts


def open_text(lm: str | Path) -> Opened:
    """The text model in float32. Raises CheckpointError, also for one that sees already."""
    found = (
        load_checkpoint(Path(lm).expanduser(), lambda stored: torch.float32)
        if is_ours(lm)
        else load_source(lm, lambda stored: torch.float32)
    )
    if found.model.config.vision is not None:
        raise CheckpointError(
            f"{lm} sees already: it has a tower of its own. Fine-tune it with `foretell sft`, or give another LM."
        )
    return found


def join_models(tower: Tower, opened: Opened, name: str, seed: int = 0) -> Grafted:
    """One model of both. name: of the text model, in errors.

    A new embedding is the mean of those in use with a little noise, so that a tied head gives it a middling logit
    (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html). The connector is drawn so that what it makes
    of the tower's normed features is as large as embeddings are.
    """
    text = opened.model
    tokenizer, new = add_controls(opened.tokenizer, tower.config.tiling)
    size = max(text.config.vocab_size, tokenizer.vocab_size)
    config = text.config.model_copy(
        update={"vision": tower.config, "vocab_size": size, "image_token": tokenizer.special(IMAGE)}
    )
    generator = torch.Generator().manual_seed(seed)
    model = Multimodal.empty(config)
    state = {key: value.detach().float().clone() for key, value in text.named_parameters()}
    table = state["decoder.embedding"]
    for key in ("decoder.embedding", "decoder.head"):
        if key in state:
            state[key] = _grown(state[key], size, new, generator)
    state |= {f"vision.{key}": value.float().clone() for key, value in tower.state.items()}
    wide = tower.config.width * tower.config.shuffle**2
    scale = float(table.square().mean().sqrt()) * config.embed_multiplier
    connector = torch.randn((config.width, wide), generator=generator) * (scale / wide**0.5)
    model.load_state_dict(state | {"vision.connector": connector}, assign=True)
    return Grafted(model.eval(), tokenizer, new)


def _grown(table: Tensor, size: int, new: range, generator: torch.Generator) -> Tensor:
    """The table with `size` rows, of which the new ones are drawn; rows beyond them may lie there unused."""
    used = table[: new.start] if new else table
    grown = torch.cat([table, table.new_zeros((max(0, size - len(table)), table.shape[1]))])
    noise = torch.randn((len(new), table.shape[1]), generator=generator)
    grown[new.start : new.stop] = used.mean(0) + SPREAD * used.std(0) * noise
    return grown


def add_controls(tokenizer: Tokenizer, tiling: Tiling) -> tuple[Tokenizer, range]:
    """The tokenizer with every control token of our template, and the ids of those that are new.

    New ones take ids behind all that are there; those there keep theirs. The template takes the place of the model's
    own; the token that begins a text stays before it, where the model was trained with one.
    Raises CheckpointError for a tokenizer that cannot be added to.
    """
    state = json.loads(tokenizer.text)
    wanted = [token for token in special_tokens(tiling.grid) if token not in tokenizer.controls]
    vocabulary = Backend.from_str(tokenizer.text).get_vocab(with_added_tokens=True)
    first = len(vocabulary)
    if wanted and vocabulary and max(vocabulary.values()) + 1 != first:
        raise CheckpointError(
            f"The tokenizer has {first:,} tokens, but ids up to {max(vocabulary.values()):,}: there is no room behind "
            "them that every program would number alike. Take a text model whose ids have no gaps."
        )
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": first + i, "content": token, **flags} for i, token in enumerate(wanted)]
    state["added_tokens"] = [*(state.get("added_tokens") or ()), *added]
    settings = {**tokenizer.settings, **BESIDE}
    begins = bool(tokenizer.prefix) and "bos_token" in settings
    settings["chat_template"] = ("{{- bos_token -}}" if begins else "") + CHAT_TEMPLATE
    if END in wanted:
        settings["eos_token"] = END
    text = json.dumps(state, ensure_ascii=False, indent=2)
    return Tokenizer(text, settings, tokenizer.ends), range(first, first + len(wanted))
