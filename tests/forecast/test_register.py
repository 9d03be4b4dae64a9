"""Records: written once, chained, compared once they are due; no byte can be changed unseen."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as replace_fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretell.errors import ForecastError
from foretell.forecast import Forecast, LadderTable, ledger
from foretell.forecast.fitting import Advice
from foretell.forecast.register import Claim, Record, bundle, check_before, read, register, verify

TARGET = 1e18


@pytest.fixture
def path(tmp_path: Path, ladder: LadderTable, forecast: Forecast) -> Path:
    """A registered forecast beside another one, with one outcome."""
    folder = tmp_path / "records"
    register(folder / "first.json", ladder, forecast, target=TARGET)
    claims = [Claim("pass rate, bucket 1", 0.5, 0.4, 0.6, 0.9)]
    register(folder / "second.json", ladder, forecast, target=2 * TARGET, recipe="ab" * 32, capabilities=claims)
    verify(folder / "second.json", forecast.predict(2 * TARGET).loss * 1.001)
    return folder / "second.json"


def test_record_holds_forecast_table_and_circumstances(path: Path, ladder: LadderTable, forecast: Forecast) -> None:
    record = read(path)
    predicted = forecast.predict(2 * TARGET)
    assert record.claims[0] == Claim("loss", predicted.loss, predicted.low, predicted.high, 0.9)
    assert record.table() == ladder and record.forecast().predict(3e19) == forecast.predict(3e19)
    assert record.target == 2 * TARGET and record.raw["recipe"] == "ab" * 32
    assert datetime.fromisoformat(record.utc).utcoffset() == timedelta(0)
    assert record.raw["code"] and "outcome" in record.raw["stop_rule"]
    assert record.raw["previous"] == record.entries[0]["hash"]


def test_record_is_read_only_and_never_overwritten(path: Path, ladder: LadderTable, forecast: Forecast) -> None:
    assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    before = path.read_bytes()
    with pytest.raises(ForecastError, match="registered before"):
        register(path, ladder, forecast, target=TARGET)
    assert path.read_bytes() == before
    (path.parent / "mine.txt").write_text("notes")
    with pytest.raises(ForecastError, match="exists"):
        register(path.parent / "mine.txt", ladder, forecast, target=TARGET)
    assert (path.parent / "mine.txt").read_text() == "notes"
    path.unlink()
    with pytest.raises(ForecastError, match="registered before"):  # else a miss could be made to disappear
        register(path, ladder, forecast, target=TARGET)


def test_outcomes_are_hits_or_misses_and_all_stay(path: Path) -> None:
    claim = read(path).claims[0]
    verify(path, claim.high * 1.001)
    verify(path, claim.high)
    record = verify(path, float("nan"), {"pass rate, bucket 1": 0.55})
    assert [outcome.hit for outcome in record.outcomes] == [True, False, True, False, True]
    assert record.outcomes == read(path).outcomes
    assert record.outcomes[1].error == pytest.approx((claim.value - claim.high * 1.001) / (claim.high * 1.001))
    assert record.outcomes[3].measured is None and record.outcomes[3].error is None
    assert read(path.with_name("first.json")).outcomes == []


@pytest.mark.parametrize(
    ("loss", "others", "message"), [(-1.0, {}, "not possible"), (2.0, {"bucket 9": 1.0}, "bucket 9")]
)
def test_impossible_outcomes_leave_the_ledger_as_it_was(
    path: Path, loss: float, others: dict[str, float], message: str
) -> None:
    before = path.with_name(ledger.LEDGER).read_bytes()
    with pytest.raises(ForecastError, match=message):
        verify(path, loss, others)
    assert path.with_name(ledger.LEDGER).read_bytes() == before


def flipped(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["second.json", ledger.LEDGER, ledger.HEAD, "bundle"])
def test_any_changed_byte_is_found_and_named(path: Path, name: str) -> None:
    out = path.with_name("bundle")
    bundle(path, out)
    asked, victim = (out if name == "bundle" else path), path.with_name(name)
    data, chance = victim.read_bytes(), random.Random(5)
    places = range(len(data)) if len(data) < 300 else sorted(chance.sample(range(len(data)), 300))
    for at in places:
        replace(victim, flipped(data, at, 1 << chance.randrange(8)))
        with pytest.raises(ForecastError, match=victim.name):
            read(asked)
    for changed in (data + b" ", data + b"\n", data[:-1], data[1:], b""):
        replace(victim, changed)
        with pytest.raises(ForecastError, match=victim.name):
            read(asked)
    replace(victim, data)
    assert read(asked).sha256 == read(path).sha256


def test_the_changed_field_and_line_are_named(path: Path) -> None:
    raw = json.loads(path.read_bytes())
    raw["claims"][0]["high"] += 0.5
    raw["stop_rule"] = "When it looks good."
    replace(path, ledger.canonical(raw))
    with pytest.raises(ForecastError, match=r"claims, stop_rule differs"):
        read(path)
    book = path.with_name(ledger.LEDGER)
    lines = book.read_bytes().splitlines(keepends=True)
    replace(book, b"".join([*lines[:2], lines[2].replace(b'"hit"', b'"miss"')]))
    with pytest.raises(ForecastError, match=r"Line 3 of .*ledger\.jsonl was altered"):
        read(path)


def test_lines_cannot_be_removed_moved_or_rewritten(path: Path) -> None:
    book = path.with_name(ledger.LEDGER)
    lines = book.read_bytes().splitlines(keepends=True)
    outcome = json.loads(lines[2])

    def forge(line: dict[str, object], **changed: object) -> bytes:
        body = {key: value for key, value in line.items() if key != "hash"} | changed
        return ledger.canonical({**body, "hash": ledger.sha256(ledger.canonical(body))})

    for kept, message in [
        (lines[:2], "cut off"),
        (lines[:1] + lines[2:], "broken at line 2"),
        ([lines[1], lines[0], lines[2]], "broken at line 1"),
        ([*lines[:2], forge(outcome, measured=1.0)], "last one written"),
        ([lines[0], forge(json.loads(lines[1]), utc=outcome["utc"]), lines[2]], "broken at line 3"),
        ([*lines, lines[2]], "broken at line 4"),
    ]:
        replace(book, b"".join(kept))
        with pytest.raises(ForecastError, match=message):
            read(path)
        with pytest.raises(ForecastError, match=message):
            verify(path, 2.0)
    replace(book, b"".join(lines))
    for name in (ledger.LEDGER, ledger.HEAD):
        path.with_name(name).rename(path.with_name("away"))
        with pytest.raises(ForecastError, match=f"{name} is missing"):
            read(path)
        path.with_name("away").rename(path.with_name(name))


def test_a_process_that_ends_before_the_head_is_written_does_no_harm(path: Path) -> None:
    head = path.with_name(ledger.HEAD)
    before = head.read_bytes()
    verify(path, 2.5)
    replace(head, before)
    assert len(read(path).outcomes) == 2
    assert len(verify(path, 2.6).outcomes) == 3


def test_two_who_write_at_once_wait_for_each_other(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(verify, path, 2.0 + i / 100) for i in range(8)]:
            result.result()
    assert len(read(path).outcomes) == 1 + 8


def test_a_full_disk_leaves_no_record_and_a_whole_ledger(
    path: Path, ladder: LadderTable, forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = ledger.read_ledger(path.parent)
    real = os.fsync

    def full(handle: int) -> None:
        if "ledger" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ForecastError, match="disk is full"):
        register(path.with_name("third.json"), ladder, forecast, target=TARGET)
    monkeypatch.undo()
    assert ledger.read_ledger(path.parent) == entries and not path.with_name("third.json").exists()
    register(path.with_name("third.json"), ladder, forecast, target=TARGET)


def test_target_takes_only_an_older_record_of_its_own_recipe(path: Path) -> None:
    made = datetime.fromisoformat(read(path).utc)
    assert check_before(path, made + timedelta(microseconds=1), "ab" * 32).target == 2 * TARGET
    assert check_before(path, (made + timedelta(hours=1)).isoformat()).name == "second.json"
    for begun in (made, made - timedelta(days=1)):
        with pytest.raises(ForecastError, match="not before the run's first step"):
            check_before(path, begun, "ab" * 32)
    later = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(ForecastError, match="recipe abababababab, but this run's recipe is cdcdcdcdcdcd"):
        check_before(path, later, "cd" * 32)
    with pytest.raises(ForecastError, match="registered for no recipe"):
        check_before(path.with_name("first.json"), later, "cd" * 32)
    with pytest.raises(ForecastError, match="missing"):
        check_before(path.with_name("third.json"), later)
    with pytest.raises(ForecastError, match="not registered"):
        check_before(Path(shutil.copy(path, path.with_name("third.json"))), later)
    replace(path, path.read_bytes().replace(b"2e+18", b"3e+18"))
    with pytest.raises(ForecastError, match="target_flops differs"):
        check_before(path, later)


def test_bundle_is_checked_alone_and_the_same_every_time(path: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "one.json", tmp_path / "b" / path.name
    digest = bundle(path, one)
    assert bundle(path, two) == digest == ledger.sha256(one.read_bytes())
    before = read(path)
    shutil.rmtree(path.parent)
    after = read(one)
    assert (after.sha256, after.outcomes, after.table()) == (before.sha256, before.outcomes, before.table())
    for place in (one, two):
        with pytest.raises(ForecastError, match="bundle"):
            verify(place, 2.0)
    one.write_bytes(ledger.canonical({**json.loads(one.read_bytes()), "note": "added"}))
    with pytest.raises(ForecastError, match="not in the form"):
        read(one)


def forge(path: Path, ladder: LadderTable, **changed: object) -> Record:
    """A record that its maker registered with other content than `register` writes."""
    raw = {**json.loads(path.read_bytes()), **changed}
    data = ledger.canonical(raw)
    forged = path.with_name("forged.json")
    with ledger.opened(path.parent) as entries:
        ledger.create(forged, data)
        entry = {"kind": "registered", "record": forged.name, "sha256": ledger.sha256(data), "fields": {}}
        ledger.append(path.parent, entries, entry)
    return read(forged)


def test_a_claim_that_does_not_follow_from_the_forecast_is_refused(path: Path, ladder: LadderTable) -> None:
    claim = {"name": "loss", "value": 1.0, "low": 0.5, "high": 9.0, "level": 0.9}
    with pytest.raises(ForecastError, match="its own forecast gives"):
        forge(path, ladder, claims=[claim])


def test_another_table_than_was_fitted_is_refused(path: Path, ladder: LadderTable, forecast: Forecast) -> None:
    other = LadderTable(ladder.rungs[:-1], ladder.unit)
    with pytest.raises(ForecastError, match="not the one its forecast was fitted to"):
        forge(path, ladder, table=other.to_json())
    with pytest.raises(ForecastError, match="Fit it to the table"):
        register(path.with_name("third.json"), other, forecast, target=TARGET)


@pytest.mark.parametrize("changed", [{"claims": []}, {"forecast": 3}, {"utc": "soon"}, {"table": None}])
def test_records_of_an_unknown_form_are_refused(path: Path, ladder: LadderTable, changed: dict[str, object]) -> None:
    with pytest.raises(ForecastError, match="no forecast record"):
        forge(path, ladder, **changed)


def test_only_a_run_to_come_is_registered(path: Path, ladder: LadderTable, forecast: Forecast) -> None:
    with pytest.raises(ForecastError, match="not beyond the ladder"):
        register(path.with_name("third.json"), ladder, forecast, target=ladder.rungs[-1].flops)


def test_a_refused_forecast_is_registered_only_on_demand(path: Path, ladder: LadderTable, forecast: Forecast) -> None:
    refused = replace_fields(forecast, refusal=Advice("a bend inside the ladder", ((1e16, 2),), 2e16))
    with pytest.raises(ForecastError, match="do not support this forecast: a bend"):
        register(path.with_name("third.json"), ladder, refused, target=TARGET)
    kept = register(path.with_name("third.json"), ladder, refused, target=TARGET, anyway=True)
    assert kept.forecast().to_json() == refused.to_json()
