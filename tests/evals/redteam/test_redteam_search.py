"""The search finds a known weakness with fewer queries than uniform sampling, and what is reported of it is honest."""

from __future__ import annotations

import random
from statistics import median

import pytest
from redteamkit import catalogue

from foretell.evals.redteam.operators import Attack
from foretell.evals.redteam.search import Search
from foretell.measure.stats import proportion

NAMES = ["area-0", "area-1"]
MOST = 1500


def tries_until_found(adaptive: bool, seed: int) -> int:
    """Tries until an attack is tried that nearly always works: two operators together, each of which rarely does."""
    search = Search(catalogue(), NAMES, random.Random(seed), adaptive=adaptive)
    noise = random.Random(f"noise/{seed}")
    for number in range(MOST):
        area = NAMES[number % 2]
        attack = search.propose(area)
        strong = {"sure", "maintenance"} <= set(attack)
        if strong:
            return number + 1
        weak = {"sure", "maintenance"} & set(attack)
        search.learn(area, attack, noise.random() < (0.25 if weak else 0.01))
    return MOST


def test_adaptive_search_finds_a_composed_weakness_with_fewer_queries_than_uniform_sampling() -> None:
    adaptive, uniform = ([tries_until_found(how, seed) for seed in range(20)] for how in (True, False))
    assert median(adaptive) * 1.8 < median(uniform)
    wins = sum(a < u for a, u in zip(adaptive, uniform, strict=True))
    assert wins >= 15  # of 20: p 0.02 by the sign test if neither were better


def test_it_spends_its_tries_where_attacks_work() -> None:
    search = Search(catalogue(), ["area-0"], random.Random(0))
    hits = 0
    for _ in range(200):
        attack = search.propose("area-0")
        hits += "base64" in attack
        search.learn("area-0", attack, "base64" in attack)
    assert hits > 100
    best, won, tried = search.best("area-0", 1)[0]
    assert "base64" in best
    assert won == tried > 0


def test_what_it_learns_in_one_area_is_a_prior_in_another() -> None:
    search = Search(catalogue(), NAMES, random.Random(0))
    for _ in range(30):
        search.learn("area-0", ("rot13",), True)
        search.learn("area-0", ("poem",), False)
    proposed = [search.propose("area-1") for _ in range(200)]
    assert sum("rot13" in attack for attack in proposed) > 5 * sum("poem" in attack for attack in proposed)


@pytest.mark.parametrize("adaptive", [True, False])
def test_proposals_are_valid_and_follow_from_the_seed(adaptive: bool) -> None:
    def proposals() -> list[Attack]:
        search = Search(catalogue(), ["area-0"], random.Random(5), deepest=2, adaptive=adaptive)
        found = []
        for number in range(60):
            found.append(search.propose("area-0"))
            search.learn("area-0", found[-1], number % 3 == 0)
        return found

    found = proposals()
    assert found == proposals()
    assert all(1 <= len(attack) <= 2 and len(set(attack)) == len(attack) for attack in found)
    assert len(set(found)) > 10


def test_the_baseline_is_never_a_finding() -> None:
    search = Search(catalogue(), ["area-0"], random.Random(0))
    search.learn("area-0", ("plain",), True)
    search.learn("area-0", ("poem",), False)
    assert [attack for attack, _, _ in search.best("area-0", 5)] == [("poem",)]


def test_fresh_tests_are_honest_where_the_searchs_own_counts_are_not() -> None:
    """Every attack works by chance alone, three times in ten: the best by its own counts seems far better."""
    truth, n, own, covered, rounds = 0.3, 24, [], 0, 60
    for seed in range(rounds):
        rng = random.Random(f"chance/{seed}")
        search = Search(catalogue(), ["area-0"], random.Random(seed))
        for _ in range(60):
            attack = search.propose("area-0")
            search.learn("area-0", attack, rng.random() < truth)
        _, won, tried = search.best("area-0", 1)[0]
        own.append(won / tried)
        value = proportion([float(rng.random() < truth) for _ in range(n)])
        covered += value.low <= truth <= value.high
    assert sum(own) / rounds > truth + 0.15
    assert covered >= 0.88 * rounds
