"""The published ladders are whole and sourced; back-tests hide what they should and leave no outcome out."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import backtests
from foretell.forecast import LadderTable, Rung, read_table

LADDERS = sorted(backtests.LADDERS.glob("*.csv"))
README = (backtests.LADDERS / "README.md").read_text(encoding="utf-8")
OVERVIEW = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (\d+) \| (\S+) to (\S+) \|", README, re.M)}
SOURCED = {name for names in re.findall(r"^\*\*([a-z\d_, ]+)\.\*\*", README, re.M) for name in names.split(", ")}


@pytest.mark.parametrize("path", LADDERS, ids=lambda path: path.stem)
def test_published_ladder_is_read_whole(path: Path) -> None:
    table = read_table(path)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    entered = sorted((float(row["flops"]), float(row["loss"])) for row in rows)
    rungs = [*table.rungs, *(rung for rung, _ in table.excluded)]
    assert sorted((rung.flops, rung.loss) for rung in rungs) == entered
    assert {row["unit"] for row in rows} == {table.unit}
    assert len({rung.flops for rung in table.rungs}) >= 5
    assert len({row["run"] for row in rows}) == len(rows)
    for row in filter(lambda row: row["params"] and row["tokens"], rows):
        # A misplaced digit would show: every count of training compute is near 6 · params · tokens.
        assert 0.6 < float(row["flops"]) / (6 * float(row["params"]) * float(row["tokens"])) < 2


@pytest.mark.parametrize("path", LADDERS, ids=lambda path: path.stem)
def test_published_ladder_has_its_source(path: Path) -> None:
    rungs = read_table(path).rungs
    runs, low, high = OVERVIEW[path.stem]
    assert int(runs) == len(rungs)
    assert (float(low), float(high)) == pytest.approx((rungs[0].flops, rungs[-1].flops), rel=0.04)
    assert path.stem in SOURCED


def test_every_ladder_of_the_overview_is_there() -> None:
    assert sorted(OVERVIEW) == [path.stem for path in LADDERS]


def test_cuts_hide_the_top_and_more_of_it_each_once() -> None:
    computes = [10.0**exponent for exponent in (16, 16.5, 17, 17.5, 18, 18.5, 19)]
    table = LadderTable(tuple(Rung(flops, 3.0, seed) for flops in computes for seed in (0, 1)))
    kept = [sorted({rung.flops for rung in cut.rungs}) for cut in backtests.cuts(table)]
    assert kept == [computes[:6], computes[:5]]  # 0.5 decades hide the top alone; 1.5 would leave four
    assert all(len(cut.rungs) == 2 * len(flops) for cut, flops in zip(backtests.cuts(table), kept, strict=True))


def test_a_clean_law_is_a_hit_and_several_runs_at_the_top_count_as_their_mean() -> None:
    law = [(10**e, 1.5 + 2 * (10**e / 1e16) ** -0.2) for e in (16, 16.5, 17, 17.5, 18, 18.5, 19)]
    low, high = Rung(*law[-1]), Rung(law[-1][0], law[-1][1] + 0.002, 1)
    table = LadderTable((*(Rung(*point) for point in law[:-1]), low, high))
    first, *_ = backtests.back_test("clean", table)
    assert (first.rungs, first.decades, first.refusal) == (6, pytest.approx(0.5), None)
    assert first.actual == pytest.approx(law[-1][1] + 0.001)
    assert first.error == pytest.approx(0, abs=0.2)
    found = backtests.figures([first])["clean_0.50_decades_error_pct"]
    assert (found["value"], found["actual"]) == (pytest.approx(first.error, rel=1e-3), first.actual)


def test_refusals_are_counted_apart_and_keep_their_reason() -> None:
    table = LadderTable(tuple(Rung(10.0**e, 20.0 / e, 0) for e in (16, 17, 18, 19, 20)))
    (case,) = backtests.back_test("short", table)
    assert case.prediction is None
    assert "at least 5" in case.refusal
    found = backtests.figures([case])
    assert (found["forecasts"]["value"], found["refusals"]["value"], found["hits"]["value"]) == (0, 1, 0)
    assert "coverage_90_pct" not in found
    (row,) = [line for line in backtests.table(found).splitlines() if line.startswith("| short")]
    assert row.endswith("| refused (1) |")
    assert f"1. {case.refusal}" in backtests.table(found)


def test_page_keeps_what_is_written_around_its_table() -> None:
    prediction = backtests.Prediction(1e20, 2.02, 1.98, 2.06, 0.9)
    hit = backtests.Case("a_b", 7, 0.5, 2.0, prediction, None)
    miss = backtests.Case("a_b", 6, 1.0, 2.1, prediction, None)
    refused = backtests.Case("a_b", 5, 1.5, 2.1, prediction, "too noisy")
    found = backtests.figures([hit, miss, refused])
    assert (found["hits"]["value"], found["misses"]["value"], found["coverage_90_pct"]["value"]) == (1, 1, 50)
    written = backtests.page(f"before {backtests.BEGIN} old {backtests.END} after", found)
    assert written.startswith("before ")
    assert written.endswith(" after")
    assert " old " not in written
    assert "2 forecasts on 1 ladders, 1 hits, 1 misses; 1 refused." in written
    assert "| a_b | 7 | 0.50 | 2 | 2.02 | 1.98 to 2.06 | +1.00 % | hit |" in written
    assert "**miss**" in written
    assert "refused (1), would be a **miss**" in written
    assert backtests.page(written, found) == written


def test_committed_outcomes_are_on_the_page_and_cover_every_ladder() -> None:
    found = json.loads((backtests.RESULTS / "backtests.json").read_text(encoding="utf-8"))["figures"]
    text = backtests.PAGE.read_text(encoding="utf-8")
    assert backtests.page(text, found) == text, "run: python benchmarks/backtests.py --page"
    assert found["ladders"]["value"] == len(LADDERS)
    assert all(any(name.startswith(f"{ladder.stem}_") for name in found) for ladder in LADDERS)
