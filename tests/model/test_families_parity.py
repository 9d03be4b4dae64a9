"""Open models give the logits and the greedy text of transformers, by every way through our model."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from foretell.model.convert import fold, normalized_pixels, split, table
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig
from foretell.weights.families import hugging_face_config, model_config
from stepping import Stepped
from weights.families import FAMILIES, IMAGE_TOKEN, VOCABULARY, OpenModel

BUILDERS = {name: cache(builder) for name, builder in FAMILIES.items()}
SIZES = (200, 40, 70)  # a document in blocks, and two in buckets; each longer than every window


@pytest.fixture(params=FAMILIES)
def peer(request: pytest.FixtureRequest) -> OpenModel:
    return BUILDERS[request.param]()


def documents(config: ModelConfig, sizes: tuple[int, ...] = SIZES) -> list[tuple[Tensor, Tensor | None]]:
    """Random texts (T,), each with tiles where the model sees: one image of three tiles, one of one, in the first."""
    generator = torch.Generator().manual_seed(3)
    found: list[tuple[Tensor, Tensor | None]] = []
    for size in sizes:
        tokens = torch.randint(8, VOCABULARY, (size,), generator=generator)
        tiles = None
        if config.vision is not None:
            slots, side = config.vision.tokens_per_tile, config.vision.tile
            tokens[3 : 3 + 3 * slots] = IMAGE_TOKEN
            tokens[-slots - 2 : -2] = IMAGE_TOKEN
            count = int((tokens == IMAGE_TOKEN).sum()) // slots
            tiles = torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
        found.append((tokens, tiles))
    return found


def inputs(tokens: Tensor, tiles: Tensor | None) -> dict[str, Any]:
    return {"input_ids": tokens[None]} | ({} if tiles is None else {"pixel_values": normalized_pixels(tiles)[None]})


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_are_equal_alone_packed_and_step_by_step(peer: OpenModel) -> None:
    model = peer.ours()
    read = documents(model.config, (200, 80, 70) if model.config.vision else SIZES)
    expected = [peer.model(**inputs(tokens, tiles)).logits[0] for tokens, tiles in read]
    assert max(float(logits.std()) for logits in expected) > 0.3  # random, but with something to say
    for (tokens, tiles), theirs in zip(read, expected, strict=True):
        assert_equal(model(tokens[None], tiles=tiles)[0], theirs)

    row = torch.cat([tokens for tokens, _ in read])[None]
    positions = torch.cat([torch.arange(len(tokens)) for tokens, _ in read])[None]
    segments = torch.cat([torch.full((len(tokens),), i) for i, (tokens, _) in enumerate(read)])[None]
    seen = [tiles for _, tiles in read if tiles is not None]
    packed = model.train()(row, positions, segments, torch.cat(seen) if seen else None)[0]
    assert_equal(packed, torch.cat(expected))

    tokens, tiles = read[2]
    start = 40 if tiles is None else len(tokens) - 2
    assert_equal(Stepped(model, tokens, tiles).all([start, *[1] * (len(tokens) - start)]), expected[2])


@pytest.mark.parametrize("name", ["mistral", "qwen2-windows", "qwen3-windows", "smolvlm"])
def test_gradients_of_the_training_form_are_equal(name: str) -> None:
    peer = BUILDERS[name]()
    model = peer.ours().train()
    tokens, tiles = documents(model.config, (80,))[0]
    for logits in (model(tokens[None], tiles=tiles), peer.model(**inputs(tokens, tiles)).logits):
        torch.nn.functional.cross_entropy(logits[0, :-1], tokens[1:]).backward()
    theirs = dict(peer.model.named_parameters())
    ours = dict(model.named_parameters())
    for entry in table(model.config):
        gradient = ours[entry.ours].grad
        assert gradient is not None
        for piece, part in split(entry, gradient):
            expected = theirs[piece].grad
            floor = 1e-6 + 1e-4 * float(expected.abs().max())  # a bias of all keys changes nothing but rounding
            torch.testing.assert_close(part, expected, rtol=1e-3, atol=floor, msg=piece)
    peer.model.zero_grad()


@torch.no_grad()
def test_greedy_text_is_equal_for_64_tokens(peer: OpenModel) -> None:
    model = peer.ours()
    tokens, tiles = documents(model.config, (80,))[0]
    theirs = peer.model.generate(
        **inputs(tokens, tiles), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, -64:]
    assert greedy(model, tokens, tiles) == theirs.tolist()
    assert len(set(theirs.tolist())) > 4


def greedy(model: Multimodal, tokens: Tensor, tiles: Tensor | None) -> list[int]:
    stepped = Stepped(model, tokens, tiles, room=64)
    logits, found = stepped.more(len(tokens)), []
    for _ in range(64):
        found.append(int(logits[-1].argmax()))
        stepped.sequence.ids.append(found[-1])
        logits = stepped.more(1)
    return found


@torch.no_grad()
def test_the_way_out_gives_the_same_model_again(peer: OpenModel) -> None:
    model = peer.ours()
    config, state = model.config, fold(model)
    raw = hugging_face_config(config, ends=(2, 3), bos=1, pad=0)
    assert model_config(raw, processor=peer.processor, preprocessor=peer.preprocessor) == config
    kind = AutoModelForCausalLM if config.vision is None else AutoModelForImageTextToText
    again = kind.from_config(AutoConfig.for_model(**raw)).eval()
    again.load_state_dict(state)
    theirs = peer.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in state.items())
    tokens, tiles = documents(config, (80,))[0]
    assert_equal(again(**inputs(tokens, tiles)).logits, peer.model(**inputs(tokens, tiles)).logits)
