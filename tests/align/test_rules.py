"""Weights of rules: the optimum that a convex solver finds, by type, on top of the reward model."""

import random

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from foretell.align.graders import Case, WorldGrader
from foretell.align.rubric import load_rubric
from foretell.align.rules import (
    EXPECTED,
    Pair,
    RuleWeights,
    class_features,
    fit_hinge,
    fit_rules,
    pairs_of_ranks,
    proposition_features,
)
from foretell.data.world.hazards import KINDS, Hazards, ranked_replies
from foretell.errors import CheckpointError, DataError, RubricError
from foretell.measure.classify import fit_classifier


def objective(w, differences, offsets, l2):
    return np.maximum(0, 1 - offsets - differences @ w).mean() + l2 / 2 * w @ w


def solved(differences, offsets, l2):
    """The same optimum by SLSQP, with slack variables for the hinges."""
    pairs, features = differences.shape
    a = np.hstack([differences, np.eye(pairs)])
    found = minimize(
        lambda z: z[features:].mean() + l2 / 2 * (z[:features] @ z[:features]),
        np.concatenate([np.zeros(features), np.maximum(0, 1 - offsets)]),
        jac=lambda z: np.concatenate([l2 * z[:features], np.full(pairs, 1 / pairs)]),
        constraints={"type": "ineq", "fun": lambda z: a @ z - (1 - offsets), "jac": lambda z: a},
        bounds=[(None, None)] * features + [(0, None)] * pairs,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    return found.x[:features]


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_a_convex_solver(seed):
    rng = np.random.default_rng(seed)
    differences, offsets, l2 = rng.normal(0, 1, (25, 4)) + 0.3, rng.normal(0, 1, 25), 10.0 ** -(seed % 3)
    w = fit_hinge(differences, offsets, l2)
    assert w == pytest.approx(solved(differences, offsets, l2), abs=1e-4)
    best = objective(w, differences, offsets, l2)
    for _ in range(100):
        assert objective(w + rng.normal(0, 0.05, 4), differences, offsets, l2) >= best


def test_without_a_penalty_the_loss_is_that_of_the_linear_programme():
    rng = np.random.default_rng(5)
    differences, offsets = rng.normal(0, 1, (40, 3)) + 0.2, rng.normal(0, 1, 40)
    # min mean(s) over (w, s): s ≥ 0, s ≥ 1 − offsets − differences · w
    cost = np.concatenate([np.zeros(3), np.full(40, 1 / 40)])
    rows = np.hstack([-differences, -np.eye(40)])
    exact = linprog(cost, rows, offsets - 1, bounds=[(None, None)] * 3 + [(0, None)] * 40)
    weights = fit_hinge(differences, offsets, 1e-3)
    assert objective(weights, differences, offsets, 0) == pytest.approx(exact.fun, abs=5e-3)


def test_pairs_that_no_feature_tells_apart_change_nothing():
    differences, offsets = np.array([[1.0, 0], [0, 0], [1, -1]]), np.array([0, 0, 0.5])
    assert fit_hinge(differences, offsets, 0.1) == pytest.approx(solved(differences, offsets, 0.1), abs=1e-4)
    assert list(fit_hinge(np.zeros((3, 2)), offsets, 0.1)) == [0, 0]
    with pytest.raises(ValueError, match="above 0"):
        fit_hinge(differences, offsets, 0)


def world(n, split):
    """Cases with names of their prompts, ranks and expected responses."""
    made, cases, prompts, ranks, types = Hazards(), [], [], [], []
    for i in range(n):
        rng = random.Random(f"{split}/{i}")
        asked = made.request(rng, split, KINDS[i % 4])
        for rank, reply in enumerate(ranked_replies(asked, rng)):
            cases.append(Case(reply, asked.text, asked.labels))
            prompts.append(f"{i}")
            ranks.append(rank)
            types.append(EXPECTED[asked.act.kind])
    return cases, prompts, ranks, types


def wins(rewards, pairs):
    return np.mean([rewards[pair.better] > rewards[pair.worse] for pair in pairs])


def test_rules_mend_a_reward_model_that_likes_compliance():
    """Scores prefer C to all else; with rules the better reply of an unseen prompt wins wherever rules can tell."""
    grader = WorldGrader(load_rubric("refusal"))
    cases, prompts, ranks, types = world(60, "train")
    names, features = class_features([grader], cases)
    assert names == ("refusal.A", "refusal.B", "refusal.C", "refusal.D")
    scores = 2.0 * features[:, 2] + 0.1 * np.random.default_rng(0).normal(size=len(cases))
    rules = fit_rules(names, features, types, pairs_of_ranks(prompts, ranks), scores)
    assert set(rules.weights) == set(EXPECTED.values())
    assert rules.weights["refuse"].argmax() == 0 and rules.weights["comply"].argmax() == 3
    cases, prompts, ranks, types = world(40, "heldout")
    _, features = class_features([grader], cases)
    pairs = pairs_of_ranks(prompts, ranks)
    pairs = [pair for pair in pairs if (features[pair.better] != features[pair.worse]).any()]
    scores = 2.0 * features[:, 2]
    assert wins(scores, pairs) < 0.6
    assert wins(rules.reward(features, types, scores), pairs) > 0.95


def test_propositions_of_a_classifier_are_features():
    texts, truth = [("?", "sorry, no"), ("?", "yes")] * 5, np.array([[True, False], [False, True]] * 5)
    classifier = fit_classifier(texts, truth, ["apology", "complies"], l2=1e-4)
    names, features = proposition_features(classifier, [Case("sorry", "?"), Case("yes", "?")])
    assert names == ("apology", "complies") and features[0, 0] > 0.5 > features[1, 0] and features[1, 1] > 0.5


def test_pairs_are_all_those_of_one_prompt_whose_ranks_differ():
    pairs = pairs_of_ranks(["p", "q", "p", "p", "q"], [0, 1, 2, 2, 1])
    assert pairs == [Pair(0, 2), Pair(0, 3)]


def test_round_trip(tmp_path):
    rules = RuleWeights(("a", "b"), {"refuse": np.array([0.1, -2.0]), "comply": np.array([1 / 3, 0.0])})
    rules.save(tmp_path / "rules.json")
    again = RuleWeights.load(tmp_path / "rules.json")
    assert again.names == rules.names and all(np.array_equal(again.weights[k], v) for k, v in rules.weights.items())
    total = again.reward(np.array([[1.0, 1], [3, 0]]), ["refuse", "comply"], np.array([1.0, 1]))
    assert total == pytest.approx([-0.9, 2])
    for text in ("{}", '{"refuse": 3}', '{"refuse": {"a": 1}, "comply": {"b": 1}}', "[]"):
        (tmp_path / "rules.json").write_text(text)
        with pytest.raises(CheckpointError):
            RuleWeights.load(tmp_path / "rules.json")
    with pytest.raises(RubricError, match="never fitted"):
        rules.reward(np.ones((1, 2)), ["safe_refuse"])
    with pytest.raises(RubricError, match="shape"):
        rules.reward(np.ones((1, 3)), ["refuse"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pairs": []}, "no pairs"),
        ({"types": ["refuse", "comply"]}, "A pair is of refuse and comply"),
        ({"types": ["rude", "rude"]}, "expected one of refuse"),
        ({"features": np.array([[np.nan], [0]])}, "not finite"),
        ({"scores": np.array([np.inf, 0])}, "not finite"),
        ({"scores": np.array([1.0])}, "1 scores"),
        ({"names": ["a", "b"]}, "2 names"),
    ],
)
def test_bad_pairs(change, said):
    given = {"names": ["a"], "features": np.array([[1.0], [0]]), "types": ["refuse"] * 2, "pairs": [Pair(0, 1)]}
    with pytest.raises(DataError, match=said):
        fit_rules(**{**given, **change})
