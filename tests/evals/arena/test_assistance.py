"""Do critiques help? The measurement finds what was planted, and nothing where nothing was."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pytest
from arenakit import adder, made, simulate, sums

from foretell.evals.arena.assistance import Verdict, effect_of, within_judges
from foretell.evals.arena.results import Source, result_of


def critic(prompt: object, **params: object) -> str:
    return "The sum was not checked."


def people_of(folder: Path, alone: float, helped: float, seed: int = 0) -> Source:
    players = {"a": adder(0.7), "b": adder(0.4, "I say")}
    arena = made(folder, players, sums(110), critic)
    simulate(arena, 3, alone, helped, seed)
    (source,) = result_of(arena, 0).sources
    return source


def test_helpful_critiques_are_found_with_their_size_and_their_cost(tmp_path: Path) -> None:
    source = people_of(tmp_path, 0.65, 0.9)
    effect = source.effect
    assert effect is not None and effect.difference.low > 0 and effect.p < 0.001
    assert effect.difference.low < 0.25 < effect.difference.high
    assert effect.assisted.agreement.estimate > 0.8 > effect.alone.agreement.estimate
    assert effect.time is not None and effect.time.low < 1.5 < effect.time.high
    assert effect.alone.seconds == pytest.approx(10, rel=0.2)


def test_critiques_that_mislead_are_found_too(tmp_path: Path) -> None:
    """150 judgements tell 25 points from none about nine times of ten."""
    effect = people_of(tmp_path, 0.8, 0.55).effect
    assert effect is not None and effect.difference.high < 0 and effect.p < 0.05


def test_where_critiques_do_nothing_little_is_found() -> None:
    """400 simulated measurements without an effect: the interval leaves zero out about five times of a hundred, with
    judges who differ, and several of them on one prompt."""
    rng, missed = np.random.default_rng(5), 0
    for _ in range(400):
        ease = rng.normal(0, 0.15, 60)
        verdicts = [
            Verdict(f"j{j}", prompt, bool((place + j) % 2), bool(rng.random() < 0.65 + 0.1 * j + ease[prompt]))
            for j in range(3)
            for place, prompt in enumerate(rng.permutation(60)[:40].tolist())
        ]
        effect = effect_of(verdicts)
        missed += not effect.difference.low <= 0 <= effect.difference.high
    assert 8 <= missed <= 34


def test_judges_are_compared_with_themselves() -> None:
    """A better judge who happens to be assisted more often does not count for the critiques."""
    verdicts = [Verdict("good", f"g{i}", i % 4 != 0, True) for i in range(40)]
    verdicts += [Verdict("bad", f"b{i}", i % 4 == 0, i % 2 == 0) for i in range(40)]
    found = effect_of(verdicts).difference.estimate
    apart = 30 + 10, 10 + 30
    raw = (30 + 10) / apart[0] - (10 + 10) / apart[1]
    assert raw == 0.5 and found == pytest.approx(within([v for v in verdicts if v.judge == "bad"]) / 2)


def within(verdicts: list[Verdict]) -> float:
    helped, alone = ([v.agrees for v in verdicts if v.assisted == arm] for arm in (True, False))
    return float(np.mean(helped) - np.mean(alone))


def test_one_judge_gives_the_difference_of_means_with_its_error() -> None:
    rng = np.random.default_rng(3)
    y, t = rng.normal(size=50), np.arange(50) % 2 == 0
    found, p = within_judges(y.tolist(), t.tolist(), ["j"] * 50, list(range(50)))
    assert found.estimate == pytest.approx(y[t].mean() - y[~t].mean())
    error = np.sqrt(50 / 49 * (y[t].var() / 25 + y[~t].var() / 25))
    half = (found.high - found.low) / 2
    from scipy.stats import t as student

    assert half == pytest.approx(student.ppf(0.975, 49) * error)
    assert p == pytest.approx(2 * student.sf(abs(found.estimate) / error, 49))


def test_what_cannot_tell_says_so() -> None:
    found, p = within_judges([1.0, 0.0], [True, False], ["a", "b"], [0, 1])
    assert isnan(found.estimate) and found.low == -np.inf and p == 1
    alike = effect_of([Verdict("j", i, i % 2 == 0, True) for i in range(20)])
    assert alike.difference.estimate == 0 and alike.difference.low < -0.1 and alike.difference.high > 0.1
