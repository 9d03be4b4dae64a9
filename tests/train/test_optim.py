"""Schedules at their corner points; clipping; moments that survive a round trip."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretell.train.optim import (
    build_adamw,
    clip,
    gradient_norm,
    load_moments,
    lr_factor,
    named_moments,
    set_lr,
)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_corner_points(kind: str) -> None:
    def at(step: int) -> float:
        return lr_factor(step, 100, 0.1, 0.2, kind)  # type: ignore[arg-type]

    assert at(0) == pytest.approx(1 / 11) and at(9) == pytest.approx(10 / 11) and at(10) == 1
    assert 0 < at(99) < 0.06 and at(100) == 0
    middle = {"linear": 0.5, "cosine": 0.5, "wsd": 1.0}[kind]
    assert at(55) == pytest.approx(middle)
    if kind == "wsd":
        assert at(79) == 1 and at(90) == pytest.approx(10 / 21)


@given(
    st.integers(1, 300),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine", "wsd"]),
)
def test_rises_then_falls_within_bounds(total: int, warmup: float, decay: float, kind: str) -> None:
    factors = [lr_factor(step, total, warmup, decay, kind) for step in range(total)]  # type: ignore[arg-type]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_clipping_equals_torch() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(4, 3)), torch.nn.Parameter(torch.zeros(5))]
    for scale in (0.01, 10.0):
        for i, parameter in enumerate(parameters):
            parameter.grad = scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
        for copy, parameter in zip(copies, parameters, strict=True):
            copy.grad = parameter.grad.clone()  # type: ignore[union-attr]
        norm = gradient_norm(parameters)
        assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(copies, 1.0))
        clip(parameters, norm.item(), 1.0)
        for copy, parameter in zip(copies, parameters, strict=True):
            torch.testing.assert_close(parameter.grad, copy.grad)


def test_groups_keep_their_own_peak_and_moments_travel() -> None:
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = build_adamw([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.01, "weight_decay": 0.0}])
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.005]
    a.grad = torch.arange(3.0)
    optimizer.step()  # b has no gradient, so it has no moments
    names = {a: "a", b: "b"}
    kept = {key: value.clone() for key, value in named_moments(optimizer, names).items()}
    assert set(kept) == {"a/step", "a/exp_avg", "a/exp_avg_sq"}
    optimizer.step()
    load_moments(optimizer, names, kept)
    assert all(torch.equal(value, kept[key]) for key, value in named_moments(optimizer, names).items())


def test_a_step_is_seen_by_whoever_holds_a_copy() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    group = {"params": [weight], "lr": 0.1, "weight_decay": 0.0, "eps": 1e-8, "betas": (0.9, 0.95)}
    optimizer = build_adamw([group])
    weight.grad, before = torch.ones(3), weight._version
    optimizer.step()
    assert weight._version > before
