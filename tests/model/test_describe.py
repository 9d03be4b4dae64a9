from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from foretell.model.attention import KEPT
from foretell.model.describe import describe, parameter_count, training_flops
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, VisionConfig
from foretell.train.loss import chunked_cross_entropy

VISION = VisionConfig(tile=32, patch=8, width=32, depth=2, head_dim=16)


@pytest.mark.parametrize("vision", [None, VISION])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_by_part_sum_to_the_model(vision: VisionConfig | None, tied: bool) -> None:
    config = ModelConfig(vocab_size=320, width=64, depth=3, head_dim=16, kv_heads=2, tie_embeddings=tied, vision=vision)
    assert parameter_count(config) == sum(p.numel() for p in Multimodal(config).parameters())


OPTIONS: list[dict[str, Any]] = [
    {},
    {"q_heads": 6, "kv_heads": 3},
    {"qkv_bias": True, "kv_heads": 2},
    {"qk_norm": True, "head_dim": 32, "q_heads": 4},
    {"vision": VISION.model_copy(update={"ffn": 52})},
    {"vision": VISION.model_copy(update={"tile": 38})},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_and_flops_of_every_option(options: dict[str, Any]) -> None:
    config = ModelConfig(**{"vocab_size": 320, "width": 64, "depth": 3, "head_dim": 16, "max_length": 64} | options)
    model = Multimodal(config).eval()
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    side = config.vision.tile if config.vision else 0
    tiles = torch.zeros(2, side, side, 3, dtype=torch.uint8) if config.vision else None
    tokens = torch.full((1, 64), 9)
    tokens[0, : 8 if config.vision else 0] = config.image_token
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, tiles=tiles)
    # torch's kernels compute the whole square of scores.
    times = {"token": 64, "tile": 2}
    assert counter.get_total_flops() == sum(part.forward * times[part.per] for part in describe(config, 64))


def counted(config: ModelConfig, lengths: list[int], targets: int) -> dict[str, dict[str, int]]:
    """FLOPs that torch counts in a training step on one row packed of documents of these lengths, by pass.

    The first document holds two images; the last `targets` positions carry loss.
    """
    model, total, tiles = Multimodal(config).train(), sum(lengths), None
    tokens = torch.arange(total)[None] % 300 + 10
    if config.vision is not None:
        tokens[:, : 2 * config.vision.tokens_per_tile] = config.image_token
        tiles = torch.zeros(2, config.vision.tile, config.vision.tile, 3, dtype=torch.uint8)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    segments = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None]
    wanted = torch.where(torch.arange(total) < total - targets, -100, tokens)

    def count(work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            result = work()
        kinds = {"matrices": 0, "scores": 0}
        for op, flops in counter.get_flop_counts()["Global"].items():
            kinds["scores" if "bmm" in str(op) else "matrices"] += flops
        return result, kinds

    hidden, forward = count(lambda: model.hidden(tokens, positions, segments, tiles))
    (loss, _), head = count(lambda: chunked_cross_entropy(hidden, model.head_weight, wanted))
    _, backward = count(loss.backward)
    return {"forward": forward, "head": head, "backward": backward}


IN_PLACE = {  # torch counts these only where they make a new tensor
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm].__wrapped__,
    torch.ops.aten.baddbmm_: flop_registry[torch.ops.aten.baddbmm].__wrapped__,
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_training_step_costs_what_torch_counts_part_by_part(options: dict[str, Any]) -> None:
    """Products with weights to the last one; scores too, for documents whose whole square is multiplied."""
    config = ModelConfig(**{"vocab_size": 320, "width": 64, "depth": 3, "head_dim": 16, "max_length": 512} | options)
    found = counted(config, [64, 64, 64], 50)
    times = {"token": 192, "tile": 2}
    scores, rest = {"forward": 0.0, "backward": 0.0}, {"forward": 0.0, "backward": 0.0}
    for part in describe(config, context=64):
        if not part.name.startswith("head"):
            for to, flops in (("forward", part.forward), ("backward", part.backward)):
                (scores if "scores" in part.name else rest)[to] += flops * times[part.per]
    for direction in ("forward", "backward"):
        assert found[direction] == {"matrices": rest[direction], "scores": scores[direction]}
    head = next(part for part in describe(config) if part.name.startswith("head"))
    assert found["head"] == {"matrices": 50 * head.flops, "scores": 0}
    whole = sum(sum(kinds.values()) for kinds in found.values())
    assert training_flops(config, 192, 2, 64, head_tokens=50) == whole


@pytest.mark.parametrize("length", [192, 500, 2000])
def test_causal_scores_are_a_lower_bound_that_blocks_come_near(length: int) -> None:
    """Long documents are multiplied in blocks of 128 queries, so half a block a query is done and not counted, nor is
    padding to 64 positions; beyond 1,024 the backward pass makes the scores anew, a fifth product beside its four."""
    config = ModelConfig(vocab_size=320, width=64, depth=1, head_dim=16, max_length=2048)
    found = counted(config, [length], length)
    scores = next(part for part in describe(config, (length + 1) / 2) if part.name == "attention scores")
    for direction, flops in (("forward", scores.forward), ("backward", scores.backward)):
        done = found[direction]["scores"] / length
        anew = 5 / 4 if direction == "backward" and length > KEPT else 1
        assert flops <= done / anew <= flops * (1 + (192 + 2 * 64) / length)


def test_causal_context_is_the_mean_over_positions() -> None:
    config = ModelConfig(max_length=512)
    scores = next(part for part in describe(config) if part.name == "attention scores")
    mean = sum(range(1, 513)) / 512
    assert scores.flops == 12 * config.depth * mean * config.width


def test_only_learned_positions_reach_the_head() -> None:
    config = ModelConfig()
    saved = training_flops(config, 100) - training_flops(config, 100, head_tokens=40)
    assert saved == pytest.approx(60 * 6 * config.vocab_size * config.width)
