"""From a ladder to a forecast: known laws, intervals, refusals, and how often the interval holds."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import t as student

from foretell.errors import ForecastError
from foretell.forecast import Forecast, LadderTable, Rung, fit
from foretell.forecast.chart import findings
from foretell.forecast.fitting import _quantiles
from foretell.forecast.law import bend
from foretell.forecast.table import make_table

COMPUTES = np.geomspace(1e12, 1e16, 9)


def law(flops: float) -> float:
    return float(40.0 * flops**-0.1 + 1.5)


def ladder(*flops: float, sd: float = 0.0, seeds: int = 1, seed: int = 0) -> LadderTable:
    rng = np.random.default_rng(seed)
    return LadderTable(
        tuple(Rung(c, law(c) * float(1 + sd * rng.standard_normal()), s) for c in flops for s in range(seeds))
    )


def half_width(forecast: Forecast, flops: float, level: float = 0.9) -> float:
    told = forecast.predict(flops, level)
    return (told.high - told.low) / 2 / told.loss


@pytest.fixture(scope="module")
def noisy() -> Forecast:
    return fit(ladder(*COMPUTES, sd=0.002, seeds=3), target=1e18)


def test_noiseless_law_is_recovered() -> None:
    forecast = fit(ladder(*COMPUTES))
    assert forecast.predict(1e18).loss == pytest.approx(law(1e18), rel=1e-3)
    assert [forecast.parameters[name].estimate for name in "abc"] == pytest.approx([40, 0.1, 1.5], rel=1e-3)
    assert sum(forecast.weights.values()) == pytest.approx(1) and forecast.weights["floor"] > 0.8
    for rung in forecast.diagnostics.rungs:
        assert rung.fitted == pytest.approx(law(rung.flops)) and abs(rung.residual) < 1e-5


def test_a_law_without_floor_is_told_from_one_with() -> None:
    straight = LadderTable(tuple(Rung(c, float(40 * c**-0.1)) for c in COMPUTES))
    forecast = fit(straight)
    assert forecast.weights["no floor"] > forecast.weights["floor"]
    assert forecast.predict(1e18).loss == pytest.approx(40 * 1e18**-0.1, rel=0.02)


def test_parameters_have_intervals_that_hold(noisy: Forecast) -> None:
    for name, true in (("a", 40), ("b", 0.1), ("c", 1.5)):
        found = noisy.parameters[name]
        assert found.low < true < found.high and found.low <= found.estimate <= found.high


def test_the_interval_grows_with_distance_and_level(noisy: Forecast) -> None:
    widths = [half_width(noisy, c) for c in (1e15, 1e17, 1e18, 1e20)]
    assert widths == sorted(widths) and widths[3] > 3 * widths[1]
    levels = [half_width(noisy, 1e18, level) for level in (0.5, 0.8, 0.9, 0.99)]
    assert levels == sorted(levels) and levels[3] > 2.5 * levels[0]


def test_the_interval_holds_the_noise_of_the_target_itself() -> None:
    """However well the law is known, one run differs from its mean."""
    forecast = fit(ladder(*COMPUTES, sd=0.01, seeds=12), floor=1.5)
    assert half_width(forecast, 1.5e16) > 1.64 * 0.008


def test_noise_and_fewer_rungs_widen_the_interval(noisy: Forecast) -> None:
    louder = fit(ladder(*COMPUTES, sd=0.006, seeds=3))
    fewer = fit(ladder(*COMPUTES[::2], sd=0.002, seeds=3))
    known = fit(ladder(*COMPUTES, sd=0.002, seeds=3), floor=1.5)
    usual = half_width(noisy, 1e18)
    assert half_width(louder, 1e18) > 1.5 * usual
    assert half_width(fewer, 1e18) > usual > half_width(known, 1e18)


def test_amplification_and_distance_are_those_of_the_target(noisy: Forecast) -> None:
    assert noisy.diagnostics.decades == pytest.approx(2)
    assert 1.5 < noisy.diagnostics.amplification < 5
    assert fit(ladder(*COMPUTES)).diagnostics.decades == 1


def test_quantiles_of_one_part_are_those_of_t_and_of_a_mixture_by_simulation() -> None:
    one = _quantiles(np.array([[1.0]]), np.array([[0.1]]), np.array([[1.0]]), 4, (0.05, 0.5, 0.95))
    assert one == pytest.approx(list(1 + 0.1 * student.ppf([0.05, 0.5, 0.95], 4)))
    rng = np.random.default_rng(0)
    centre, sd, weight = (
        np.array([[0.0], [1.0]]),
        np.array([[0.1, 0.3], [0.2, 0.4]]),
        np.array([[0.2, 0.3], [0.4, 0.1]]),
    )
    part = rng.choice(4, 200_000, p=weight.ravel())
    drawn = np.repeat(centre, 2, 1).ravel()[part] + sd.ravel()[part] * rng.standard_t(5, 200_000)
    assert _quantiles(centre, sd, weight, 5, (0.05, 0.5, 0.95)) == pytest.approx(
        list(np.quantile(drawn, [0.05, 0.5, 0.95])), abs=0.01
    )


def test_json_round_trip_predicts_the_same(noisy: Forecast) -> None:
    again = Forecast.from_json(json.loads(json.dumps(noisy.to_json())))
    assert again.predict(1e18) == noisy.predict(1e18)
    assert again.diagnostics == noisy.diagnostics and again.parameters == noisy.parameters
    refused = fit(ladder(*COMPUTES, sd=0.002), target=1e18, precision=1e-3)
    assert Forecast.from_json(json.loads(json.dumps(refused.to_json()))).refusal == refused.refusal


def test_order_and_unit_of_the_loss_do_not_matter() -> None:
    table = ladder(*COMPUTES, sd=0.002, seeds=2)
    turned = make_table(reversed(table.rungs))
    doubled = LadderTable(tuple(dataclasses.replace(rung, loss=2 * rung.loss) for rung in table.rungs))
    told = fit(table).predict(1e18)
    assert fit(turned).predict(1e18) == told
    twice = fit(doubled).predict(1e18)
    assert (twice.low, twice.loss, twice.high) == pytest.approx((2 * told.low, 2 * told.loss, 2 * told.high))


def turned(flops: float) -> float:
    """Falls with exponent 0.07 up to the ladder's top, and with 0.05 far beyond it."""
    x = np.log(flops / COMPUTES[-1])
    zero = np.zeros(1)
    return float(2.0 * np.exp(-0.07 * x + 0.02 * (bend(np.array([x]), zero) - bend(zero, zero)).item()))


