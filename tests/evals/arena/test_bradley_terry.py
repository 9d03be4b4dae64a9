"""Bradley–Terry ratings beside closed forms, statsmodels' kind of fit by scikit-learn, and simulation."""

from __future__ import annotations

from math import exp, inf, isnan, log

import numpy as np
import pytest

from foretell.errors import EvalError
from foretell.evals.arena.bradley_terry import Battles, newton, rate, sandwich


def battles(rows: list[tuple[int, int, float]], groups: list[int] | None = None) -> Battles:
    first, second, score = (np.array(column) for column in zip(*rows, strict=True))
    return Battles(first, second, score.astype(float), groups or list(range(len(rows))))


def test_two_players_have_the_closed_form() -> None:
    """θ is the log-odds of the win rate with ties as half, its error that of the mean by the delta method."""
    rows = [(1, 0, 1.0)] * 30 + [(1, 0, 0.0)] * 15 + [(1, 0, 0.5)] * 10
    found = rate(["a", "b"], battles(rows))
    p = 35 / 55
    assert found.theta[1] == pytest.approx(log(p / (1 - p)), abs=1e-9)
    scores = np.array([row[2] for row in rows])
    error = scores.std(ddof=1) / np.sqrt(len(rows)) / (p * (1 - p))
    x = np.ones((55, 1))
    assert sandwich(x, scores, found.theta[1:], list(range(55)))[0, 0] ** 0.5 == pytest.approx(error, rel=1e-9)
    assert found.elo(1).estimate == pytest.approx(1000 + 400 * np.log10(p / (1 - p)))
    assert found.elo(0).estimate == found.elo(0).low == 1000


