"""Laws of mixtures that are known, and what is recommended from them."""

from __future__ import annotations

import numpy as np
import pytest

from foretell.errors import ForecastError
from foretell.forecast.mixture import Recommendation, Trials, design, fit_law, losses_of, recommend
from foretell.forecast.mixture_page import mixture_page, percent, said

# Floors and exponents of three sources: each helps itself most; code helps prose a little, noise helps no other.
LAWS = np.array([[0.6, -1.2, 0.4, 0.6], [0.5, 0.2, -0.9, 0.5], [1.0, 0.3, 0.3, 0.1]])
NAMES = ("code", "prose", "noise")


def trials(noise: float = 0.0, rungs: int = 2, laws: np.ndarray = LAWS, seed: int = 0, count: int = 14) -> Trials:
    """Losses of the laws, 10 % lower a rung, with relative noise."""
    shares = design((1, 1, 2), count)
    random = np.random.default_rng(seed)
    exact = np.stack([losses_of(law, shares) for law in laws], 1)
    losses = np.stack([0.9**i * exact for i in range(rungs)])
    losses *= np.exp(noise * random.standard_normal(losses.shape))
    return Trials(NAMES, shares, losses, np.array([1e12 * 10.0**i for i in range(rungs)]))


def test_a_design_begins_at_the_recipe_moves_each_source_and_stays_a_mixture() -> None:
    shares = design((1, 1, 2), 16)
    assert shares[0] == pytest.approx([0.25, 0.25, 0.5])
    assert shares.shape == (16, 3) and (shares > 0).all() and shares.sum(1) == pytest.approx(1)
    assert shares[1:4].diagonal() == pytest.approx([0.5, 0.5, 0.75])  # three times the odds
    assert np.linalg.matrix_rank(shares - shares.mean(0)) == 2


@pytest.mark.parametrize(("base", "count", "said"), [((1,), 9, "two sources"), ((1, 1, 1), 5, "need 6 trials")])
def test_a_design_that_no_law_can_be_fitted_to_is_refused(base: tuple[float, ...], count: int, said: str) -> None:
    with pytest.raises(ForecastError, match=said):
        design(base, count)


def test_the_law_is_found_again_from_its_own_losses() -> None:
    shares = design((1, 1, 1), 20)
    for law in LAWS:
        found = fit_law(shares, losses_of(law, shares))
        other = np.random.default_rng(3).dirichlet((4, 4, 4), 50)
        assert losses_of(found, other) == pytest.approx(losses_of(law, other), rel=5e-3)


def test_the_recommended_mixture_is_the_best_of_the_known_law() -> None:
    """Beside a fine grid of the simplex within what was tried."""
    known = trials()
    found = recommend(known, 1e16, {"code": 0.5, "prose": 0.5})
    grid = np.random.default_rng(0).dirichlet((1, 1, 1), 40_000)
    inside = grid[((grid >= known.shares.min(0)) & (grid <= known.shares.max(0))).all(1)]
    objective = 0.5 * losses_of(LAWS[0], inside) + 0.5 * losses_of(LAWS[1], inside)
    mine = 0.5 * losses_of(LAWS[0], found.shares) + 0.5 * losses_of(LAWS[1], found.shares)
    assert mine <= objective.min() * 1.002
    assert found.shares.sum() == pytest.approx(1)
    assert found.shares[2] == pytest.approx(known.shares[:, 2].min(), abs=0.02)  # nobody asked for noise
    before = 0.5 * losses_of(LAWS[0], known.shares[0]) + 0.5 * losses_of(LAWS[1], known.shares[0])
    assert found.gain.estimate == pytest.approx(np.log(before / mine), abs=0.01)  # the same on every rung, so beyond


def test_intervals_of_the_gain_hold_the_truth_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(24):
        found = recommend(trials(0.01, seed=seed), 1e14, {"code": 1.0}, seed=seed)
        before, after = (losses_of(LAWS[0], r) for r in (found.before, found.shares))
        held.append(found.gain.low <= np.log(before / after) <= found.gain.high)
    assert sum(held) >= 17  # 90 % intervals, of few residuals and a choice made on the same runs


def test_where_no_mixture_matters_none_is_claimed() -> None:
    flat = np.array([[0.5, 0.1, 0.1, 0.1]] * 3)
    found = [recommend(trials(0.02, laws=flat, seed=seed), 1e14, seed=seed) for seed in range(10)]
    assert sum(one.gain.low > 0.01 for one in found) <= 2


def test_a_source_that_may_not_be_read_more_often_is_held_down() -> None:
    free = recommend(trials(), 1e14, {"code": 1.0})
    held = recommend(trials(), 1e14, {"code": 1.0}, {"code": 0.3})
    assert free.shares[0] > 0.4 and held.shares[0] == pytest.approx(0.3, abs=1e-4)
    assert held.limited == ("code",) and not free.limited


@pytest.mark.parametrize(
    ("aim", "most", "told"),
    [
        ({"verse": 1.0}, {}, "no source 'verse'"),
        ({"code": 0.0}, {}, "weighs no source"),
        (None, {"code": 0.1, "prose": 0.1, "noise": 0.1}, "fill 30%"),
    ],
)
def test_aims_and_limits_that_cannot_be_are_refused(
    aim: dict[str, float] | None, most: dict[str, float], told: str
) -> None:
    with pytest.raises(ForecastError, match=told):
        recommend(trials(), 1e14, aim, most)


def test_the_page_tells_the_shares_and_whether_a_gain_was_shown() -> None:
    found: Recommendation = recommend(trials(0.002), 1e14, {"code": 1.0})
    page = mixture_page("<own>", "bits per byte", trials(), found, 1e14, (0.05, 0.04, 0.06), "42 runs.")
    assert "&lt;own&gt;" in page and "lowers the loss by" in page and percent(0.05) == "4.88%" and "4.88%" in page
    flat = recommend(trials(0.02, laws=np.array([[0.5, 0.1, 0.1, 0.1]] * 3), seed=1), 1e14)
    assert "Held down" not in " ".join(said(flat, None))
