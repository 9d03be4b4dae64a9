"""Rolling back-tests and the weights of the forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from foretell.forecast import backtest, fit, law
from foretell.forecast.law import Floats, Laws, Means
from foretell.forecast.noise import LN10, WANDER, Scatter, scatter, seed_noise
from foretell.forecast.table import LadderTable, Rung

X = np.linspace(-4, 0, 9) * LN10
STILL = Scatter(0.0, np.eye(len(WANDER))[0], 0.1)
WANDERING = Scatter(0.0, np.eye(len(WANDER))[-1], 0.1)


def means(loss: Floats, sd: float = 1e-3) -> Means:
    return Means(X[: len(loss)], loss, np.full(len(loss), sd**2), 20.0)


def test_every_beginning_foretells_every_rung_above_it() -> None:
    looks, scores = backtest.roll(means(1.5 + np.exp(-0.1 * X)), STILL, None)
    assert [(look.cut, look.rung) for look in looks] == [(cut, i) for cut in range(4, 9) for i in range(cut, 9)]
    assert scores.keys() == {"no floor", "floor", "broken"}


def test_the_rungs_foretold_are_not_seen() -> None:
    """What comes after a cut changes nothing of what the cut foretells."""
    loss = 1.5 + np.exp(-0.1 * X)
    other = np.where(np.arange(9) < 6, loss, 0.9 * loss)
    for one, two in zip(
        backtest.roll(means(loss), STILL, None)[0], backtest.roll(means(other), STILL, None)[0], strict=True
    ):
        if one.cut <= 6:
            assert one.predicted == pytest.approx(two.predicted) and one.sd == pytest.approx(two.sd)


def test_back_tests_of_a_law_are_right_and_their_errors_as_large_as_said() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(25):
        loss = np.exp(-0.1 * X) * (1 + 1e-3 * rng.standard_normal(9))
        looks, _ = backtest.roll(means(loss), STILL, 0.0)
        errors += [(look.predicted / loss[look.rung] - 1) / look.sd for look in looks]
    assert np.mean(errors) == pytest.approx(0, abs=0.25)
    assert 0.7 < np.std(errors) < 1.2


def test_a_rung_looked_at_has_noise_of_its_own() -> None:
    loss = np.exp(-0.1 * X)
    quiet = means(loss)
    loud = Means(quiet.x, loss, np.where(np.arange(9) < 8, quiet.var, 1e-2), quiet.dof)
    one, two = (backtest.roll(each, STILL, 0.0)[0] for each in (quiet, loud))
    for before, after in zip(one, two, strict=True):
        assert after.sd**2 - before.sd**2 == pytest.approx(1e-2 if after.rung == 8 else 0, rel=0.05, abs=1e-9)


def test_wander_adds_to_the_error_and_more_with_distance() -> None:
    loss = np.exp(-0.1 * X)
    pairs = zip(backtest.roll(means(loss), STILL, 0.0)[0], backtest.roll(means(loss), WANDERING, 0.0)[0], strict=True)
    more = [two.sd**2 - one.sd**2 for one, two in pairs if one.cut == 4]
    assert more == sorted(more) and more[0] > 0


def test_a_form_that_foretold_badly_loses_its_weight() -> None:
    _, scores = backtest.roll(means(0.5 + np.exp(-0.2 * X)), STILL, None)
    assert scores["floor"] > scores["no floor"] + 5


def test_weights_are_prior_times_root_of_evidence_and_score() -> None:
    none = Laws(*(np.zeros(0) for _ in range(7)))
    fitted = {"no floor": (none, 2.0), "floor": (none, 1.0)}
    found = backtest.weigh(fitted, {"no floor": 0.0, "floor": 3.0})
    assert found["floor"] / found["no floor"] == pytest.approx(0.5 / 0.35 * np.exp((1 + 3 - 2 - 0) / 2))
    assert sum(found.values()) == pytest.approx(1)


def test_moments_are_those_of_the_mixture() -> None:
    laws, _ = law.powers(means(np.exp(-0.1 * X)))
    mean, var = backtest.moments(laws, np.array([1.0, 2.0]))
    rng = np.random.default_rng(1)
    part = rng.choice(len(laws.weight), 100_000, p=laws.weight)
    drawn = laws.loss(2.0)[part, 0] + laws.spread[part] * laws.excess(2.0)[part, 0] * rng.standard_normal(100_000)
    assert mean[1] == pytest.approx(drawn.mean(), rel=1e-3)
    assert np.sqrt(var[1]) == pytest.approx(drawn.std() / drawn.mean(), rel=0.02)


def test_short_ladders_have_no_bent_form_and_known_floors_one_other_less() -> None:
    few = Means(X[:5], np.exp(-0.1 * X[:5]), np.full(5, 1e-6), 0.0)
    assert backtest.forms(few, None).keys() == {"floor", "no floor"}
    assert backtest.forms(means(1 + np.exp(-0.1 * X)), 1.0).keys() == {"floor", "broken"}


def test_intervals_of_back_tests_are_told_with_the_forecast() -> None:
    computes = np.geomspace(1e12, 1e16, 8)
    rng = np.random.default_rng(2)
    rungs = (
        Rung(float(c), float(30 * c**-0.1 * (1 + 2e-3 * rng.standard_normal())), s) for c in computes for s in (0, 1)
    )
    table = LadderTable(tuple(rungs))
    found = fit(table).diagnostics.back_tests
    assert len(found) == 4 + 3 + 2 + 1
    for each in found:
        assert each.low < each.predicted < each.high
        assert each.error == pytest.approx(each.predicted / each.loss - 1)
        assert each.decades == pytest.approx(np.log10(each.flops / each.fitted_to))
    assert sum(each.low <= each.loss <= each.high for each in found) >= 8
    # Nine in ten: of Student's t with the degrees of freedom of the seeds and of the rungs that were fitted.
    spread, fitted = scatter(seed_noise(table.rungs))
    last = backtest.roll(fitted, spread, None)[0][-1]
    assert np.log(found[-1].high / found[-1].predicted) == pytest.approx(student.ppf(0.95, 8 + 7 - 3) * last.sd)
