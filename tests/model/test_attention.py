from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.attention.varlen

from foretell.model import attention, multimodal
from foretell.model.attention import Plan, document_mask, document_spans, masked_attention, packed_attention
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
    ours = packed_attention(*inputs, Plan(document_spans(segments), 384))
    upstream = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(ours, inputs, upstream)
    theirs = masked_attention(*inputs, document_mask(segments))
    expected = torch.autograd.grad(theirs, inputs, upstream)
    torch.testing.assert_close(ours, theirs)
    for ours_gradient, their_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient)


def test_scores_made_anew_give_the_gradients_of_those_that_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, heads, 384, 16, generator=generator, requires_grad=True) for heads in (4, 2, 2)]
    layout = Plan(document_spans(packed_segments()), 384)
    upstream = torch.randn(3, 384, 4, 16, generator=generator)
    found = []
    for kept in (attention.KEPT, 250):
        monkeypatch.setattr(attention, "KEPT", kept)
        out = packed_attention(*inputs, layout)
        held = sum(t.numel() for t in out.grad_fn.saved_tensors)  # type: ignore[union-attr]
        found.append((out, *torch.autograd.grad(out, inputs, upstream), held))
    (*before, most), (*after, least) = found
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and least < most


def reference_varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor, *rest: object, **options: object
) -> torch.Tensor:
    """What the GPU's kernel computes, document by document in plain products."""
    (left, _), repeat = options["window_size"], q.shape[1] // k.shape[1]  # type: ignore[misc]
    out = torch.empty_like(q)
    for a, b in itertools.pairwise(ends.tolist()):
        reach = torch.ones(b - a, b - a).tril().bool()
        seen = reach if left < 0 else reach.triu(-left)  # type: ignore[operator]
        one = [x[a:b].transpose(0, 1).repeat_interleave(r, 0) for x, r in ((q, 1), (k, repeat), (v, repeat))]
        out[a:b] = torch.nn.functional.scaled_dot_product_attention(*one, seen).transpose(0, 1)
    return out


@pytest.mark.parametrize("window", [None, 70])
def test_the_gpus_kernel_is_asked_for_the_same_documents(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sliding = {} if window is None else {"sliding_window": window, "sliding_layers": (1,)}
    config = ModelConfig(
        vocab_size=320, width=64, depth=2, head_dim=16, kv_heads=2, max_length=384, zero_init_outputs=False, **sliding
    )
    model, segments = Multimodal(config), packed_segments()
    tokens = torch.randint(0, 320, segments.shape, generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(e - s) for _, s, e in document_spans(segments)]).view(segments.shape)
    expected = model.hidden(tokens, positions, segments)
    monkeypatch.setattr(multimodal, "flash_ready", lambda *_: True)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", reference_varlen)
    torch.testing.assert_close(model.hidden(tokens, positions, segments), expected, atol=1e-5, rtol=1e-5)


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
