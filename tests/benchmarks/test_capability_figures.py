"""The committed figures of a capability forecast, from its record."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import forecast_capability
from foretell.forecast import LadderTable, Rung, fit
from foretell.forecast.buckets import MEAN, bucket_name
from foretell.forecast.register import Claim, register, verify


def test_figures_are_those_of_the_record(tmp_path: Path) -> None:
    flops = [1e10, 3e10, 1e11, 3e11, 1e12, 2e12]
    table = LadderTable(tuple(Rung(c, 5 * c**-0.05, 0, f"w{i}") for i, c in enumerate(flops)), "bits per byte")
    claims = [Claim(bucket_name(i), 0.1 * (i + 1), 0.05 * (i + 1), 0.2 * (i + 1), 0.9) for i in range(6)]
    claims.append(Claim(MEAN, 0.8, 0.7, 0.9, 0.9))
    found = fit(table)
    path = tmp_path / "record.json"
    register(path, table, found, target=1e14, capabilities=claims, anyway=True)
    outcomes = {bucket_name(i): 0.1 * (i + 1) for i in range(5)} | {bucket_name(5): float("inf"), MEAN: 0.75}
    figures = forecast_capability.figures_of(verify(path, 1.0, outcomes))
    value = {name: figure["value"] for name, figure in figures.items()}
    assert value["compute_ratio"] == 50
    assert (value["buckets"], value["buckets_covered"]) == (6, 5)
    assert value["mean_pass_rel_error_pct"] == pytest.approx(100 * 0.05 / 0.75, rel=1e-3)
    assert value["bucket_2"] == 0.2
    assert figures["bucket_2_forecast"]["spread"] == [0.1, 0.4]
    assert "bucket_6" not in figures
    assert figures["buckets_covered"]["aim"] == 5
