"""Estimators against exact expectations, published formulas and known laws; intervals against simulated ladders."""

from math import comb, exp, inf, log
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import betaln, digamma

from foretell.errors import ForecastError
from foretell.forecast import capability
from foretell.forecast.capability import (
    Tally,
    find_turn,
    fit_beta,
    fit_bucket,
    log_loss,
    log_odds,
    make_buckets,
    pass_rate,
    tally,
    unbiased_log_pass_rate,
)


@pytest.mark.parametrize("p", [0.03, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_the_estimate_of_log_p_is_unbiased_exactly(p, wanted):
    """Its expectation summed over the negative binomial distribution of the draws needed, not simulated."""
    draws = np.arange(wanted, 4000)
    chance = stats.nbinom.pmf(draws - wanted, wanted, p)
    expected = sum(c * unbiased_log_pass_rate(int(k), wanted) for c, k in zip(chance, draws, strict=True) if c > 0)
    assert expected == pytest.approx(log(p), abs=1e-9)


def test_the_estimate_is_a_sum_of_reciprocals():
    """ψ(K) − ψ(r) = 1/r + … + 1/(K − 1); with one wanted pass it is the harmonic number."""
    assert -unbiased_log_pass_rate(5, 2) == pytest.approx(1 / 2 + 1 / 3 + 1 / 4)
    assert unbiased_log_pass_rate(3, 3) == 0
    for draws, passes in ((2, 3), (3, 0)):
        with pytest.raises(ValueError, match="1 <= passes <= draws"):
            unbiased_log_pass_rate(draws, passes)


def test_the_naive_estimate_would_not_do():
    """What the unbiased one mends: −log(r / K) is off by a quarter of a nat at one wanted pass and p = 0.5."""
    draws = np.arange(1, 400)
    chance = stats.nbinom.pmf(draws - 1, 1, 0.5)
    assert (chance * np.log(1 / draws)).sum() - log(0.5) > 0.1


def test_a_tally_stops_at_the_wanted_pass():
    assert tally("a", [False, True, False, True, True], wanted=2) == Tally("a", 4, 2, 2)
    assert tally("a", [False, True, False], wanted=2) == Tally("a", 3, 1, 2)
    assert tally("a", [False, True]) == Tally("a", 2, 1, None)
    assert [t.capped for t in (Tally("a", 4, 2, 2), Tally("a", 3, 1, 2), Tally("a", 2, 1))] == [False, True, True]
    for wrong in ((0, 0), (2, 3), (2, -1)):
        with pytest.raises(ValueError, match="no tally"):
            Tally("a", *wrong)


def test_a_bucket_reached_throughout_takes_the_unbiased_mean():
    tallies = [Tally("a", 5, 2, 2), Tally("b", 2, 2, 2)]
    assert log_loss(tallies) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 2 * 0) / 2)
    assert pass_rate([Tally("a", 3, 3)]) == 1
    assert log_loss([Tally("a", 9, 0), Tally("b", 9, 0)]) == inf
    assert pass_rate([Tally("a", 9, 0)]) == 0
    with pytest.raises(ForecastError, match="no problems"):
        pass_rate([])


def test_the_beta_fit_is_the_most_likely_and_recovers_its_truth():
    rng = np.random.default_rng(0)
    p = rng.beta(0.8, 3.0, size=4000)
    passes = rng.binomial(60, p)
    counts = np.stack([passes, 60 - passes], 1).astype(float)
    a, b = fit_beta(counts)
    assert (a, b) == (pytest.approx(0.8, rel=0.06), pytest.approx(3.0, rel=0.06))

    def likelihood(a, b):
        return (betaln(a + counts[:, 0], b + counts[:, 1]) - betaln(a, b)).sum()

    for da, db in ((1.02, 1), (0.98, 1), (1, 1.02), (1, 0.98)):
        assert likelihood(a * da, b * db) < likelihood(a, b)
    # At the optimum the bucket's value is also the mean of what the posterior says of each problem.
    posterior = np.mean(digamma(a + b + 60) - digamma(a + counts[:, 0]))
    assert posterior == pytest.approx(digamma(a + b) - digamma(a), rel=1e-4)
    # And it is the integral that it claims to be.
    density = stats.beta(a, b).pdf
    integral = integrate.quad(lambda x: -np.log(x) * density(x), 0, 1)[0]
    assert digamma(a + b) - digamma(a) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize(("draws", "level"), [(2000, 0.1), (2000, 0.5), (1000, 1.5), (10**6, 0.02)])
