from __future__ import annotations

import pytest
import torch

from foretell.model.attention import document_mask, document_spans, masked_attention, packed_attention, plan
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig
from stepping import Stepped


def packed_segments() -> torch.Tensor:
    lengths = [[300, 1, 83], [384], [129, 128, 64, 63]]
    return torch.stack([torch.cat([torch.full((n,), i) for i, n in enumerate(row)]) for row in lengths])


def test_spans_cover_every_position_once() -> None:
    segments = packed_segments()
    assert document_spans(segments) == [
        (0, 0, 300), (0, 300, 301), (0, 301, 384), (1, 0, 384),
        (2, 0, 129), (2, 129, 257), (2, 257, 321), (2, 321, 384),
    ]  # fmt: skip


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_packed_attention_equals_masked_attention_with_gradients(kv_heads: int) -> None:
    segments = packed_segments()
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 384, 16), (3, kv_heads, 384, 16), (3, kv_heads, 384, 16)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    ours = packed_attention(*inputs, plan(document_spans(segments), 384))
    upstream = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(ours, inputs, upstream)
    theirs = masked_attention(*inputs, document_mask(segments))
    expected = torch.autograd.grad(theirs, inputs, upstream)
    torch.testing.assert_close(ours, theirs)
    for ours_gradient, their_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient)


def test_a_document_is_read_the_same_whatever_it_is_packed_with() -> None:
    config = ModelConfig(vocab_size=320, width=32, depth=2, head_dim=16, max_length=64, zero_init_outputs=False)
    model = Multimodal(config)
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 320, (n,), generator=generator) for n in (20, 30))
    tokens = torch.cat([first, second])[None]
    positions = torch.cat([torch.arange(20), torch.arange(30)])[None]
    segments = torch.cat([torch.zeros(20), torch.ones(30)])[None].long()
    together = model(tokens, positions, segments)
    torch.testing.assert_close(together[:, :20], model(first[None]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[:, 20:], model(second[None]), atol=1e-5, rtol=1e-5)


def test_cached_steps_equal_one_forward_pass() -> None:
    config = ModelConfig(
        vocab_size=320, width=64, depth=2, head_dim=16, kv_heads=2, max_length=64, zero_init_outputs=False
    )
    model = Multimodal(config).eval()
    tokens = torch.randint(0, 320, (40,), generator=torch.Generator().manual_seed(0))
    for counts in ([17, *[1] * 23], [40], [1] * 40, [33, 7]):
        stepped = Stepped(model, tokens).all(counts)
        torch.testing.assert_close(stepped, model(tokens[None])[0], atol=1e-5, rtol=1e-5)
