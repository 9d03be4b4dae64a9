"""Anomalies: exact probabilities, the stated rate of false alarms over clean traffic, and planted faults found."""

import numpy as np
import pytest
from scipy import stats

from foretell.measure.stats import wilson
from foretell.safety.anomalies import Watch, burst_chances, bursts, crowds, excess, rises

LOUD = Watch(false_alarms=0.05, burst_calls=0, burst_ratio=1.0, accounts=2, category_findings=1)


def test_excess_is_the_binomial_tail() -> None:
    rng = np.random.default_rng(0)
    here, elsewhere = rng.integers(0, 40, 200), rng.integers(0, 90, 200)
    share = rng.uniform(0.01, 0.9, 200)
    expected = stats.binom.sf(here - 1, here + elsewhere, share)
    np.testing.assert_allclose(excess(here, elsewhere, share), expected, rtol=1e-9, atol=1e-300)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(excess(here + 1, elsewhere, share), expected, rtol=1e-9)


def at_most(stated: float, alarms: int, sweeps: int) -> bool:
    """Whether the simulated rate may be the stated one or less, at 99.9 %."""
    return wilson(alarms, sweeps, 0.998).low <= stated


def test_bursts_keep_their_false_alarm_rate_over_clean_traffic() -> None:
    """2,000 sweeps over 40 accounts whose rates differ by four orders of magnitude."""
    rng = np.random.default_rng(1)
    rates = 10 ** rng.uniform(-1, 3, 40)
    sweeps, alarms, tested = 2000, 0, []
    for _ in range(sweeps):
        chances = burst_chances(rng.poisson(rates[:, None], (40, 24)), rng.poisson(rates))
        alarms += bool((chances * 40 <= LOUD.false_alarms).any())
        tested.append(chances)
    assert at_most(LOUD.false_alarms, alarms, sweeps), f"{alarms} of {sweeps}"
    assert alarms > 0.1 * LOUD.false_alarms * sweeps, "a test that never rings would keep any rate"
    busy = np.array(tested)[:, rates > 100]
    for level in (0.01, 0.1, 0.5):
        assert 0.5 * level <= (busy <= level).mean() <= 1.05 * level


def test_bursts_of_uneven_accounts_stay_rare() -> None:
    """Calls in clumps: negative binomial, variance 10 times the mean. Unscaled, almost every sweep would ring."""
    rng = np.random.default_rng(2)
    clumped, plain = 0, 0
    for _ in range(400):
        past, now = rng.negative_binomial(5, 0.1, (40, 72)), rng.negative_binomial(5, 0.1, 40)
        clumped += bool((burst_chances(past, now) * 40 <= 0.001).any())
        plain += bool((excess(now, past.sum(axis=1), 1 / 73) * 40 <= 0.001).any())
    assert clumped / 400 < 0.15 and plain / 400 > 0.9, (clumped, plain)


def hours(counts: np.ndarray, first: int = 0) -> dict[int, int]:
    return {first + at: int(count) for at, count in enumerate(counts) if count}


def test_a_planted_burst_is_found_and_named() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        calls = {f"user_{i}": hours(rng.poisson(30, 73)) for i in range(50)}
        calls["user_7"][72] = int(rng.poisson(150))
        alarms = bursts(calls, 72)
        assert [alarm.subject for alarm in alarms] in ([], ["user_7"])
        found += bool(alarms)
    assert found >= 99
    (alarm,) = alarms
    assert alarm.kind == "burst" and alarm.seen == calls["user_7"][72] and 25 < alarm.expected < 35


def test_no_burst_without_a_past_without_an_hour_of_many_and_outside_the_window() -> None:
    assert bursts({"new": {72: 100_000}}, 72) == []
    quiet = {at: 1 for at in range(72)}
    assert bursts({"small": {**quiet, 72: 40}}, 72) == [], "unlikely, but of no weight"
    assert [alarm.subject for alarm in bursts({"small": {**quiet, 72: 80}}, 72)] == ["small"]
    assert bursts({"doubled": {**{at: 10_000 for at in range(72)}, 72: 11_000}}, 72) == []
    assert bursts({"calm": {**quiet, 72: 1}}, 72) == [] and bursts({}, 72) == []
    old = {"back": {at: 500 for at in range(10)} | {200: 500}}
    assert bursts(old, 200, Watch(hours=72)), "what it did long ago does not excuse it"


def test_crowds_keep_their_false_alarm_rate_and_find_a_farm() -> None:
    rng = np.random.default_rng(4)
    sweeps, alarms, farms = 1000, 0, 0
    for sweep in range(sweeps):
        members = 1 + rng.poisson(0.6, 60)
        users = [(f"a{at}", f"u{at}-{i}") for at, count in enumerate(members) for i in range(count)]
        alarms += bool(crowds(users * 2, watch=LOUD))
        if sweep % 10 == 0:
            farm = [("farm", f"f{i}") for i in range(15)]
            found = crowds(users + farm)
            farms += [alarm.subject for alarm in found] == ["farm"] and found[0].seen == 15
            assert crowds(users + farm, known={"farm"}) == []
    assert at_most(LOUD.false_alarms, alarms, sweeps), f"{alarms} of {sweeps}"
    assert alarms > 0 and farms == 100


def test_one_address_for_all_is_no_crowd() -> None:
    """Behind a proxy that does not tell addresses, every account has the proxy's."""
    assert crowds([("proxy", f"u{i}") for i in range(500)]) == [] and crowds([]) == []


def test_rises_keep_their_false_alarm_rate_by_how_many_calls_there_were() -> None:
    rng = np.random.default_rng(5)
    rates = {f"c{i}": 10.0 ** rng.uniform(-5, -2) for i in range(13)}
    sweeps, alarms = 2000, 0
    for _ in range(sweeps):
        calls, before = int(rng.integers(200, 5000)), int(rng.integers(10_000, 100_000))
        now = {name: int(rng.poisson(rate * calls)) for name, rate in rates.items()}
        past = {name: int(rng.poisson(rate * before)) for name, rate in rates.items()}
        alarms += bool(rises(now, past, calls, before, LOUD))
    assert at_most(LOUD.false_alarms, alarms, sweeps), f"{alarms} of {sweeps}"
    assert alarms > 0.1 * LOUD.false_alarms * sweeps


def test_a_planted_rise_is_found_and_more_calls_alone_are_none() -> None:
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(200):
        past = {"hate": int(rng.poisson(72)), "violence": int(rng.poisson(720))}
        now = {"hate": int(rng.poisson(12)), "violence": int(rng.poisson(10))}
        found += [alarm.subject for alarm in rises(now, past, 1000, 72_000)] == ["hate"]
        assert not rises({"hate": 10, "violence": 100}, past, 10_000, 72_000)
    assert found >= 190
    assert rises({"hate": 50}, {}, 1000, 0) == [] == rises({}, {"hate": 5}, 0, 100)