def test_the_fit_reaches_the_top_on_every_bucket(draws, level):
    """With many draws on each problem the bucket's value is the plain mean; a search that stops on the ridge is off."""
    rng = np.random.default_rng(8)
    for _ in range(30):
        passes = rng.binomial(draws, np.exp(-level * rng.lognormal(0, 0.4, 25))).clip(1)
        plain = np.mean(np.log(draws / passes))
        assert log_loss([Tally(str(i), draws, int(k)) for i, k in enumerate(passes)]) == pytest.approx(plain, rel=0.03)


def test_the_likelihood_does_not_depend_on_why_sampling_stopped():
    """Against the explicit beta mixtures of binomial (fixed or capped) and negative binomial (reached) counts."""
    a, b = 1.3, 4.2
    density = stats.beta(a, b).pdf
    for draws, passes, reached in ((20, 3, False), (20, 0, False), (14, 4, True)):
        ways = comb(draws - 1, passes - 1) if reached else comb(draws, passes)
        chance = stats.nbinom.pmf if reached else stats.binom.pmf
        arguments = (draws - passes, passes) if reached else (passes, draws)
        mixture = integrate.quad(lambda p, c=chance, g=arguments: c(*g, p) * density(p), 0, 1)[0]
        assert mixture == pytest.approx(ways * exp(betaln(a + passes, b + draws - passes) - betaln(a, b)), rel=1e-6)


@pytest.mark.parametrize("cap", [30, 100])
def test_a_capped_bucket_is_estimated_with_little_bias(cap):
    """Problems that sampling gave up on are used for what they say; leaving them out would not do."""
    rng = np.random.default_rng(1)
    a, b, wanted = 0.9, 6.0, 2
    truth = float(digamma(a + b) - digamma(a))
    found, dropped = [], []
    for _ in range(150):
        tallies = [sampled(rng, str(i), p, wanted, cap) for i, p in enumerate(rng.beta(a, b, size=60))]
        assert any(t.capped for t in tallies)
        found.append(log_loss(tallies))
        dropped.append(log_loss([t for t in tallies if not t.capped]))
    assert abs(np.mean(found) - truth) < 0.05 * truth
    assert np.mean(dropped) < 0.85 * truth


def test_alike_problems_and_single_ones_have_a_finite_fit():
    assert log_loss([Tally(str(i), 100, 50) for i in range(30)]) == pytest.approx(log(2), rel=1e-3)
    assert pass_rate([Tally(str(i), 100, 50) for i in range(30)]) == pytest.approx(0.5, rel=1e-6)
    assert np.isfinite(log_loss([Tally("a", 1000, 1)]))
    assert np.isfinite(log_loss([Tally("a", 1, 1), Tally("b", 1000, 0)]))


def test_buckets_are_near_equal_ordered_and_deterministic():
    rng = np.random.default_rng(2)
    p = dict(zip(map(str, range(50)), np.linspace(0.95, 0.05, 50), strict=True)) | {"never": 0.0, "ever": 0.0}
    models = [[Tally(name, 400, int(rng.binomial(400, q))) for name, q in p.items()] for _ in range(3)]
    made = make_buckets(models, 6)
    assert [len(group) for group in made.groups] == [8, 9, 8, 8, 9, 8]
    assert set(made.unsolved) == {"never", "ever"}
    assert {*"".join(f"{x} " for g in made.groups for x in g).split()} | set(made.unsolved) == set(p)
    rates = [np.mean([p[name] for name in group]) for group in made.groups]
    assert rates == sorted(rates, reverse=True)
    assert make_buckets([list(reversed(model)) for model in models[::-1]], 6) == made


def test_ties_fall_by_hash_and_not_by_name():
    names = [f"{i:02}" for i in range(40)]
    groups = make_buckets([[Tally(name, 10, 5) for name in names]], 2).groups
    assert groups == make_buckets([[Tally(name, 10, 5) for name in reversed(names)]], 2).groups
    assert groups[0] != tuple(names[:20])


