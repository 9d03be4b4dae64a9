"""Estimates of KL, advantages, whitening and the controller, against what they are by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretell.align.advantage import KLControl, explained_variance, gae, group_advantages, k1, k3, whiten


def test_both_estimates_have_the_divergence_as_their_mean() -> None:
    policy, reference = (torch.log_softmax(torch.randn(40, generator=torch.manual_seed(i)).double(), 0) for i in (0, 1))
    exact = float((policy.exp() * (policy - reference)).sum())
    for estimate in (k1, k3):
        assert float((policy.exp() * estimate(policy, reference)).sum()) == pytest.approx(exact, abs=1e-12)
    assert bool((k3(policy, reference) >= 0).all()) and bool((k1(policy, reference) < 0).any())


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=12),
    st.floats(0.5, 1),
    st.floats(0, 1),
)
def test_advantages_are_the_weighted_sum_of_later_surprises(
    steps: list[tuple[float, float]], discount: float, trace: float
) -> None:
    rewards, values = (np.array(column) for column in zip(*steps, strict=True))
    following = np.append(values[1:], 0.0)
    surprise = rewards + discount * following - values
    expected = [
        sum((discount * trace) ** (s - t) * surprise[s] for s in range(t, len(steps))) for t in range(len(steps))
    ]
    advantages, returns = gae(rewards, values, discount, trace)
    assert advantages == pytest.approx(expected, abs=1e-9)
    assert returns == pytest.approx(advantages + values)


def test_a_trace_of_one_gives_what_came_after_less_the_value() -> None:
    rewards, values = np.array([0.1, -0.2, 1.0]), np.array([0.5, 0.4, 0.3])
    advantages, returns = gae(rewards, values, 1.0, 1.0)
    assert returns == pytest.approx([0.9, 0.8, 1.0])
    assert advantages == pytest.approx([0.4, 0.4, 0.7])


def test_whitening() -> None:
    values = np.array([1.0, 2.0, 6.0])
    white, kept = whiten(values), whiten(values, shift=False)
    assert white.mean() == pytest.approx(0, abs=1e-12) and white.std() == pytest.approx(1, abs=1e-6)
    assert kept.mean() == pytest.approx(3) and kept.std() == pytest.approx(1, abs=1e-6)
    assert whiten(np.full(3, 2.0)) == pytest.approx(0)


def test_a_group_is_its_own_baseline() -> None:
    plain = group_advantages([1.0, 0.0, 0.0, 1.0], scale=False)
    assert plain == pytest.approx([0.5, -0.5, -0.5, 0.5])
    assert group_advantages([1.0, 0.0], scale=True)[0] == pytest.approx(0.5 / (math.sqrt(0.5) + 1e-4))
    assert group_advantages([3.0, 3.0], scale=True) == pytest.approx(0)


def test_explained_variance() -> None:
    returns = np.array([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(returns, np.full(4, 1.5)) == pytest.approx(0)
    assert explained_variance(np.ones(4), returns) == 0


def test_the_controller_settles_where_kl_answers_to_it() -> None:
    control = KLControl(0.01, target=5.0, gain=0.5)
    kl = 0.0
    for _ in range(200):
        kl = 1 / (0.02 + control.coefficient)  # the more it costs, the less there is
        control.update(kl)
    assert kl == pytest.approx(5.0, rel=0.02)
    fixed = KLControl(0.1)
    fixed.update(1e9)
    assert fixed.coefficient == 0.1


def test_one_round_moves_the_coefficient_by_at_most_a_fifth_of_the_gain() -> None:
    control = KLControl(1.0, target=1.0, gain=0.5)
    control.update(100.0)
    assert control.coefficient == pytest.approx(1.1)
    control.update(0.0)
    assert control.coefficient == pytest.approx(1.1 * 0.9)
