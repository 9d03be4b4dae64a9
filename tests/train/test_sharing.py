"""Threads that share a batch's rows give the gradients of one, whichever is first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretell.data.loader import NO_LOSS, PackedBatch
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, VisionConfig
from foretell.train.objective import NextToken
from foretell.train.sharing import add_gradients, sharers

VISION = VisionConfig(tile=32, patch=8, width=32, depth=1, head_dim=16)
CONFIG = ModelConfig(
    vocab_size=320, width=64, depth=2, head_dim=16, kv_heads=2, max_length=64, vision=VISION, zero_init_outputs=False
)
KINDS = np.asarray([[0], [1], [0], [1]], np.uint8)


def batch() -> PackedBatch:
    """Four rows of two documents; the first half of them shows an image, and the last has a token without a loss."""
    random = np.random.default_rng(0)
    tokens = random.integers(10, 320, (4, 64))
    targets = random.integers(10, 320, (4, 64))
    targets[3, 5] = NO_LOSS
    tokens[0, : VISION.tokens_per_tile] = CONFIG.image_token
    tiles = random.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    places = np.tile(np.r_[0:40, 0:24], (4, 1))
    documents = np.tile(np.repeat(np.arange(2, dtype=np.int32), [40, 24]), (4, 1))
    return PackedBatch(tokens, targets, places, documents, np.repeat(KINDS, 64, 1), tiles)


@pytest.mark.parametrize("frozen", [False, True])
def test_shares_give_the_loss_the_sums_and_the_gradients_of_the_whole(frozen: bool) -> None:
    model, objective = Multimodal(CONFIG).train(), NextToken(["a", "b"], np.ones(320))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("vision.") or not frozen)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = []
    for threads in (1, 4, 4, 2):
        for _ in range(2):  # of two micro-batches, which add up
            total, sums = add_gradients(objective, model, batch(), 3.0, trained.values(), threads)
        found.append((total, sums, {name: p.grad for name, p in trained.items() if p.grad is not None}))
        model.zero_grad()
    for result in found[1:]:
        torch.testing.assert_close(result, found[0], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(found[1][2][name], found[2][2][name]) for name in trained)
    assert all(p.stride() == found[1][2][name].stride() for name, p in trained.items())


def test_rows_are_shared_where_each_thread_gets_as_many_and_enough() -> None:
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert [sharers(rows, 512, 128) for rows in (16, 6, 3, 2)] == [4, 2, 1, 2]
        assert [sharers(4, 128, 128), sharers(4, 512, 1024), sharers(8, 512, 1024)] == [1, 1, 4]
    finally:
        torch.set_num_threads(own)


def test_an_error_of_a_share_is_told_and_threads_are_as_before() -> None:
    own, wrong, model = torch.get_num_threads(), batch(), Multimodal(CONFIG).train()
    wrong.tokens[3, 0] = 10**6
    with pytest.raises(IndexError):
        add_gradients(NextToken(["a", "b"], np.ones(320)), model, wrong, 1.0, model.parameters(), 2)
    assert torch.get_num_threads() == own
