"""The watch: sound runs raise no alarm, planted faults do before 30 %, and for the right reason."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import simulated
from scipy.interpolate import make_smoothing_spline
from scipy.stats import t as student

from foretell.errors import ForecastError
from foretell.forecast import Forecast, LadderTable, Rung, fit
from foretell.forecast.curves import binned
from foretell.forecast.watch import Band, _carried, explain, watch

TARGET = simulated.flops(simulated.TARGET)
Curve = list[tuple[float, float]]


@cache
def band(number: int = 0) -> Band:
    table = simulated.ladder(number)
    return watch(table, fit(table), TARGET)


def faulty(seed: int = 7, until: float = 0.3, **fault: Any) -> Curve:
    """The beginning of a run with a fault."""
    return [point for point in simulated.run(simulated.TARGET, seed, **fault)[0] if point[0] <= until]


def test_sound_runs_raise_no_alarm() -> None:
    """One in a hundred may, over ladders and runs; two in thirty would be another level."""
    curves = [simulated.run(simulated.TARGET, seed)[0] for seed in range(6)]
    assert sum(bool(band(number).check(curve)) for curve in curves for number in range(5)) <= 1


def test_an_alarm_once_raised_is_not_taken_back() -> None:
    curve = faulty(until=0.5, schedule=lambda share: min(share / 0.02, 1.0))
    counts = [len(band().check(curve[:upto])) for upto in range(len(curve) + 1)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"rate": 0.5}, "learning rate is too low"),
        ({"rate": 2.0}, "learning rate is too high"),
        ({"schedule": lambda share: min(share / 0.2, 1.0) * (1 - share)}, "warm-up long"),
        # Here the loss is only 3 % off at 30 % of the run.
        ({"schedule": lambda share: min(share / 0.02, 1.0), "until": 0.4}, "learning rate falls too late"),
        ({"schedule": lambda share: min(share / 0.02, 1.0) * max(1 - 2 * share, 0.0)}, "runs ahead of its curve"),
        ({"corrupted": (0.15, 0.25)}, "bad data"),
        ({"spike": 0.2}, "a spike"),
    ],
    ids=["halved rate", "doubled rate", "long warm-up", "constant rate", "early decay", "corrupted shard", "spike"],
)
def test_faults_are_caught_early_with_their_reason(fault: dict[str, Any], reason: str) -> None:
    curves = [faulty(seed, **fault) for seed in range(3)]
    found = [" | ".join(alarm.text for alarm in band(i).check(curve)) for curve in curves for i in range(3)]
    assert sum(reason in text and " | " not in text for text in found) >= 7, found


def test_divergence_is_told_beside_what_came_before() -> None:
    curve = simulated.run(simulated.TARGET, 0)[0][:40]
    (alarm,) = band().check([*curve, (0.205, math.nan), (0.21, 2.0)])
    assert alarm.reason == "divergence" and alarm.share == 0.205


def test_an_alarm_holds_the_band_where_it_was_left() -> None:
    (alarm,) = band().check(faulty(rate=2.0))
    i = band().shares.index(alarm.share)
    assert (alarm.low, alarm.high) == pytest.approx((band().low[i], band().high[i]))
    assert not alarm.low <= alarm.loss <= alarm.high
    assert alarm.loss == pytest.approx(binned(faulty(rate=2.0), np.array([alarm.share]), 1 / 50)[0])


def test_a_curve_that_begins_late_or_not_at_all_is_not_judged() -> None:
    assert band().check([]) == [] and band().check([(0.5, 9.0)]) == []
    assert band().check([(0.5, 9.0), (0.6, 9.0)]) == []


def test_json_round_trip() -> None:
    import json

    assert Band.from_json(json.loads(json.dumps(band().to_json(), allow_nan=False))) == band()


def test_bins_hold_the_mean_however_often_the_curve_is_logged() -> None:
    ends = np.arange(1, 51) / 50
    for count in (50, 997):
        flat = [(i / count, 2.5) for i in range(count + 1)]
        np.testing.assert_allclose(binned(flat, ends, 0.02), 2.5, rtol=1e-12)
    fine, coarse = ([(i / count, 1.0 + 0.3 * (i / count) ** -0.4) for i in range(1, count + 1)] for count in (2000, 80))
    mean = 1.0 + 0.3 * (ends**0.6 - (ends - 0.02) ** 0.6) / 0.6 / 0.02  # of the curve itself
    np.testing.assert_allclose(binned(fine, ends, 0.02)[1:], mean[1:], rtol=1e-4)
    np.testing.assert_allclose(binned(coarse, ends, 0.02)[1:], mean[1:], rtol=3e-3)
    part = binned([p for p in fine if 0.1 < p[0] < 0.5], ends, 0.02)
    assert np.isfinite(part).tolist() == [end > 0.121 and end < 0.4999 for end in ends]


def test_lines_are_carried_as_least_squares_does() -> None:
    """Where nothing bends, value and interval are those of ordinary regression."""
    rng = np.random.default_rng(3)
    z = np.repeat(np.linspace(-3, -1, 12), 3)
    y = np.array([[0.3, -0.2]]) * z[:, None] + 0.01 * rng.normal(size=(36, 2))
    value, error = _carried(z, y)
    _, intercept = np.polyfit(z, y, 1)
    assert np.abs(value - intercept).max() < 0.5 * error.min()
    assert error.min() > 0.01 and error.max() < 0.03


def test_smooth_columns_are_carried_as_a_smoothing_spline_does() -> None:
    z = np.linspace(-3.0, -1.0, 30)
    y = np.sin(2 * z)[:, None]
    value, error = _carried(z, y)
    spline = make_smoothing_spline(z, y[:, 0], lam=1e-6)
    assert value[0] == pytest.approx(spline(-1.0) + spline(-1.0, 1), abs=0.03)
    further, doubt = _carried(z - 1.0, y)
    assert further[0] == pytest.approx(value[0] + spline(-1.0, 1), abs=0.03) and doubt[0] > 2 * error[0]


def test_interval_covers_one_more_run_of_a_known_law() -> None:
    rng, inside = np.random.default_rng(1), []
    z = np.repeat(np.linspace(-4, -1.5, 9), 2)
    for _ in range(200):
        a, b, bend = rng.normal(size=3) * (1, 0.1, 0.02)
        y = (a + b * z + bend * z**2 + 0.01 * rng.normal(size=len(z)))[:, None]
        value, error = _carried(z, y)
        inside.append(abs(a + 0.01 * rng.normal() - value[0]) < student.ppf(0.95, len(z) - 2) * error[0])
    assert 0.84 <= np.mean(inside) <= 0.98


def test_band_narrows_where_the_rungs_agree(ladder: LadderTable, forecast: Forecast) -> None:
    """Curves of one shape but for noise: the band is little wider than the forecast's own interval."""
    made = watch(ladder, forecast, 1e18)
    final = forecast.predict(1e18, 0.99)
    assert made.unit == ladder.unit
    assert np.allclose(np.array(made.high) / made.centre, final.high / final.loss, rtol=2e-3)
    widths = [high - low for low, high in zip(made.low, made.high, strict=True)]
    assert all(a >= b for a, b in pairwise(widths))  # the loss falls, the ratio stays
    ratio = [1 + 0.3 * ((share - 0.01) ** -0.4 - 1) for share in made.shares]
    assert np.allclose(np.array(made.centre[5:]) / final.loss, ratio[5:], rtol=0.01)


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ([], "curves of 0 rungs"),
        ([(1e12, 0), (1e13, 0), (1e14, 0)], "curves of 3 rungs at 3 computes"),
        ([(1e12, 0), (1e12, 1), (1e13, 0), (1e13, 1)], "at 2 computes"),
    ],
)
def test_too_few_curves_are_refused(forecast: Forecast, rungs: list[tuple[float, int]], message: str) -> None:
    few = tuple(Rung(flops, 2.0, seed, f"{flops}-{seed}") for flops, seed in rungs)
    curves = {rung.run: ((0.0, 4.0), (1.0, 2.0)) for rung in few}
    with pytest.raises(ForecastError, match=message):
        watch(LadderTable(few, curves=curves), forecast, 1e18)


def test_curves_without_a_stretch_in_common_are_refused(ladder: LadderTable, forecast: Forecast) -> None:
    curves = {rung.run: ((0.9, 2.1), (1.0, 2.0)) for rung in ladder.rungs}
    table = LadderTable(ladder.rungs, ladder.unit, curves=curves)
    with pytest.raises(ForecastError, match="only 10% of the run in common"):
        watch(table, forecast, 1e18)


def test_a_single_step_down_is_told_as_data() -> None:
    shares, d = np.arange(1, 21) / 50, np.zeros(20)
    d[12:] = -0.3
    reason, text = explain(shares, d, np.full(20, 0.05), 13, False)
    assert reason == "data" and "26%" in text and "fell" in text