def test_buckets_of_different_or_too_few_problems_are_refused():
    with pytest.raises(ForecastError, match="same problems"):
        make_buckets([[Tally("a", 2, 1)], [Tally("b", 2, 1)]], 1)
    with pytest.raises(ForecastError, match="same problems"):
        make_buckets([], 1)
    with pytest.raises(ForecastError, match="solved 1 problems, too few for 2"):
        make_buckets([[Tally("a", 2, 1), Tally("b", 2, 0)]], 2)


def sampled(rng, problem, p, wanted, cap):
    """A tally drawn from its own distribution: the draws to the wanted pass, or the passes within the cap."""
    if (draws := wanted + rng.negative_binomial(wanted, p)) <= cap:
        return Tally(problem, int(draws), wanted, wanted)
    while (passes := rng.binomial(cap, p)) >= wanted:
        pass
    return Tally(problem, cap, int(passes), wanted)


def ladder(rng, flops, problems=25, noise=0.06, wanted=20, cap=400, exponent=0.25, anchor=1e12, level=1.2):
    """Tallies of simulated models: −log p of each problem a power law with its own level, each model a little off."""
    levels = level * rng.lognormal(0, 0.4, problems)

    def model(c):
        rates = np.exp(-levels * (c / anchor) ** -exponent * rng.lognormal(0, noise))
        return [sampled(rng, str(i), p, wanted, cap) for i, p in enumerate(rates)]

    return [(c, model(c)) for c in flops], levels, model


def test_an_exact_law_is_found_exactly():
    flops = np.geomspace(1e12, 1e15, 6)
    rungs = [
        (c, [Tally(str(i), 10**7, round(10**7 * exp(-0.9 * (c / 1e12) ** -0.3)), None) for i in range(4)])
        for c in flops
    ]
    for measure in ("log_loss", "pass_rate"):  # equal problems: the mean of logs is the log of the mean
        law = fit_bucket(rungs, measure, resamples=3)
        assert law.exponent == pytest.approx(0.3, abs=1e-4)
        assert law.predict(1e17).estimate == pytest.approx(0.9 * 1e5**-0.3, rel=1e-3)
        assert law.alpha == pytest.approx(0.9 * 1e12**0.3, rel=3e-3)