def test_a_known_tail_takes_over_beyond_the_ladder() -> None:
    table = LadderTable(tuple(Rung(c, float(2.0 * (c / COMPUTES[-1]) ** -0.07)) for c in COMPUTES))
    plain, tailed = fit(table), fit(table, tail=(0.05, 0.05))
    for flops in (3e16, 1e17, 1e18):
        assert tailed.predict(flops).loss == pytest.approx(turned(flops), rel=1e-3)
        assert plain.predict(flops).loss < 0.995 * tailed.predict(flops).loss
    assert tailed.predict(1e15) == plain.predict(1e15)  # inside the ladder nothing changes


def test_a_tail_known_less_well_gives_the_interval_of_its_exponents() -> None:
    table = LadderTable(tuple(Rung(c, float(2.0 * (c / COMPUTES[-1]) ** -0.05)) for c in COMPUTES))
    told = fit(table, tail=(0.04, 0.06)).predict(1e18)
    reach = 0.45 * 0.02 * np.log(1e18 / COMPUTES[-1])  # 90 % of an even spread
    assert np.log(told.high / told.low) / 2 == pytest.approx(reach, rel=0.1)
    again = fit(table, tail=(0.04, 0.06))
    assert Forecast.from_json(json.loads(json.dumps(again.to_json()))).predict(1e18) == told


def test_a_tail_is_told_with_the_forecast() -> None:
    plain, tailed = fit(ladder(*COMPUTES)), fit(ladder(*COMPUTES), tail=(0.04, 0.06))
    assert any("is taken to be 0.040 to 0.060, as was said beforehand" in said for said in findings(tailed))
    assert not any("beforehand" in said for said in findings(plain))


@pytest.mark.parametrize("tail", [(0.0, 0.05), (0.06, 0.05), (0.05, 3.0)])
def test_a_tail_that_is_none_is_refused(tail: tuple[float, float]) -> None:
    with pytest.raises(ForecastError, match="give exponents above 0, the lower first"):
        fit(ladder(*COMPUTES), tail=tail)


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (ladder(1e12, 1e13, 1e14, 1e15), {}, "4 distinct computes"),
        (LadderTable((), excluded=((Rung(1e12, 9.0), "its loss is nan"),)), {}, r"0 distinct.*1e\+12 FLOPs \(its loss"),
        (LadderTable(tuple(Rung(c, 2.0 + i / 100) for i, c in enumerate(COMPUTES))), {}, "does not fall"),
        (ladder(*COMPUTES), {"floor": 3.0}, "not below every loss"),
        (ladder(*COMPUTES), {"floor": -1.0}, "not below every loss"),
        (ladder(*COMPUTES), {"precision": 0.1}, "needs a target"),
        (ladder(*COMPUTES), {"target": 1e18, "precision": 2.0}, "share between 0 and 1"),
        (ladder(*COMPUTES), {"target": 1e16}, "not beyond the ladder"),
        (ladder(*COMPUTES), {"target": float("inf")}, "not beyond the ladder"),
        (ladder(*COMPUTES), {"target": float("nan")}, "not beyond the ladder"),
    ],
)
def test_what_cannot_be_forecast_is_refused(table: LadderTable, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ForecastError, match=message):
        fit(table, **settings)


