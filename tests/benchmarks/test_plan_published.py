"""The plan's curve is the one that published runs give, and the errors that are told of it are made without them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import plan_published
from foretell.forecast.cluster import Curve


@pytest.fixture(scope="module")
def runs() -> list[plan_published.Run]:
    return plan_published.read_runs()


def test_the_built_in_curve_is_the_fitted_one(runs: list[plan_published.Run]) -> None:
    """In what it says of times: its numbers can make up for one another."""
    found = plan_published.fit([run for run in runs if run.said.get("fit", True)])
    assert [run.error() for run in runs] == pytest.approx([run.error(found) for run in runs], abs=0.02)


def test_a_run_s_error_is_of_its_first_published_figure(runs: list[plan_published.Run]) -> None:
    for run in runs:
        [row] = plan_published.table([run], Curve(), {run.name: run.error()})
        name = next(name for name in ("rate", "mfu", "device_hours", "mwh") if name in row["figures"])
        said, planned = row["figures"][name]
        ratio = said / planned if name in ("rate", "mfu") else planned / said
        assert 1 + row["left_out"] == pytest.approx(ratio), run.name


def test_every_run_names_its_source(runs: list[plan_published.Run]) -> None:
    assert all(run.said.get("source") or run.said.get("secondary") for run in runs)
    assert len({run.name for run in runs}) == len(runs) > 50
