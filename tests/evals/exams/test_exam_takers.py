"""Simulated takers of known skill: the engine's scores and percentiles are what theory says of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from examkit import choices, write_exam

from foretell.errors import EvalError
from foretell.evals.exams import api
from foretell.evals.exams.definition import Exam, Irt
from foretell.evals.exams.reading import load_exam
from foretell.evals.exams.takers import (
    Taker,
    points_distribution,
    population_distribution,
    probability,
    score_distribution,
)


def exam(folder: Path, count: int, discrimination: float = 1.0) -> Exam:
    """Choices of evenly spread difficulty, percentiles by takers of normal skill."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    items = [
        row | {"irt": {"difficulty": b, "discrimination": discrimination}}
        for row, b in zip(choices(count), quantiles, strict=True)
    ]
    section = {"name": "one", "kind": "choice", "items": {"holdout": "h.jsonl"}, "explain": False}
    total = {"out_of": 800, "chart": {"linear": [200, 800], "step": 1}, "percentiles": {"takers": {}}}
    return load_exam(write_exam(folder, [section], total, {"h.jsonl": items}), "holdout")


def test_probability() -> None:
    assert probability(1.5, Irt(difficulty=1.5)) == 0.5
    assert probability(2.0, Irt(difficulty=1.0, discrimination=2.0)) == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_recursion_is_the_sum_over_all_patterns() -> None:
    steps = [(0.2, 0, 1), (0.5, -1, 4), (0.9, 0, 2), (0.35, 0, 1)]
    low, dist = score_distribution(steps)
    told = dict.fromkeys(range(low, low + len(dist)), 0.0)
    for pattern in itertools.product((False, True), repeat=len(steps)):
        points = sum(right if hit else wrong for hit, (_, wrong, right) in zip(pattern, steps, strict=True))
        told[points] += math.prod(p if hit else 1 - p for hit, (p, _, _) in zip(pattern, steps, strict=True))
    assert dist == pytest.approx(list(told.values()), abs=1e-15)


def test_equal_questions_make_a_binomial(tmp_path: Path) -> None:
    from scipy.stats import binom

    _, dist = score_distribution([(0.3, 0, 1)] * 25)
    assert dist == pytest.approx(binom.pmf(range(26), 25, 0.3), abs=1e-12)


def test_the_population_is_a_mixture(tmp_path: Path) -> None:
    """Its mean and spread by the law of total expectation and variance, integrated otherwise."""
    sections = exam(tmp_path, 30).sections
    low, dist = population_distribution(sections)
    points = low + np.arange(len(dist))
    theta = np.linspace(-9, 9, 3601)
    weight = np.exp(-(theta**2) / 2)
    weight /= weight.sum()
    p = np.array([[probability(t, item.irt) for item in sections[0].items if item.irt] for t in theta])
    mean = weight @ p.sum(1)
    variance = weight @ (p * (1 - p)).sum(1) + weight @ p.sum(1) ** 2 - mean**2
    assert dist.sum() == pytest.approx(1)
    assert dist @ points == pytest.approx(mean, abs=1e-8)
    assert dist @ points**2 - mean**2 == pytest.approx(variance, abs=1e-6)


def test_the_table_is_the_population_s(tmp_path: Path) -> None:
    """Of takers drawn from the population, as many stand below each score as the table says."""
    read = exam(tmp_path, 40)
    table, chart = read.percentiles, read.chart
    assert table is not None and chart is not None
    rng = np.random.default_rng(1)
    theta = rng.standard_normal(20_000)
    p = np.array([1 / (1 + np.exp(-(theta - i.irt.difficulty))) for i in read.sections[0].items if i.irt]).T
    raw = (rng.random(p.shape) < p).sum(1)
    for points in (5, 12, 20, 28, 35):
        below = 100 * (raw < points).mean()
        reached = 100 * (raw <= points).mean()
        low, high = table(chart(points))
        assert low == pytest.approx(below, abs=1.5) and high == pytest.approx(reached, abs=1.5)  # 4 standard errors


@pytest.mark.parametrize("discrimination", [1.0, 1.7])
@pytest.mark.parametrize("theta", [-1.0, 0.0, 1.5])
def test_a_taker_gets_the_percentile_of_theory(tmp_path: Path, theta: float, discrimination: float) -> None:
    """By the runner: points within their theoretical error, so the percentile within the table's at its ends; and the
    percentile of the skill itself, Φ(θ), within the interval that is reported."""
    read = exam(tmp_path / "e", 200, discrimination)
    score = api.run(read, Taker(read, theta, seed=3), out=tmp_path / "l.jsonl", store=tmp_path / "s.sqlite")
    low, dist = points_distribution(theta, read.sections)
    points = low + np.arange(len(dist))
    mean = float(dist @ points)
    error = math.sqrt(float(dist @ points**2) - mean**2)
    assert abs(score.raw.estimate - mean) < 3 * error
    table, chart, final = read.percentiles, read.chart, score.final
    assert table is not None and chart is not None and final is not None and final.percentile is not None
    assert table(chart(round(mean - 3 * error)))[0] <= final.percentile[0] <= table(chart(round(mean + 3 * error)))[1]
    assert final.value == chart(int(score.raw.estimate)) and final.percentile == table(final.value)
    assert final.percentile_low is not None and final.percentile_high is not None
    assert final.percentile_low - 1 <= 100 * NormalDist().cdf(theta) <= final.percentile_high + 1
    # The reported error is of drawing questions, too, and so no less than that of answering these.
    assert score.stderr >= error


def test_takers_percentiles_have_the_mean_of_theory(tmp_path: Path) -> None:
    """Over many takers of one skill the mean percentile is the exact expectation, which for a long exam is Φ(θ)."""
    read = exam(tmp_path, 400)
    table, chart, theta = read.percentiles, read.chart, 0.8
    assert table is not None and chart is not None
    low, dist = points_distribution(theta, read.sections)
    values = np.array([sum(table(chart(low + i))) / 2 for i in range(len(dist))])
    mean, spread = float(dist @ values), math.sqrt(float(dist @ values**2) - float(dist @ values) ** 2)
    key = [item.answer for item in read.sections[0].items]
    drawn = []
    for seed in range(60):
        taker = Taker(read, theta, seed)
        raw = sum(answer == right for answer, right in zip(taker._answers, key, strict=True))
        drawn.append(sum(table(chart(raw))) / 2)
    assert np.mean(drawn) == pytest.approx(mean, abs=4 * spread / math.sqrt(len(drawn)))
    assert mean == pytest.approx(100 * NormalDist().cdf(theta), abs=1.0)


def test_an_exam_without_difficulties_has_no_theory(tmp_path: Path) -> None:
    section = {"name": "one", "kind": "choice", "items": {"holdout": "h.jsonl"}, "explain": False}
    total = {"out_of": 4, "percentiles": {"takers": {}}}
    path = write_exam(tmp_path, [section], total, {"h.jsonl": choices(4)})
    with pytest.raises(EvalError, match="question 'q0' has no irt"):
        load_exam(path, "holdout")
