import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from foretell.engine.sampler import distribution, draw, log_probabilities, pick, uniform, weigh
from foretell.errors import GenerationError
from foretell.generate import Sampling


def weights(logits: list[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    row = distribution(
        torch.tensor([logits]), torch.tensor([temperature]), torch.tensor([top_k]), torch.tensor([top_p]).double()
    )[0].double()
    return (row / row.sum()).numpy()


def closed_form(logits: list[float], temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Temperature, top-k, top-p by their definitions, in plain Python."""
    p = [math.exp((x - max(logits)) / temperature) for x in logits]
    order = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or len(p)]
    total, kept, mass = sum(p[i] for i in order), [], 0.0
    for i in order:
        if mass >= top_p * total and top_p < 1:
            break
        kept.append(i)
        mass += p[i]
    return np.array([p[i] / mass if i in kept else 0.0 for i in range(len(p))])


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique_by=lambda x: round(x, 3)),
    st.floats(0.3, 3),
    st.integers(0, 14),
    st.sampled_from([0.013, 0.3141, 0.5772, 0.9173, 1.0]),
)
def test_distribution_is_the_closed_form(logits, temperature, top_k, top_p):
    np.testing.assert_allclose(
        weights(logits, temperature, top_k, top_p), closed_form(logits, temperature, top_k, top_p), atol=1e-5
    )


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_k=5),
        Sampling(top_p=0.8),
        Sampling(temperature=1.5, top_k=6, top_p=0.9),
    ],
)
def test_draws_follow_the_distribution(sampling):
    logits = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0]
    draws, rows = 40_000, 2_000
    batch = torch.tensor(logits).expand(rows, -1)
    counts = np.zeros(8)
    for sample in range(draws // rows):
        numbers = [uniform(11, sample, position) for position in range(rows)]
        tokens = pick(batch, [sampling] * rows, numbers)
        counts += np.bincount(tokens.numpy(), minlength=8)
    expected = closed_form(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    assert counts[expected == 0].sum() == 0
    some = expected > 0
    assert chisquare(counts[some], expected[some] * draws).pvalue > 1e-3


def test_top_p_keeps_the_smallest_set_and_never_nothing():
    logits = np.log([0.5, 0.25, 0.125, 0.125]).tolist()
    assert (weights(logits, top_p=0.5) > 0).tolist() == [True, False, False, False]
    assert (weights(logits, top_p=0.51) > 0).tolist() == [True, True, False, False]
    assert (weights(logits, top_p=1e-12) > 0).tolist() == [True, False, False, False]
    assert (weights([1.0] * 4, top_p=1e-12) > 0).tolist() == [True, False, False, False]
    assert (weights([0.0, 100.0], top_p=0.999) > 0).tolist() == [False, True]
    assert (weights([0.0, -60.0], top_k=2, top_p=1.0) > 0).all()


def test_temperature_edges():
    assert weights([1.0, 3.0, 3.0], temperature=0.0).tolist() == [0, 1, 0]
    assert weights([1.0, 3.0, 2.0], temperature=1e-30).tolist() == [0, 1, 0]
    np.testing.assert_allclose(weights([1.0, 3.0], temperature=1e30), [0.5, 0.5])
    np.testing.assert_allclose(weights([1.0, -math.inf, 1.0], temperature=1e30), [0.5, 0, 0.5])


def test_draw_stays_inside_at_the_edges_of_the_uniform():
    rows = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]]).repeat(2, 1)
    assert draw(rows, torch.tensor([0.0, 1.0 - 2**-53]).double()).tolist() == [1, 3]
    assert draw(rows, torch.tensor([1.0, 1.0]).double()).tolist() == [3, 3]


def test_a_row_does_not_depend_on_its_neighbours():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    samplings = [Sampling(), Sampling(top_p=0.7), Sampling(top_k=3), Sampling(temperature=0), Sampling(), Sampling()]

    def text(rows):
        picked = [samplings[row] for row in rows]
        return [pick(logits[rows], picked, [uniform(row, 0, at) for row in rows]).tolist() for at in range(20)]

    together = text(list(range(6)))
    for row in range(6):
        assert [[step[row]] for step in together] == text([row])


def test_numbers_follow_from_seed_sample_and_position():
    assert uniform(1, 0, 0) == uniform(1, 0, 0)
    places = [(1, 0, 0), (1, 1, 0), (1, 0, 1), (2, 0, 0), (-1, 0, 0), (2**64 - 2, 0, 0)]
    assert len({uniform(*place) for place in places}) == 6
    numbers = [uniform(5, sample, position) for sample in range(100) for position in range(100)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert kstest(numbers, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05


def test_forbidden_tokens_are_never_chosen_and_broken_logits_are_told():
    logits = torch.tensor([[9.0, 1.0, 8.0]])
    allowed = torch.tensor([False, True, True])
    for sampling in (Sampling(temperature=0), Sampling(temperature=5.0)):
        assert weigh(logits, [sampling], allowed)[0, 0] == 0
        masked = logits.masked_fill(~allowed, -math.inf)
        assert 0 not in {pick(masked, [sampling], [uniform(i, 0, 0)]).item() for i in range(50)}
    with pytest.raises(GenerationError, match="not finite"):
        weigh(torch.full((1, 3), math.nan), [Sampling()], allowed)


def test_log_probabilities_are_of_the_models_own_distribution():
    logits = torch.randn(3, 9)
    chosen, top, ids = log_probabilities(logits, torch.tensor([4, 0, 8]), 20)
    reference = torch.log(torch.softmax(logits.double(), -1))
    torch.testing.assert_close(chosen.double(), reference[torch.arange(3), [4, 0, 8]], atol=1e-6, rtol=0)
    assert ids.shape == (3, 9)
    torch.testing.assert_close(top.double(), reference.gather(1, ids), atol=1e-6, rtol=0)
    assert (top[:, :-1] >= top[:, 1:]).all()


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])  # flat: cuts lie beyond the likeliest few, and there are ties
def test_cuts_of_a_large_vocabulary_are_those_of_a_full_sort(scale):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(8, 3000, generator=generator) * scale).round(decimals=1)
    settings = [(0, 0.9), (0, 0.1), (50, 1.0), (1000, 0.5), (600, 0.3), (1, 1.0), (0, 0.999), (512, 1.0)]
    top_k, top_p = torch.tensor([k for k, _ in settings]), torch.tensor([p for _, p in settings]).double()
    found = distribution(logits, torch.ones(8), top_k, top_p) > 0
    for row, (k, p) in enumerate(settings):
        weights = torch.softmax(logits[row].double(), -1)
        order = weights.argsort(descending=True, stable=True)[: k or None]
        before = weights[order].cumsum(0) - weights[order]
        kept = order[before < p * weights[order].sum() + 1e-12] if p < 1 else order
        assert abs(len(kept) - int(found[row].sum())) <= 1  # the border may fall within rounding
        assert found[row][kept[:-1]].all()
