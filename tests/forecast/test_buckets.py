"""A ladder of pass rates with a known law, carried to a target: what is claimed holds as often as it says."""

import json
from dataclasses import asdict, replace
from math import exp, inf, log

import numpy as np
import pytest

from foretell.errors import ForecastError
from foretell.forecast.buckets import MEAN, Capability, bucket_name, fit_capability
from foretell.forecast.capability import tally

FLOPS = [1e11, 1e11, 4e11, 4e11, 1e12, 1e12, 2.4e12]
TARGET = 1.2e14


def model(rng, flops, difficulty, noise=0.05, most=1000, wanted=10):
    """Tallies of one model: −log p = difficulty · C^−0.4, with noise of the model's own."""
    losses = difficulty * (flops / 1e12) ** -0.4 * exp(rng.normal(0, noise))
    return [tally(f"p{i}", rng.random(most) < exp(-loss), wanted) for i, loss in enumerate(losses)]


def forecast(rng):
    difficulty = np.sort(np.exp(rng.normal(0, 0.8, 48)))
    sorting = [model(rng, flops, difficulty, most=300) for flops in FLOPS[::2]]
    return difficulty, fit_capability(sorting, [(flops, model(rng, flops, difficulty)) for flops in FLOPS])


@pytest.fixture(scope="module")
def forecasts():
    rng = np.random.default_rng(3)
    return [forecast(rng) for _ in range(2)]


def test_claims_hold_about_as_often_as_they_say(forecasts):
    rng, inside = np.random.default_rng(7), []
    for difficulty, found in forecasts:
        outcomes = found.outcomes(model(rng, TARGET, difficulty))
        claims = found.claims(TARGET)
        assert [claim.name for claim in claims] == [*(bucket_name(i) for i in range(6)), MEAN]
        inside += [claim.low <= outcomes[claim.name] <= claim.high for claim in claims]
        assert claims[-1].value == pytest.approx(outcomes[MEAN], rel=0.1)
        assert all(claim.low < claim.value < claim.high for claim in claims)
    assert np.mean(inside) >= 0.8


def test_laws_are_found_and_kept_as_json(forecasts):
    for difficulty, found in forecasts:
        for i, law in enumerate(found.losses):
            middle = np.mean([difficulty[int(name[1:])] for name in found.buckets.groups[i]])
            assert law.exponent == pytest.approx(0.4, abs=0.25)
            assert law.alpha * (1e12) ** -law.exponent == pytest.approx(middle, rel=0.4)
        assert np.mean([law.exponent for law in found.losses]) == pytest.approx(0.4, abs=0.1)
        assert Capability.from_json(json.loads(json.dumps(asdict(found)))) == found
        values = [claim.value for claim in found.claims(TARGET)[:-1]]
        assert values == sorted(values)


def test_the_mean_is_that_of_all_problems_weighed_alike(forecasts):
    difficulty, found = forecasts[0]
    tallies = model(np.random.default_rng(5), 1e12, difficulty, most=4000, wanted=4000)
    bucketed = [difficulty[int(name[1:])] for group in found.buckets.groups for name in group]
    truth = np.mean(np.exp(-np.array(bucketed)))
    assert found.outcomes(tallies)[MEAN] == pytest.approx(truth, rel=0.15)
    assert log(found.mean(1e12).estimate) == pytest.approx(log(truth), abs=0.15)


def test_an_interval_begins_at_zero_only_where_no_failure_might_be_met(forecasts):
    law = replace(forecasts[0][1].losses[0], count=10, wanted=10, draws=1000)
    for flops in (1e12, 1e14, 1e16, 1e18, 1e20):
        interval = law.predict(flops)
        lowest = exp(2 * log(interval.estimate) - log(interval.high))  # the interval is even in logarithms
        none_met = exp(-lowest * 10 * 10)  # of 10 problems, each sampled to 10 passes
        assert interval.low == (0.0 if none_met > 0.05 else pytest.approx(lowest))
    assert law.predict(1e12).low > 0
    assert law.predict(1e20).low == 0


def test_where_next_to_nothing_would_pass_the_interval_has_no_end(forecasts):
    law = replace(forecasts[0][1].losses[0], alpha=5e11, exponent=0.95, centre=log(1e12))
    interval = law.predict(1e10)  # p is about e^-160 there
    assert interval.estimate < 1e3 and interval.high == inf and interval.low >= 0


def test_missing_problems_and_buckets_without_a_law_are_refused(forecasts):
    rng = np.random.default_rng(6)
    difficulty, found = forecasts[1]
    tallies = model(rng, TARGET, difficulty)
    with pytest.raises(ForecastError, match="1 problems of the buckets"):
        found.outcomes(tallies[1:])
    few = [(flops, model(rng, flops, difficulty)) for flops in FLOPS[:3]]
    with pytest.raises(ForecastError, match=r"Bucket 1: .* 4 models"):
        fit_capability([tallies for _, tallies in few], few)
