"""A tiny model that speaks the project's own template, and rows of data for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from foretell.data.tokenizer import Tokenizer, train_tokenizer
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, TokenizerConfig, VisionConfig
from foretell.template import Template
from foretell.train.checkpoint import save_checkpoint


@dataclass(frozen=True)
class Base:
    """A checkpoint of a tiny random model with an image tower."""

    folder: Path
    tokenizer: Tokenizer
    config: ModelConfig

    @property
    def template(self) -> Template:
        assert self.config.vision is not None
        return Template(self.tokenizer, self.config.vision.tiling)

    def model(self) -> Multimodal:
        return Multimodal(self.config, torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


def make_base(folder: Path) -> Base:
    texts = ["user assistant system What colour is the sky? The sky is blue. No, the sky is green. 1 2 3 4 5 " * 30]
    tokenizer = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=320), grid=1)
    tokenizer.save(folder / "tokenizer")
    tower = VisionConfig(tile=16, patch=4, shuffle=2, width=16, depth=1, head_dim=16)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, image_token=tokenizer.special("<image>"), width=32, depth=2, head_dim=16,
        max_length=256, base_width=32, base_depth=2, zero_init_outputs=False, vision=tower,
    )  # fmt: skip
    files = {name: folder / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json")}
    made = Base(folder / "checkpoint", tokenizer, config)
    save_checkpoint(made.folder, made.model(), None, files)
    return made


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat(*texts: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def preferences(count: int) -> list[dict[str, Any]]:
    """Rows in which a true reply is better than a false one."""
    return [
        {
            "prompt": f"What colour is the sky? {i}",
            "chosen": "The sky is blue.",
            "rejected": "No, it is green. 1 2",
        }
        for i in range(count)
    ]
