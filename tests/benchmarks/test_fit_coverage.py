"""The interval holds as often as it says, on ladders whose law is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import fit_coverage


def test_the_same_seed_gives_the_same_ladders_of_every_law() -> None:
    one, two = (list(fit_coverage.ladders(len(fit_coverage.LAWS), seed=3)) for _ in range(2))
    assert one == two and tuple(ladder.law for ladder in one) == fit_coverage.LAWS
    for ladder in one:
        computes = sorted({rung.flops for rung in ladder.table.rungs})
        assert len(computes) == ladder.rungs >= 5
        assert np.log10(computes[-1] / computes[0]) == pytest.approx(ladder.span)
        assert np.log10(ladder.target / computes[-1]) == pytest.approx(ladder.decades)


def test_figures_leave_refused_forecasts_out_and_count_them() -> None:
    ladders = list(fit_coverage.ladders(3, seed=1))
    results = [
        fit_coverage.Judged(ladders[0], True, True, False, 0.02),
        fit_coverage.Judged(ladders[1], False, False, False, 0.04),
        fit_coverage.Judged(ladders[2], False, False, True, 0.5),
    ]
    found = fit_coverage.summary(results)
    names = ("coverage_90_pct", "ladders", "refused", "median_half_width_pct")
    assert [found[name]["value"] for name in names] == [50, 2, 1, 3]
    assert found["law_no_floor_coverage_pct"]["value"] == 100 and found["law_floor_coverage_pct"]["value"] == 0
    assert "law_floor_near_the_top_coverage_pct" not in found


@pytest.mark.slow
def test_the_interval_holds_as_often_as_it_says() -> None:
    """With floors, bends and seed noise: between 85 and 95 of 100 times, on the ladders of the committed figures."""
    rows = [row for row in fit_coverage.judge(1600) if not row.refused]
    assert len(rows) >= 200
    assert 0.85 <= np.mean([row.inside for row in rows]) <= 0.95