@pytest.mark.parametrize(("flops", "level"), [(0.0, 0.9), (float("inf"), 0.9), (1e18, 0.0), (1e18, 1.0)])
def test_impossible_predictions_are_refused(noisy: Forecast, flops: float, level: float) -> None:
    with pytest.raises(ForecastError, match="expected a positive number"):
        noisy.predict(flops, level)


def test_precision_beyond_the_ladder_is_refused_with_what_to_add() -> None:
    table = ladder(*COMPUTES[:6], sd=0.004, seeds=2)
    width = half_width(fit(table), 1e18)
    assert fit(table, target=1e18, precision=1.01 * width).refusal is None
    refusal = fit(table, target=1e18, precision=0.6 * width).refusal
    assert refusal is not None and refusal.add and 0 < refusal.cost < 1e18
    mended = (*table.rungs, *ladder(*(flops for flops, _ in refusal.add), sd=0.004, seeds=refusal.add[0][1]).rungs)
    assert half_width(fit(make_table(mended)), 1e18) < 0.8 * width


def test_a_bend_inside_the_ladder_is_refused() -> None:
    x = np.log(COMPUTES / 1e14)
    bent = 3 * np.exp(-0.05 * x - 0.06 * bend(x, np.zeros(1))[0])
    rng = np.random.default_rng(1)
    table = LadderTable(
        tuple(
            Rung(float(c), float(y * (1 + 1e-3 * rng.standard_normal()))) for c, y in zip(COMPUTES, bent, strict=True)
        )
    )
    refusal = fit(table).refusal
    assert refusal is not None and "bends near" in refusal.reason and "faster" in refusal.reason and refusal.add


def test_a_rung_that_went_wrong_is_told_and_moves_the_forecast_little() -> None:
    table = ladder(*COMPUTES, sd=0.001, seeds=2)
    bad = (
        rung if rung.flops != COMPUTES[5] else dataclasses.replace(rung, loss=1.03 * rung.loss) for rung in table.rungs
    )
    sound, forecast = fit(table), fit(LadderTable(tuple(bad)))
    assert forecast.predict(1e18).loss == pytest.approx(sound.predict(1e18).loss, rel=5e-3)
    assert half_width(forecast, 1e18) < 2.5 * half_width(sound, 1e18)
    (said,) = forecast.diagnostics.warnings
    assert f"{COMPUTES[5]:.3g} FLOPs is +3." in said or f"{COMPUTES[5]:.3g} FLOPs is +2." in said


def test_a_bend_too_small_to_matter_is_no_reason_to_refuse() -> None:
    """However clearly it is seen: a tenth of the exponent."""
    x = np.log(COMPUTES / 1e14)
    bent = 3 * np.exp(-0.1 * x - 0.008 * bend(x, np.zeros(1))[0])
    rng = np.random.default_rng(1)
    noise = 1 + 5e-5 * rng.standard_normal((9, 3))
    table = LadderTable(
        tuple(
            Rung(float(c), float(y * noise[i, s]), s)
            for i, (c, y) in enumerate(zip(COMPUTES, bent, strict=True))
            for s in range(3)
        )
    )
    forecast = fit(table, floor=0.0)
    assert forecast.diagnostics.bend_p < 0.01 and forecast.refusal is None


def test_the_ensemble_holds_both_what_explains_and_what_redrawn_seeds_say(noisy: Forecast) -> None:
    """The bootstrap's laws carry no spread of a of their own, the others do."""
    assert np.mean(noisy.laws.spread == 0) == pytest.approx(0.3 + 0.7 * noisy.weights["broken"], abs=0.03)


def test_what_speaks_against_the_forecast_is_said() -> None:
    sized = tuple(Rung(c, law(c), params=(c / 6) ** 0.4, tokens=(c / 6) ** 0.6) for c in COMPUTES)
    table = LadderTable(sized, excluded=((Rung(1e13, 9.0, run="r7"), "its loss 9 is 200% above"),))
    warnings = " ".join(fit(table, target=1e21).diagnostics.warnings)
    for said in (
        "No rung has two seeds",
        "5.0 decades beyond a ladder of 4.0",
        "r7 (its loss 9",
        "Tokens per parameter",
    ):
        assert said in warnings
    assert not fit(ladder(*COMPUTES, sd=0.002, seeds=2), target=1e17).diagnostics.warnings
