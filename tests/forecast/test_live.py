"""The watch beside a run: an observer that says each alarm once, and curves out of the trainer's log."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.errors import ForecastError
from foretell.forecast import Forecast, LadderTable
from foretell.forecast.curves import curves_of, read_live
from foretell.forecast.schedules import Point, Schedules
from foretell.forecast.watch import Alarm, Band, Live, _carried, _noise, watch

SHARES = tuple((i + 1) / 50 for i in range(50))


class Counted(Band):
    """A band around 2, of 5 %, that counts how often it is asked."""

    asked: list[int] = []  # noqa: RUF012

    def check(self, points: Sequence[Point], seen: Schedules | None = None) -> list[Alarm]:
        self.asked.append(len(points))
        return super().check(points, seen)


@pytest.fixture
def band() -> Band:
    Counted.asked.clear()
    return Counted(SHARES, (2.0,) * 50, (1.9,) * 50, (2.1,) * 50, unit="nats per token")


def line(loss: float | str | None) -> dict[str, Any]:
    return {"loss": loss, "bits_per_byte": 9.0}


def test_each_stretch_is_said_once_and_as_the_whole_curve_says_it(band: Band) -> None:
    losses = [2.0 if i < 60 or 120 <= i < 300 else 2.3 for i in range(400)]
    live = Live(band)
    said = [found for i, loss in enumerate(losses) for found in live((i + 1) / 400, line(loss))]
    whole = Band.check(band, [((i + 0.5) / 400, loss) for i, loss in enumerate(losses)])
    assert len(whole) == 2 == len(said)
    for found, alarm in zip(said, whole, strict=True):
        assert {key: found[key] for key in ("share", "loss", "low", "high")} == {
            key: value for key, value in alarm._asdict().items() if key not in ("reason", "text")
        }
        assert found["stop"] is False and found["text"] and json.dumps(found)


def test_it_is_judged_once_a_bin_so_that_training_is_not_slowed(band: Band) -> None:
    live = Live(band)
    for i in range(5000):
        live((i + 1) / 5000, line(2.0))
    assert len(Counted.asked) <= 50


def test_a_loss_that_is_not_finite_is_said_at_once(band: Band) -> None:
    live = Live(band, stop=True)
    for i in range(40):
        assert live((i + 1) / 400, line(2.0)) == []
    assert live(41 / 400, line(None)) == []  # every step of that line was dropped
    (found,) = live(42 / 400, line("nan"))
    assert found["reason"] == "divergence" and found["stop"] is True
    assert live(43 / 400, line(2.0)) == []


def test_the_unit_is_the_bands(band: Band) -> None:
    live = Live(Band.from_json(band.to_json() | {"unit": "bits per byte"}))
    assert any(live((i + 1) / 400, line(2.0)) for i in range(100))


def test_a_live_loss_is_the_one_of_the_rungs(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,val_loss,train/loss\n10,3,4\n")
    assert read_live(log, 100)[0] == [(0.1, 3.0)] and read_live(log, 100, like="train_loss")[0] == [(0.1, 4.0)]
    assert read_live(log, 100, named={"loss": "train/loss"}, like="val_bpb")[0] == [(0.1, 4.0)]
    with pytest.raises(ForecastError, match=r"curves are of val_bpb, which .* does not have"):
        read_live(log, 100, like="val_bpb")


@pytest.mark.parametrize(
    "text",
    ["step,loss,lr\n10,3.5,0.1\n20,3.25,0.1\n30,3.", '{"step": 10, "loss": 3.5}\n{"step": 20, "loss": 3.25}\n{"st'],
)
def test_a_line_that_is_still_written_is_left_out(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    assert read_live(log, 100)[0] == [(0.1, 3.5), (0.2, 3.25)]
    log.write_text(text[:4] if text[0] == "{" else text[:13])
    assert read_live(log, 100) == ([], {})


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


def test_a_curve_stands_in_the_middle_of_what_a_line_sums_up(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.jsonl",
        [
            {"event": "start", "step": 0, "steps": 40},
            {"event": "train", "step": 10, "loss": 3.0, "bits_per_byte": 2.0},
            {"event": "eval", "step": 10, "loss": 9.0, "bits_per_byte": 9.0},
            {"event": "resume", "step": 10, "steps": 40},
            {"event": "train", "step": 20, "loss": None, "bits_per_byte": None},
            {"event": "train", "step": 30, "loss": "nan", "bits_per_byte": 1.0},
            {"event": "train", "step": 30, "loss": 2.5, "bits_per_byte": 1.0},
            {"event": "train", "step": 40, "loss": 2.0, "bits_per_byte": None},
        ],
    )
    (first, middle, last), _ = curves_of(log)
    assert (first, last) == ((0.125, 3.0), (0.875, 2.0)) and middle[0] == 0.625 and math.isnan(middle[1])
    assert curves_of(log, "bits per byte")[0] == [(0.125, 2.0), (0.625, 1.0)]
    assert read_live(log, 40, "bits per byte")[0] == [(0.125, 2.0), (0.625, 1.0)]  # not the evaluation's 9.0
    assert curves_of(tmp_path / "none.jsonl") == ([], {})


def test_a_coarse_log_is_judged_from_where_it_begins(band: Band) -> None:
    coarse = [((i + 0.5) / 12, 2.3) for i in range(12)]
    assert [alarm.share for alarm in Band.check(band, coarse)] == [0.08]  # the first bin that it covers
    assert Band.check(band, coarse[2:]) == []


@pytest.mark.parametrize("bad", [{"step": "x", "loss": 1.0}, {"loss": 1.0}, {"step": 1, "loss": []}, {"step": 1}])
def test_a_damaged_log_is_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    log = write(tmp_path / "log.jsonl", [{"event": "start", "steps": 4}, {"event": "train", **bad}])
    with pytest.raises(ForecastError, match=r"log\.jsonl is no log of a training run"):
        curves_of(log)


def test_a_band_says_the_unit_of_its_curves(ladder: LadderTable, forecast: Forecast) -> None:
    other = LadderTable(ladder.rungs, ladder.unit, {"curve unit": "nats per token"}, curves=ladder.curves)
    assert watch(other, forecast, 1e18).unit == "nats per token"
    assert watch(ladder, forecast, 1e18).unit == ladder.unit == "bits per byte"


def test_noise_that_falls_with_compute_is_seen_from_repeats() -> None:
    rng = np.random.default_rng(0)
    z = np.repeat(np.linspace(-3, -1, 9), 4)
    y = rng.normal(size=(36, 40)) * np.exp(-1.0 * (z + 1))[:, None]  # sd e-fold, variance two e-folds a decade
    relative = _noise(z, y)
    assert relative[-1] == pytest.approx(1.0, abs=0.05)
    assert relative[0] == pytest.approx(math.exp(4.0), rel=0.5)
    assert (_noise(z[::4], y[::4]) == 1).all()  # without repeats nothing is known of it


def test_rungs_with_less_noise_count_for_more() -> None:
    z = np.repeat(np.linspace(-3, -1, 9), 4)
    noise = np.exp(-2.0 * (z + 1))
    flat, weighted = [], []
    for seed in range(40):
        y = 0.1 * z[:, None] + 0.01 * np.random.default_rng(seed).normal(size=(36, 3)) * np.sqrt(noise)[:, None]
        flat.append(_carried(z, y)[0])
        value, error = _carried(z, y, noise)
        weighted.append(value)
    assert np.std(weighted) < 0.9 * np.std(flat)
    assert 0.01 < error.mean() < 0.03
