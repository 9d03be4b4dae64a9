"""Towers come in from every published form with outputs equal to transformers', shuffled as Idefics3 does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from foretell.errors import CheckpointError
from foretell.model.convert import normalized_pixels
from foretell.model.multimodal import Multimodal
from foretell.model.vision import VisionTower
from foretell.recipe import ModelConfig
from foretell.weights.towers import Tower, open_tower
from weights.families import FAMILIES, random_model

SIGLIP = {
    "hidden_size": 48, "intermediate_size": 76, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 48,
    "patch_size": 8,
}  # fmt: skip


def features(tower: Tower, tiles: torch.Tensor) -> torch.Tensor:
    """What the connector reads, by a connector that changes nothing."""
    wide = tower.config.width * tower.config.shuffle**2
    model = VisionTower(tower.config, wide)
    model.load_state_dict(tower.state | {"connector": torch.eye(wide)})
    with torch.no_grad():
        return model(tiles)


def random_tiles(side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))


def shuffled(hidden: torch.Tensor, factor: int) -> torch.Tensor:
    """Idefics3's own pixel shuffle."""
    connector = hf.models.idefics3.modeling_idefics3.Idefics3Connector
    return connector.pixel_shuffle(None, hidden, factor)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    random_model(hf.SiglipVisionModel, hf.SiglipVisionConfig(**SIGLIP)).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


@pytest.mark.parametrize("shuffle", [None, 3, 2, 6])
def test_a_siglip_tower_is_transformers_own(siglip: Path, shuffle: int | None) -> None:
    tower = open_tower(siglip, shuffle=shuffle)
    assert tower.config.shuffle == (shuffle or 1)  # 36 tokens are few enough as they are
    tiles = random_tiles(48)
    theirs = hf.SiglipVisionModel.from_pretrained(siglip).eval()
    with torch.no_grad():
        hidden = theirs(normalized_pixels(tiles)).last_hidden_state
    torch.testing.assert_close(features(tower, tiles), shuffled(hidden, tower.config.shuffle), atol=1e-4, rtol=1e-4)


def test_a_siglip_of_both_sides_gives_its_tower(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 64, "projection_size": 48}  # fmt: skip
    both = random_model(hf.SiglipModel, hf.SiglipConfig(text_config=text, vision_config=SIGLIP))
    both.save_pretrained(tmp_path / "both")
    tiles = random_tiles(48)
    with torch.no_grad():
        hidden = both.vision_model(normalized_pixels(tiles)).last_hidden_state
    torch.testing.assert_close(features(open_tower(tmp_path / "both"), tiles), hidden, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_the_tower_of_a_model_that_sees(family: str, tmp_path: Path) -> None:
    from weights.published import write_tokenizer

    whole = FAMILIES[family]()
    whole.save(tmp_path / family)
    write_tokenizer(tmp_path / family)
    tower = open_tower(tmp_path / family)
    tiles = random_tiles(tower.config.tile)
    with torch.no_grad():
        seen = whole.model.model.vision_model(
            normalized_pixels(tiles), patch_attention_mask=torch.ones(2, *[tower.config.tile // tower.config.patch] * 2)
            .bool()
        ).last_hidden_state  # fmt: skip
    torch.testing.assert_close(features(tower, tiles), shuffled(seen, tower.config.shuffle), atol=1e-4, rtol=1e-4)


def test_a_fresh_tower_is_drawn_by_its_seed() -> None:
    one, same, other = (open_tower("fresh:32,8,64,2", seed=seed) for seed in (0, 0, 1))
    assert one.config.tokens_per_tile == 4 and one.config.depth == 2
    assert torch.equal(one.state["patch"], same.state["patch"])
    assert not torch.equal(one.state["patch"], other.state["patch"])
    assert one.state["blocks.0.down"].any()  # its layers do something from the start
    assert one.state.keys() | {"connector"} == {
        name.removeprefix("vision.")
        for name, _ in Multimodal(ModelConfig(vision=one.config)).named_parameters()
        if name.startswith("vision.")
    }


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fresh:64", {}, "fresh ones are fresh:SIDE,PATCH,WIDTH,DEPTH"),
        ("fresh:64,8,96,0", {}, "cannot be a tower here: depth"),
        ("fresh:64,8,96,2", {"shuffle": 3}, "shuffle 3 does not divide; allowed"),
        ("fresh:64,8,50,2", {}, "width 50 is not divisible by head_dim"),
        ("fresh:63,8,96,2", {}, "cannot be a tower here"),
        ("fresh:64,8,96,2", {"grid": 9}, "grid"),
    ],
)
def test_a_shape_that_cannot_be_is_told(name: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_tower(name, **changes)


def test_damage_to_a_siglip_tower_is_named(siglip: Path) -> None:
    config = json.loads((siglip / "config.json").read_text())
    for field, value, message in (
        ("hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("num_attention_heads", 5, "num_attention_heads is 5"),
        ("image_size", 19 * 8, "two of 19 × 19 patches would share a position"),
    ):
        (siglip / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(CheckpointError, match=message):
            open_tower(siglip)
    (siglip / "config.json").write_text(json.dumps(config))
    state = load_file(siglip / "model.safetensors")
    lost = "encoder.layers.1.mlp.fc1.weight"
    save_file({name: t for name, t in state.items() if not name.endswith(lost)}, siglip / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{lost} has shape None"):
        open_tower(siglip)
    (siglip / "model.safetensors").unlink()
    (siglip / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickle"):
        open_tower(siglip)