def test_ratings_equal_an_unpenalised_logistic_regression() -> None:
    """scikit-learn, each judgement as a weighted win and loss, without intercept or penalty."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    true = np.array([0.0, 0.8, -0.5, 0.3])
    rows = []
    for _ in range(400):
        a, b = rng.choice(4, 2, replace=False)
        p = 1 / (1 + np.exp(-(true[a] - true[b])))
        score = 0.5 if rng.random() < 0.2 else float(rng.random() < p)
        rows.append((int(a), int(b), score))
    found = rate(["a", "b", "c", "d"], battles(rows))
    x, y, w = [], [], []
    for a, b, score in rows:
        line = np.zeros(4)
        line[a], line[b] = 1, -1
        for outcome, weight in ((1, score), (0, 1 - score)):
            if weight:
                x.append(line[1:])
                y.append(outcome)
                w.append(weight)
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000).fit(x, y, w)
    assert found.theta[1:] == pytest.approx(peer.coef_[0], abs=1e-5)


def test_a_published_table_is_found_again() -> None:
    """Baseball, American League 1987: Agresti, Categorical Data Analysis (2002), table 10.10; log-abilities with
    Baltimore at 0 as printed there."""
    teams = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
    wins = [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
    order = [6, 0, 1, 2, 3, 4, 5]
    rows = [(i, j, 1.0) for i in range(7) for j in range(7) for _ in range(wins[order[i]][order[j]])]
    found = rate([teams[i] for i in order], battles(rows))
    assert np.round(found.theta[1:], 2).tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68]


def test_one_who_always_wins_has_no_finite_rating_and_an_honest_end() -> None:
    found = rate(["a", "b"], battles([(1, 0, 1.0)] * 20), np.random.default_rng(0), 50)
    assert found.theta[1] == inf and found.intervals[1].high == inf
    p = exp(-3.841458820694124 / 2 / 20)  # the likelihood of 20 of 20 falls by 1.92 there
    assert found.intervals[1].low == pytest.approx(log(p / (1 - p)), abs=1e-3)
    assert found.separated == ((("b",), ("a",)),)
    assert found.bootstrap is not None and found.bootstrap[1].low == inf
    grouped = rate(["a", "b"], battles([(1, 0, 1.0)] * 20, [i // 4 for i in range(20)]))
    p = exp(-3.841458820694124 / 2 / 5)  # five prompts were asked, not twenty
    assert grouped.intervals[1].low == pytest.approx(log(p / (1 - p)), abs=1e-3)


def test_separated_groups_are_rated_within_and_told_apart() -> None:
    rows = [(0, 1, 1.0)] * 6 + [(0, 1, 0.0)] * 4 + [(2, 0, 1.0)] * 5 + [(2, 1, 1.0)] * 5 + [(3, 1, 0.0)] * 3
    found = rate(["a", "b", "top", "low"], battles(rows))
    assert found.theta[1] == pytest.approx(log(4 / 6)) and found.theta[2] == inf and found.theta[3] == -inf
    assert found.intervals[3].low == -inf and found.intervals[3].high < inf
    assert set(found.separated) == {(("top",), ("a", "b")), (("a", "b"), ("low",))}


def test_who_only_lost_to_the_same_one_cannot_be_compared() -> None:
    found = rate(["a", "b", "top"], battles([(2, 0, 1.0)] * 3 + [(2, 1, 1.0)] * 3))
    assert isnan(found.theta[1]) and found.theta[2] == inf


def test_players_that_no_battle_connects_are_refused_by_name() -> None:
    with pytest.raises(EvalError, match="connects a, b with c, d, so they have no common scale"):
        rate(["a", "b", "c", "d"], battles([(0, 1, 1.0), (1, 0, 1.0), (2, 3, 1.0), (3, 2, 0.5)]))
    with pytest.raises(EvalError, match="nothing to rate"):
        rate(["a", "b"], Battles(np.array([], int), np.array([], int), np.array([]), []))


def test_newton_refuses_separated_data() -> None:
    with pytest.raises(EvalError, match="no finite maximum"):
        newton(np.ones((5, 1)), np.ones(5))


def simulated(rng: np.random.Generator, prompts: int, each: int, true: np.ndarray) -> Battles:
    """Prompts that favour players by chance, ties, and several judgements of each prompt."""
    rows, groups = [], []
    for prompt in range(prompts):
        a, b = rng.choice(len(true), 2, replace=False)
        favour = 0.8 * rng.standard_normal()
        for _ in range(each):
            p = 1 / (1 + np.exp(-(true[a] - true[b] + favour)))
            tie = rng.random() < 0.25
            rows.append((int(a), int(b), 0.5 if tie else float(rng.random() < p)))
            groups.append(prompt)
    return battles(rows, groups)


def target(true: np.ndarray) -> np.ndarray:
    """θ that the equations have in expectation: ties and the prompts' favour draw the win rates towards ½."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    pairs = [(a, b) for a in range(len(true)) for b in range(len(true)) if a < b]
    x = np.zeros((len(pairs), len(true)))
    y = np.zeros(len(pairs))
    for i, (a, b) in enumerate(pairs):
        x[i, a], x[i, b] = 1, -1
        p = weights @ (1 / (1 + np.exp(-(true[a] - true[b] + 0.8 * nodes)))) / weights.sum()
        y[i] = 0.125 + 0.75 * p
    return newton(x[:, 1:], y)


def test_intervals_cover_what_is_true() -> None:
    """300 arenas with known strengths: the sandwich's intervals hold them 95 times of 100; a plain one would not."""
    true = np.array([0.0, 0.7, -0.4])
    aim, rng, hits, boots = target(true), np.random.default_rng(1), 0, 0
    for i in range(300):
        found = rate(["a", "b", "c"], simulated(rng, 60, 4, true), rng if i < 40 else None, 200)
        hits += sum(found.intervals[k].low <= aim[k - 1] <= found.intervals[k].high for k in (1, 2))
        if found.bootstrap is not None:
            boots += sum(found.bootstrap[k].low <= aim[k - 1] <= found.bootstrap[k].high for k in (1, 2))
    assert 0.92 <= hits / 600 <= 0.975
    assert boots / 80 >= 0.88


def test_ties_alone_are_even_but_not_to_the_last_digit() -> None:
    """The sandwich has nothing to go by; the likelihood of 20 halves falls by 1.92 at log-odds of 0.9."""
    found = rate(["a", "b"], battles([(1, 0, 0.5)] * 20))
    assert found.theta[1] == 0 and -found.intervals[1].low == pytest.approx(found.intervals[1].high, abs=1e-4)
    z = found.intervals[1].high
    assert 20 * (log(0.25) - log(1 / (1 + exp(-z)) / (1 + exp(z)))) == pytest.approx(3.841458820694124, abs=1e-3)
