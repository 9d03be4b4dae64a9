from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import common
import report_results

MACHINE = {"cpu": "Some CPU", "cores": 2, "gpu": None, "torch": "2.13.0"}


def test_figure_is_the_median_with_its_spread_and_aim() -> None:
    assert common.figure([3.0, 1.0, 1.23456], "x", aim=1.5) == {
        "value": 1.235,
        "unit": "x",
        "spread": [1.0, 3.0],
        "aim": 1.5,
    }
    assert common.figure(1_234_567, "tokens") == {"value": 1_234_567, "unit": "tokens"}


def test_figure_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="left out"):
        common.figure([], "x")


def test_alternate_changes_who_goes_first() -> None:
    order: list[str] = []

    def measure(name: str, value: float) -> float:
        order.append(name)
        return value

    result = common.alternate(lambda: measure("a", 1.0), lambda: measure("b", 2.0), rounds=3)
    assert "".join(order) == "abbaab"
    assert result == ([1.0] * 3, [2.0] * 3)
    assert common.ratios(*result) == [0.5] * 3


def test_result_has_the_agreed_form_and_reaches_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "describe_machine", lambda: MACHINE)
    monkeypatch.setenv("FORETELL_COMMIT", "0" * 40)
    path = common.write_result("speed", "make bench-speed", {"ratio": common.figure([1.0, 2.0, 3.0], "x", 4)})
    assert path == tmp_path / "speed.json"
    assert list(json.loads(path.read_text())) == ["name", "command", "commit", "utc", "machine", "figures"]
    page = report_results.page(common.read_results(tmp_path))
    assert "## speed\n\n`make bench-speed` at `000000000000`" in page
    assert "| ratio | 2 | 1 to 3 | 4 | x |" in page


def test_result_from_a_gpu_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "describe_machine", lambda: MACHINE | {"gpu": "Some GPU"})
    monkeypatch.setenv("FORETELL_COMMIT", "0" * 40)
    assert common.write_result("speed", "make bench-speed", {}).name == "speed.gpu.json"