def test_the_line_and_its_interval_are_those_of_regression():
    """Against scipy's line and the textbook prediction interval."""
    rng = np.random.default_rng(3)
    flops, n = np.geomspace(1e11, 1e14, 7), 10**9  # so many draws that they leave no noise of their own
    rates = np.exp(-np.outer(1.2 * (flops / 1e12) ** -0.25 * rng.lognormal(0, 0.06, 7), rng.lognormal(0, 0.4, 25)))
    rungs = [
        (c, [Tally(str(i), n, round(n * p)) for i, p in enumerate(row)]) for c, row in zip(flops, rates, strict=True)
    ]
    law = fit_bucket(rungs, resamples=20)
    x, y = np.log([c for c, _ in rungs]), np.log([log_loss(t) for _, t in rungs])
    line = stats.linregress(x, y)
    at = log(1e16)
    s = np.sqrt(((y - line.intercept - line.slope * x) ** 2).sum() / 5)
    half = stats.t.ppf(0.95, 5) * s * np.sqrt(1 + 1 / 7 + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    found = law.predict(1e16)
    assert log(found.estimate) == pytest.approx(line.intercept + line.slope * at, rel=1e-5)
    assert log(found.high) - log(found.low) == pytest.approx(2 * half, rel=1e-4)
    assert law.slope_error == pytest.approx(line.stderr, rel=1e-4)
    wide = law.predict(1e16, new_problems=True)
    assert wide.low < found.low < found.high < wide.high


@pytest.mark.parametrize(("wanted", "cap"), [(20, 20_000), (20, 300), (10**6, 2_000)])
def test_the_interval_covers_the_outcome_of_an_unseen_model(wanted, cap):
    """200 ladders, largest rung 1/100 of the target; the outcome is what the target's own draws show."""
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(200):
        rungs, _, model = ladder(rng, np.geomspace(1e11, 1e14, 7), wanted=wanted, cap=cap)
        interval = fit_bucket(rungs, resamples=2).predict(1e16)
        covered.append(interval.low <= log_loss(model(1e16)) <= interval.high)
    assert 0.85 <= np.mean(covered) <= 0.98


def test_the_interval_for_new_problems_covers_them():
    rng = np.random.default_rng(5)
    covered = {True: [], False: []}
    for _ in range(60):
        rungs, _, _ = ladder(rng, np.geomspace(1e11, 1e14, 7), problems=12, noise=0.01, wanted=200, cap=10_000)
        law = fit_bucket(rungs, resamples=30)
        _, levels, _ = ladder(rng, [], problems=4000)
        truth = float(np.mean(levels)) * 1e4**-0.25
        for new in covered:
            interval = law.predict(1e16, new_problems=new)
            covered[new].append(interval.low <= truth <= interval.high)
    assert np.mean(covered[True]) >= 0.83
    assert np.mean(covered[False]) < 0.75  # the bucket's own interval does not claim them


def test_rungs_that_say_nothing_are_left_out_and_too_few_are_refused():
    rng = np.random.default_rng(6)
    rungs, _, _ = ladder(rng, np.geomspace(1e11, 1e14, 6))
    names = [t.problem for t in rungs[0][1]]
    mute = [(1e9, [Tally(name, 9, 0, 3) for name in names]), (1e18, [Tally(name, 3, 3, 3) for name in names])]
    law = fit_bucket([*rungs, *mute], resamples=2)
    assert law.left_out == (1e9, 1e18)
    assert law.predict(1e15) == fit_bucket(rungs, resamples=2).predict(1e15)
    with pytest.raises(ForecastError, match="3 do"):
        fit_bucket([*rungs[:3], *mute])
    with pytest.raises(ForecastError, match="0 do"):
        fit_bucket([])
    with pytest.raises(ForecastError, match="different problems"):
        fit_bucket([*rungs[:4], (1e15, rungs[4][1][1:])])
    with pytest.raises(ForecastError, match="three sizes"):
        fit_bucket([(c, tallies) for c, (_, tallies) in zip([1e12, 1e12, 1e13, 1e13], rungs, strict=False)])


def test_log_odds():
    p = np.array([0.1, 0.6, 0.3])
    assert log_odds(np.log(p), 1) == pytest.approx(log(0.6 / 0.4))
    assert log_odds(np.log(p) - 700, 1) == pytest.approx(log(0.6 / 0.4))
    assert log_odds([0.0, -inf], 0) == inf
    for logprobs, right in (([0.0], 0), ([0.0, 1.0], 2), ([0.0, 1.0], -1)):
        with pytest.raises(ValueError, match="expected an index"):
            log_odds(logprobs, right)


# Hindsight neglect, accuracies as published: ada 41, babbage ~, curie 18, GPT-3.5 20, GPT-4 100 %.
@pytest.mark.parametrize("sign", [1, -1])
def test_a_reversal_is_found_where_it_is(sign):
    flops = np.geomspace(1e10, 1e16, 7)
    values = np.abs(np.log10(flops) - 13) * 0.2 * sign
    turn = find_turn(flops, values, np.full(7, 0.03))
    assert turn.flops == pytest.approx(1e13)
    assert (turn.before, turn.after) == (pytest.approx(-0.2 * sign), pytest.approx(0.2 * sign))
    assert turn.p < 1e-6
    assert find_turn(flops, values, np.full(7, 2.0)) is None


def test_straight_bent_and_noisy_scaling_is_no_reversal():
    rng = np.random.default_rng(7)
    flops = np.geomspace(1e10, 1e16, 8)
    x = np.log10(flops) - 13
    shapes = {"flat": 0 * x, "straight": 0.1 * x, "bent": np.maximum(x, 0) * 0.3, "saturating": np.tanh(x)}
    for shape in shapes.values():
        for true, stated in ((0.05, 0.05), (0.15, 0.05)):  # also where models scatter more than their errors say
            found = [find_turn(flops, shape + rng.normal(0, true, 8), np.full(8, stated)) for _ in range(150)]
            assert np.mean([turn is not None for turn in found]) <= 0.05


def test_too_few_models_or_wrong_errors_are_refused():
    for flops, errors in (
        ([1, 2, 3, 4], [0.1] * 4),
        ([1, 2, 3, 4, 5], [0.1, 0.1, 0.0, 0.1, 0.1]),
        ([1, 2, 3, 3, 4], [0.1] * 5),
    ):
        with pytest.raises(ForecastError, match="five sizes"):
            find_turn(flops, [0.5] * len(flops), errors)


def test_nothing_here_needs_torch():
    assert "torch" not in Path(capability.__file__).read_text()
