"""What a run was set to against its ladder's rungs: what is expected at another compute, what departs, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated import TARGET, flops, ladder, linear, run

from foretell.forecast import LadderTable, fit, read_table
from foretell.forecast.curves import curves_of, read_live
from foretell.forecast.live_chart import watch_parts
from foretell.forecast.schedules import BATCH, RATE, Expected, Schedules, departures, expect, kept
from foretell.forecast.watch import Alarm, Band, Live, watch

ENDS = np.arange(1, 51) / 50
COMPUTES = -np.array([3.0, 2.6, 2.2, 1.8, 1.4])
Shape = Callable[[float], float]


def schedules(z: float, shape: Shape = linear, factor: float = 1.0, points: int = 100) -> Schedules:
    """Learning rate ∝ compute^-0.2, batch ∝ compute^0.25, and 1,000 tokens a step at z = 0."""
    shares = [(i + 1) / points for i in range(points)]
    rate = factor * 0.01 * 10 ** (-0.2 * z)
    return {RATE: [(s, rate * shape(s)) for s in shares], BATCH: [(s, 1000 * 10 ** (0.25 * z)) for s in shares]}


def expected(spread: float = 0.0) -> dict[str, Expected]:
    rng = np.random.default_rng(0)
    return dict(expect(COMPUTES, [schedules(z, factor=float(np.exp(spread * rng.normal()))) for z in COMPUTES], ENDS))


def test_a_rule_of_compute_is_carried_to_the_target() -> None:
    wanted = expect(COMPUTES, [schedules(z) for z in COMPUTES], ENDS)
    assert wanted[RATE].values == pytest.approx([0.01 * linear(s) for s in ENDS])
    assert wanted[BATCH].values == pytest.approx([1000.0] * 50)
    assert np.array(wanted[BATCH].room) == pytest.approx(100.0)  # a tenth, where the rungs agree


def test_rungs_that_differ_leave_more_room_and_at_last_none() -> None:
    narrow, wide = expected(0.02)[RATE], expected(0.06)[RATE]
    assert max(narrow.room) < max(wide.room)
    assert RATE not in expected(0.5) and BATCH in expected(0.5)


def test_only_what_a_short_log_tells_is_kept() -> None:
    assert kept({RATE: [(0.08, 0.5), (0.5, 0.25)], BATCH: []})[RATE][0] == (0.06, 0.5)
    assert kept({RATE: [(0.08, 0.5), (0.5, 0.25)]})[RATE][-1] == (0.5, 0.25)


def test_a_quantity_that_a_rung_lacks_is_left_out() -> None:
    runs = [schedules(z) for z in COMPUTES]
    runs[2] = {RATE: runs[2][RATE]}
    assert set(expect(COMPUTES, runs, ENDS)) == {RATE}
    assert expect(COMPUTES, [{}] * 5, ENDS) == {}


def test_departures_are_counted_in_rooms_and_only_where_the_run_has_been() -> None:
    wanted = expect(COMPUTES, [schedules(z) for z in COMPUTES], ENDS)
    half = {RATE: [p for p in schedules(0.0, factor=0.5)[RATE] if p[0] <= 0.3]}
    away = departures(wanted, half, ENDS)
    assert set(away) == {RATE}
    assert away[RATE][1] == pytest.approx(-5 * linear(0.04), rel=0.03)
    assert not away[RATE][ENDS > 0.301].any()


def with_schedules() -> LadderTable:
    table = ladder()
    target = flops(TARGET)
    return replace(table, schedules={r.run: kept(schedules(float(np.log10(r.flops / target)))) for r in table.rungs})


@pytest.fixture(scope="module")
def band() -> Band:
    table = with_schedules()
    return Band.from_json(json.loads(json.dumps(watch(table, fit(table), flops(TARGET)).to_json())))


@pytest.fixture(scope="module")
def sound() -> list[tuple[float, float]]:
    return run(TARGET, 900)[0]


def check(band: Band, curve: list[tuple[float, float]], set_to: Schedules) -> list[Alarm]:
    return [alarm for alarm in band.check(curve, set_to) if alarm.share <= 0.3]


def test_a_sound_run_is_left_alone(band: Band, sound: list[tuple[float, float]]) -> None:
    for points in (30, 100, 400):
        assert band.check(sound, schedules(0.0, points=points)) == []


@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        (linear, 0.5),
        (linear, 2.0),
        (lambda s: min(s / 0.02, 1.0), 1.0),
        (lambda s: min(s / 0.2, 1.0) * (1 - s), 1.0),
        (lambda s: min(s / 0.02, 1.0) * (1 - s) ** 2, 1.0),
    ],
    ids=["half", "double", "constant", "long warm-up", "falls faster"],
)
def test_a_wrong_rate_or_schedule_is_told_by_its_log_alone(
    band: Band, sound: list[tuple[float, float]], shape: Shape, factor: float
) -> None:
    wrong = {RATE: schedules(0.0, shape, factor)[RATE]}
    (alarm, *_) = check(band, sound, wrong)
    assert alarm.reason == RATE and "times the" in alarm.text


def test_a_loss_that_departs_at_the_right_rate_is_laid_to_the_data(band: Band) -> None:
    behind = [(share, 1.3 * loss) for share, loss in run(TARGET, 900)[0]]
    (alarm, *_) = check(band, behind, {RATE: schedules(0.0)[RATE]})
    assert alarm.reason == "data" and "at the rungs' own learning rate" in alarm.text
    (alarm, *_) = check(band, behind, {})
    assert alarm.reason == "learning rate"


def test_a_batch_of_another_size_is_told(band: Band, sound: list[tuple[float, float]]) -> None:
    (alarm, *_) = check(band, sound, {BATCH: [(s, y / 4) for s, y in schedules(0.0)[BATCH]]})
    assert alarm.reason == BATCH and "0.25 times" in alarm.text and alarm.share <= 0.04


def test_a_band_without_schedules_is_written_and_judged_as_before(sound: list[tuple[float, float]]) -> None:
    table = ladder()
    band = watch(table, fit(table), flops(TARGET))
    assert band.check(sound, schedules(0.0, factor=0.1)) == []
    older = {key: value for key, value in band.to_json().items() if key != "schedules"}
    assert Band.from_json(older) == band
    assert "schedules" not in table.to_json()


def test_a_table_keeps_its_schedules() -> None:
    table = with_schedules()
    again = LadderTable.from_json(json.loads(json.dumps(table.to_json())))
    assert again.digest == table.digest != ladder().digest


def test_a_live_run_is_stopped_for_its_rate(band: Band, sound: list[tuple[float, float]]) -> None:
    live = Live(band, stop=True)
    said = []
    for i, (share, loss) in enumerate(sound):
        line = {"step": i + 1, "tokens": 1000 * (i + 1), "loss": loss, "bits_per_byte": loss}
        line["lr"] = 0.005 * linear(share)
        said += live(share, line)
    assert said[0]["reason"] == RATE and said[0]["share"] <= 0.06


def test_learning_rate_and_batch_are_read_from_a_trainers_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"event": "start", "steps": 40}] + [
        {"event": "train", "step": s, "tokens": 64 * s, "loss": 2.0, "bits_per_byte": 1.0, "lr": 0.1 * s}
        for s in (10, 20)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, found = curves_of(log)
    assert found == {RATE: [(0.25, 1.0), (0.5, 2.0)], BATCH: [(0.25, 64.0), (0.5, 64.0)]}


def test_the_learning_rate_is_read_from_anyones_logs(tmp_path: Path) -> None:
    rungs = "".join(
        f"{c:g},w{c:g},{step},{2 + 1 / step},{0.01 * (1 - step / 40)}\n" for c in (1e12, 1e13) for step in range(1, 41)
    )
    (tmp_path / "rungs.csv").write_text("flops,run,step,val_loss,train/learning_rate\n" + rungs)
    table = read_table(tmp_path / "rungs.csv")
    assert dict(table.schedules["w1e+12"][RATE])[0.5] == pytest.approx(0.005, rel=0.01)
    (tmp_path / "live.csv").write_text("step,loss,lr\n1,3,0.01\n2,2,\n4,2,0.02\n")
    points, found = read_live(tmp_path / "live.csv", 8)
    assert len(points) == 3 and found == {RATE: [(0.125, 0.01), (0.5, 0.02)]}


def test_a_band_that_can_tell_nothing_says_so(band: Band, sound: list[tuple[float, float]]) -> None:
    wide = replace(band, low=tuple(c / 9 for c in band.centre), high=tuple(9 * c for c in band.centre))
    assert wide.is_blind and not band.is_blind
    assert "scatter too much" in "".join(map(str, watch_parts(wide, sound)))
    assert "scatter too much" not in "".join(map(str, watch_parts(band, sound)))


def test_the_page_shows_what_the_run_was_set_to(band: Band, sound: list[tuple[float, float]]) -> None:
    html = "".join(map(str, watch_parts(band, sound[:60], schedules(0.0, factor=0.5))))
    assert "Learning rate" in html and "tokens a step" in html and "0.5 times the" in html
