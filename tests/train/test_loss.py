"""The chunked loss against torch's own cross-entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foretell.train.loss import chunked_cross_entropy, chunked_logprobs


def inputs(n: int, d: int, v: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, v, (n,), generator=generator)
    targets[::3] = -100
    return hidden, weight, targets


def reference(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    loss = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))


@pytest.mark.parametrize("chunk", [3, 7, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_cross_entropy(chunk: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, targets = inputs(40, 8, 50, dtype)
    total, nll = chunked_cross_entropy(hidden, weight, targets, chunk=chunk)
    grads = torch.autograd.grad(total / 7, (hidden, weight))
    loss, *expected = reference(hidden, weight, targets)
    torch.testing.assert_close(total.double(), loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(nll.sum().double(), loss, rtol=tolerance, atol=tolerance)
    assert len(nll) == int((targets != -100).sum())
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got.double(), want / 7, rtol=tolerance * 10, atol=tolerance * 10)


def test_gradcheck() -> None:
    hidden, weight, targets = inputs(6, 3, 5, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: chunked_cross_entropy(h, w, targets, chunk=4)[0], (hidden, weight))


def test_bfloat16_keeps_the_weight_gradient_close() -> None:
    hidden, weight, targets = inputs(300, 16, 64, torch.float32)
    hidden = (hidden * 0.3).detach().requires_grad_()
    total, _ = chunked_cross_entropy(hidden.bfloat16(), weight, targets, chunk=64)
    grads = torch.autograd.grad(total, (hidden, weight))
    loss, *expected = reference(hidden, weight, targets)
    assert abs(total.item() / loss.item() - 1) < 5e-3
    for got, want in zip(grads, expected, strict=True):
        assert got.dtype == torch.float32
        assert float((got - want).norm() / want.norm()) < 0.02


def test_plain_bfloat16_and_shapes() -> None:
    hidden, weight, targets = inputs(24, 8, 32, torch.bfloat16)
    total, _ = chunked_cross_entropy(hidden.view(2, 12, 8), weight, targets.view(2, 12))
    total.backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16
    assert torch.equal(hidden.grad[::3], torch.zeros_like(hidden.grad[::3]))


def test_without_gradients_and_without_targets() -> None:
    hidden, weight, targets = inputs(10, 4, 6, torch.float32)
    with torch.no_grad():
        total, nll = chunked_cross_entropy(hidden, weight, targets)
    assert not total.requires_grad and torch.isfinite(nll).all()
    total, nll = chunked_cross_entropy(hidden, weight, torch.full_like(targets, -100))
    total.backward()
    assert total.item() == 0 and nll.numel() == 0 and hidden.grad is not None and not hidden.grad.any()


def test_extreme_logits_stay_finite_and_nan_is_seen() -> None:
    hidden, weight, targets = inputs(8, 4, 6, torch.float32)
    total, _ = chunked_cross_entropy(hidden * 1e4, weight, targets)
    assert torch.isfinite(total)
    total, _ = chunked_cross_entropy(hidden * float("nan"), weight, targets)
    assert torch.isnan(total)


@pytest.mark.parametrize("chunk", [3, 512])
def test_logprobs_and_their_gradients_equal_full_softmax(chunk: int) -> None:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 7, 8, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, generator=g, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (2, 7), generator=g)
    targets[0, :3] = targets[1, 6] = -100
    found = chunked_logprobs(hidden, weight, targets, chunk=chunk)
    full = torch.log_softmax(hidden @ weight.T, -1).gather(2, targets.clamp_min(0)[..., None])[..., 0][targets >= 0]
    torch.testing.assert_close(found, full)
    scale = torch.randn(10, generator=g, dtype=torch.float64)  # as a loss would weigh them
    ours = torch.autograd.grad((found * scale).sum() + found.square().sum(), (hidden, weight))
    theirs = torch.autograd.grad((full * scale).sum() + full.square().sum(), (hidden, weight))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
