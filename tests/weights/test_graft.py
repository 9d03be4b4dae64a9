"""A grafted model is the text model it was for text, and the Idefics3 it exports to for pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer as Backend

import foretell
from foretell.chat import Conversation
from foretell.data.tokenizer import Tokenizer, train_tokenizer
from foretell.errors import CheckpointError
from foretell.images import Tiling
from foretell.model.multimodal import Multimodal
from foretell.model.weights import load_model, seal, write_model
from foretell.recipe import ModelConfig, TokenizerConfig
from foretell.template import IMAGE, special_tokens
from foretell.weights.exporting import export
from foretell.weights.graft import add_controls, graft
from foretell.weights.importing import load_checkpoint, load_source
from weights.families import FAMILIES
from weights.published import write_tokenizer

FRESH = "fresh:32,8,32,2"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open text model, whose vocabulary is wider than its tokenizer's."""
    folder = tmp_path_factory.mktemp("llama")
    FAMILIES["llama"]().save(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", params=["open", "ours"])
def text_model(request: pytest.FixtureRequest, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "open":
        return llama
    tokenizer = train_tokenizer(iter(["the cat sat on the mat " * 9]), TokenizerConfig(vocab_size=300), grid=1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, width=64, depth=2, head_dim=16, init_std=0.2, base_width=32,
        zero_init_outputs=False, embed_multiplier=2.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("ours") / "model"
    folder.mkdir()
    write_model(folder, Multimodal(config, torch.Generator().manual_seed(1)))
    tokenizer.save(folder)
    seal(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 2])
def grown(request: pytest.FixtureRequest, text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown") / "model"
    graft(FRESH, text_model, folder, grid=request.param)
    return folder


def text_of(folder: Path) -> Any:
    ours = json.loads((folder / "config.json").read_text()).get("model_type") == "foretell"
    return (load_checkpoint if ours else load_source)(folder, lambda stored: torch.float32)


def test_text_is_read_as_before(text_model: Path, grown: Path) -> None:
    before, after = text_of(text_model), load_checkpoint(grown, lambda stored: torch.float32)
    written = "the cat </s> sat <image> hello"
    ids = before.tokenizer.encode(written)
    assert after.tokenizer.encode(written) == ids
    assert before.tokenizer.controls.items() <= after.tokenizer.controls.items()
    tokens = torch.tensor([ids])
    known = Backend.from_str(before.tokenizer.text).get_vocab_size()  # padding ids behind may have become new tokens
    with torch.no_grad():
        logits = before.model(tokens)[..., :known], after.model(tokens)[..., :known]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)


def test_new_embeddings_lie_in_the_midst_of_the_others(grown: Path) -> None:
    opened = load_checkpoint(grown, lambda stored: torch.float32)
    new = json.loads((grown / "manifest.json").read_text())["new_ids"]
    table = opened.model.decoder.embedding
    rows = sorted(opened.tokenizer.controls.values())[-new:] if new else []
    for row in rows:
        assert (table[row] - table[: rows[0]].mean(0)).abs().max() < table[: rows[0]].std()


def test_features_are_as_large_as_embeddings(grown: Path) -> None:
    model = load_model(grown)
    assert model.vision is not None and model.config.vision is not None
    side = model.config.vision.tile
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8))
    with torch.no_grad():
        features = model.vision(tiles).square().mean().sqrt()
        embeddings = model.decoder.embed(torch.arange(200)[None]).square().mean().sqrt()
    assert 0.5 < features / embeddings < 2


def test_transformers_sees_the_same(grown: Path, tmp_path: Path) -> None:
    export(grown, tmp_path / "hf")
    theirs, found = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(found.values()), found
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "hf")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    picture = Image.fromarray(pixels)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "the cat?"}]}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    ours = foretell.load(grown).generator
    talk = Conversation.from_openai([{"role": "user", "content": [picture, "the cat?"]}])
    encoded = ours.template.encode(talk, add_generation_prompt=True)
    assert inputs["input_ids"][0].tolist() == encoded.ids.tolist()
    with torch.no_grad():
        logits = load_model(grown)(torch.from_numpy(encoded.ids).long()[None], tiles=torch.from_numpy(encoded.tiles))
        torch.testing.assert_close(logits, theirs.eval()(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_the_same_seed_draws_the_same(llama: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        graft(FRESH, llama, tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_what_cannot_be_joined_is_refused_with_the_next_step(llama: Path, tmp_path: Path) -> None:
    graft(FRESH, llama, tmp_path / "grown")
    with pytest.raises(CheckpointError, match=r"sees already.*foretell sft"):
        graft(FRESH, tmp_path / "grown", tmp_path / "twice")
    with pytest.raises(CheckpointError, match=r"reads text only.*fresh:"):
        graft(llama, llama, tmp_path / "blind")
    with pytest.raises(CheckpointError, match="exists already"):
        graft(FRESH, llama, tmp_path / "grown")
    with pytest.raises(CheckpointError, match="no file or folder"):
        graft(FRESH, tmp_path / "nowhere", tmp_path / "none")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "blind").exists()


def test_a_pickle_is_never_opened(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((llama / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="pickle"):
        graft(FRESH, folder, tmp_path / "out")
    with pytest.raises(CheckpointError, match="pickle"):
        graft(folder / "pytorch_model.bin", llama, tmp_path / "out")


def test_a_tokenizer_with_gaps_has_no_room(llama: Path) -> None:
    state = json.loads((llama / "tokenizer.json").read_text())
    last = max(state["model"]["vocab"], key=state["model"]["vocab"].get)
    state["model"]["vocab"][last] += 100
    with pytest.raises(CheckpointError, match=r"no room behind.*no gaps"):
        add_controls(Tokenizer(json.dumps(state)), Tiling())


def test_ids_are_those_that_other_programs_give(llama: Path) -> None:
    tokenizer, new = add_controls(Tokenizer.load(llama), Tiling(64, 8, 2, 2))
    backend = Backend.from_str(tokenizer.text)
    assert [backend.token_to_id(token) for token in special_tokens(2)] == [
        tokenizer.controls[token] for token in special_tokens(2)
    ]
    assert len(new) == len([t for t in special_tokens(2) if t not in Tokenizer.load(llama).controls])
    assert tokenizer.controls[IMAGE] == 7  # it was there already
    assert not add_controls(tokenizer, Tiling(64, 8, 2, 2))[1]  # nothing is added twice
