"""The run page's forecast: what was registered, the live curve with its alarms, and what it came to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import fake_run

from foretell.forecast import LadderTable, Rung, fit
from foretell.forecast.register import Claim, Record, register, verify
from foretell.forecast.watch import Band, watch
from foretell.report.run_page import write_page
from test_pages import check_page

TARGET, STEPS = 1e15, 400
SHARES = [(i + 0.5) / 100 for i in range(100)]


def shape(final: float, share: float, wobble: float = 0.0) -> float:
    return final * (0.9 + 0.3 * share**-0.3 * (1 - share) ** 0.2) * (1 + wobble * math.sin(97 * share))


@pytest.fixture(scope="module")
def ladder() -> LadderTable:
    rungs = [
        Rung(10 ** (11 + i / 4), (30 * 10 ** (-0.1 * (11 + i / 4)) + 1.2) * (1 + 0.002 * math.sin(5 * i)), run=f"w{i}")
        for i in range(12)
    ]
    curves = {
        rung.run: tuple((x, shape(rung.loss, x, 0.003 * math.cos(i))) for x in SHARES) for i, rung in enumerate(rungs)
    }
    return LadderTable(tuple(rungs), "bits per byte", {"curve unit": "nats per token"}, curves=curves)


@pytest.fixture
def record(tmp_path: Path, ladder: LadderTable) -> Record:
    forecast = fit(ladder)
    curve = watch(ladder, forecast, TARGET).to_json()
    path = fake_run(tmp_path, steps=40) / "forecasts" / "quickstart-001.json"
    return register(path, ladder, forecast, target=TARGET, curve=curve, anyway=True)


def log(record: Record, until: float, off: float = 1.0) -> None:
    """Training lines along the expected curve; from 12 % of the run on `off` times as high."""
    band = Band.from_json(record.raw["curve"])
    assert band.unit == "nats per token" and record.folder is not None
    lines = [{"event": "start", "step": 0, "steps": STEPS}]
    for step in range(4, round(until * STEPS) + 1, 4):
        share = (step - 2) / STEPS
        loss = shape(record.claims[0].value, share) * (off if share > 0.12 else 1.0)
        lines.append({"event": "train", "step": step, "tokens": step * 4096, "loss": loss, "bits_per_byte": 9.9})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (record.folder.parent / "pretrain" / "log.jsonl").write_text(text)


def page_text(record: Record) -> str:
    assert record.folder is not None
    return check_page(write_page(record.folder.parent).read_text(encoding="utf-8")).text


def test_a_sound_run_is_shown_within_its_band(record: Record) -> None:
    log(record, 0.5)
    text = page_text(record)
    assert "A run of 10¹⁵ FLOPs will reach" in text and "The outcome is still open." in text
    assert "No alarm in the 50\u202f% of the run so far." in text and "ALARM" not in text
    assert "nats per token" in text and record.sha256[:16] in text


def test_alarms_stand_at_the_head_and_in_the_section(record: Record) -> None:
    log(record, 0.5, off=1.2)
    text = page_text(record)
    assert "ALARM at 14\u202f% of the run: the loss leapt at 14% of the run and stayed up: bad data" in text
    assert text.count("bad data from there on") == 2


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (lambda claim: claim.value * 1.001, "inside the interval; the forecast is off by −0.10\u202f%."),
        (lambda claim: claim.high * 2, "outside the interval"),
        (lambda claim: math.nan, "The run diverged: a miss."),
    ],
)
def test_the_first_outcome_and_its_error_are_told(
    record: Record, measured: Callable[[Claim], float], told: str
) -> None:
    log(record, 1.0)
    assert record.folder is not None
    path = record.folder / record.name
    for value in (measured(record.claims[0]), record.claims[0].value):
        verify(path, value)
        assert told in page_text(record), "what is noted later does not replace it"
    assert ("miss: " in page_text(record)) == ("inside" not in told)


def test_a_run_that_has_not_begun_or_has_no_curves_says_so(record: Record, ladder: LadderTable) -> None:
    assert record.folder is not None
    (record.folder.parent / "pretrain" / "log.jsonl").unlink()
    assert "Missing: pre-training has not logged a step." in page_text(record)
    bare = LadderTable(ladder.rungs, ladder.unit)
    register(record.folder / "second.json", bare, fit(bare), target=TARGET, anyway=True)
    assert "The ladder has no curves" in page_text(record)


def test_altered_records_and_damaged_logs_are_told(record: Record) -> None:
    assert record.folder is not None
    (record.folder.parent / "pretrain" / "log.jsonl").write_text('{"event": "train", "step": "x"}\n')
    assert "is no log of a training run" in page_text(record)
    path = record.folder / record.name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"unit":"bits per byte"', b'"unit":"bits per bit!"'))
    assert "was altered after it was registered" in page_text(record)


def test_a_run_without_a_forecast_has_no_section(tmp_path: Path) -> None:
    html = write_page(fake_run(tmp_path, steps=40)).read_text(encoding="utf-8")
    assert "<h2>Forecast" not in html and "The outcome is still open" not in html
