from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import forecast_table
from foretell.errors import ForecastError
from foretell.forecast import LadderTable, Rung, fit
from foretell.forecast.register import Claim, bundle, register, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of two records: a hit with a miss, and one without an outcome."""
    out = tmp_path_factory.mktemp("forecasts")
    rungs = tuple(Rung(10 ** (12 + i / 2), 1.5 + 40 * 10 ** (-0.1 * (12 + i / 2)), i, f"r{i}") for i in range(8))
    table = LadderTable(rungs, "bits per byte")
    found = fit(table)
    claims = [Claim("bucket 1", 0.5, 0.4, 0.6, 0.9)]
    for name in ("one", "two"):
        register(out / "records" / f"{name}.json", table, found, target=1e18, capabilities=claims)
    verify(out / "records" / "one.json", found.predict(1e18).loss * 1.0001, {"bucket 1": 0.8})
    (out / "all").mkdir()
    for name in ("one", "two"):
        bundle(out / "records" / f"{name}.json", out / "all" / f"{name}.json")
    return out / "all"


def test_every_claim_has_a_row_with_its_outcome(folder: Path) -> None:
    rows = [line for line in forecast_table.page(folder).splitlines() if line.startswith(("| one", "| two"))]
    assert len(rows) == 4
    assert "one: loss (bits per byte)" in rows[0] and "| hit |" in rows[0] and "-0.01%" in rows[0]
    assert "one: bucket 1" in rows[1] and "**miss**" in rows[1] and "0.5 (0.4 to 0.6, 90%)" in rows[1]
    assert all("open" in row and "316×" in row for row in rows[2:])


def test_a_bundle_that_was_edited_is_not_told(folder: Path, tmp_path: Path) -> None:
    text = (folder / "one.json").read_text()
    (tmp_path / "one.json").write_text(text.replace('"measured":0.8', '"measured":0.5'))
    with pytest.raises(ForecastError):
        forecast_table.page(tmp_path)


def test_committed_page_is_that_of_the_committed_bundles() -> None:
    folder = forecast_table.RESULTS / "forecasts"
    assert forecast_table.PAGE.read_text(encoding="utf-8") == forecast_table.page(folder)
