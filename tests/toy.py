"""A world small enough to train on in a second: counting lines and coloured tiles, packed for real."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from foretell.data.document import Document, Segment
from foretell.data.pack import PackSource, pack
from foretell.data.tokenizer import Tokenizer, train_tokenizer
from foretell.images import Tiling
from foretell.recipe import Recipe, TokenizerConfig
from foretell.template import Template
from foretell.train import loop

TILING = Tiling(tile=16, patch=4, shuffle=2, grid=1)
COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


@dataclass(frozen=True)
class Toy:
    """Folders of a packed toy world, and recipes for it."""

    folder: Path

    def recipe(self, **train: Any) -> Recipe:
        settings = {
            "tokens": 24 * 512,
            "batch_tokens": 512,
            "log_every": 4,
            "precision": "float32",
            "device": "cpu",
            "checkpoint_minutes": 1000.0,
            "eval_batches": 1,
            "eval_every": 0.5,
            "optimizer": {"lr": 1e-2, "tau": 0.2},
            **train,
        }
        shape = {"width": 32, "depth": 2, "head_dim": 16, "max_length": 64, "base_width": 32, "base_depth": 2}
        vision = {"tile": 16, "patch": 4, "shuffle": 2, "width": 16, "depth": 1, "head_dim": 16}
        return Recipe.model_validate(
            {
                "name": "toy",
                "seed": 3,
                "data": {"sources": [{"kind": "python"}], "sequence_length": 64},
                "model": {**shape, "vision": vision},
                "train": settings,
            }
        )

    def train(self, out: Path, recipe: Recipe | None = None, **arguments: Any) -> dict[str, Any]:
        f = self.folder
        return loop.pretrain(recipe or self.recipe(), f / "pack", f / "heldout", f / "tokenizer", out, **arguments)


def documents(seed: int) -> Iterator[Document]:
    rng = random.Random(seed)
    for i in range(200):
        if i % 4 == 0:
            name, color = rng.choice(list(COLORS.items()))
            buffer = BytesIO()
            Image.new("RGB", (16, 16), color).save(buffer, "PNG")
            segments = (Segment(image=buffer.getvalue()), Segment(text=f"The tile is {name}."))
            yield Document(f"{seed}-{i}", segments, "toy", "CC0-1.0", kind="tile")
        else:
            start = rng.randrange(10)
            line = " ".join(str((start + k) % 10) for k in range(20))
            yield Document(f"{seed}-{i}", (Segment(text=line),), "toy", "CC0-1.0", kind="count")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    texts = (segment.text for document in documents(0) for segment in document.segments if segment.text)
    tokenizer: Tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=320), 1)
    tokenizer.save(folder / "tokenizer")
    template = Template(tokenizer, TILING)
    for name, seed, tokens in (("pack", 0, 4000), ("heldout", 1, 600)):
        source = PackSource(lambda seed=seed: documents(seed))  # type: ignore[misc]
        pack({"toy": source}, template, tokenizer, folder / name, 64, tokens)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(Toy(folder).recipe().model_dump(mode="json")))
    return Toy(folder)
