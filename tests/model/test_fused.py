"""The hand-written gradients equal those of the plain formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foretell.model.fused import linear, rms_norm, rotary_heads, rotate, swiglu, swiglu_linear

B, T, H, G, D = 2, 5, 4, 2, 8


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def angles() -> tuple[Tensor, Tensor]:
    return table(random(B, T, 1, D // 2))


def table(theta: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([theta.cos()] * 2, -1), torch.cat([-theta.sin(), theta.sin()], -1)


def plain_heads(qkv: Tensor) -> tuple[Tensor, ...]:
    x = qkv.view(B, T, H + 2 * G, D)
    turned = rotate(x[:, :, : H + G], *angles())
    return tuple(y.transpose(1, 2) for y in (turned[:, :, :H], turned[:, :, H:], x[:, :, H + G :]))


CASES: list[tuple[str, Callable[..., object], Callable[..., object], list[tuple[int, ...]]]] = [
    ("rms_norm", lambda x, g: rms_norm(x, g, 1e-3), lambda x, g: F.rms_norm(x, (D,), g, 1e-3), [(B, T, D), (D,)]),
    ("swiglu", swiglu, lambda x: F.silu(x[..., :D]) * x[..., D:], [(B, T, 2 * D)]),
    ("swiglu_linear", swiglu_linear, lambda x, w: F.silu(x @ w[:3].T) * (x @ w[3:].T), [(B, T, D), (6, D)]),
    ("rotary_heads", lambda x: rotary_heads(x, *angles(), H, G), plain_heads, [(B, T, (H + 2 * G) * D)]),
]


@pytest.mark.parametrize(("ours", "plain", "shapes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_values_and_gradients_equal_the_plain_formula(
    ours: Callable[..., object], plain: Callable[..., object], shapes: list[tuple[int, ...]]
) -> None:
    inputs = [random(*shape).requires_grad_() for shape in shapes]
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert torch.autograd.gradcheck(ours, inputs)


def test_rotation_keeps_lengths_and_turns_with_the_difference_of_positions() -> None:
    x, y = random(1, 1, 1, D), random(1, 1, 1, D) + 1
    frequency = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)

    def at(vector: Tensor, position: float) -> Tensor:
        return rotate(vector, *table(position * frequency))

    torch.testing.assert_close(at(x, 7).norm(), x.norm())
    torch.testing.assert_close((at(x, 7) * at(y, 3)).sum(), (at(x, 14) * at(y, 10)).sum())


def test_bfloat16_stays_near_float32() -> None:
    x, gain = random(64, 128).float(), random(128).float()
    ours = rms_norm(x.bfloat16(), gain, 1e-5).float()
    torch.testing.assert_close(ours, F.rms_norm(x, (128,), gain, 1e-5), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("rows", [(1,), (1, 1), (2, 1), (3, 1), (1, 4), (5,), (0,)])
@pytest.mark.parametrize("width", [7, 64])
def test_few_rows_are_multiplied_as_many_are(rows: tuple[int, ...], width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=generator) for s in ((*rows, 48), (width, 48), (width,)))
    with torch.no_grad():
        for b in (None, bias):
            torch.testing.assert_close(linear(x, weight, b), torch.nn.functional.linear(x, weight, b))
