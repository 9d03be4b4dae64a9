"""Figures of whole runs, from what a run leaves behind; nothing incomplete becomes a committed result."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import common
import quickstart
import runs
import textbooks
from foretell.recipes import load_recipe, recipe_yaml

TASK = {"questions": 9, "accuracy": 0.5, "low": 0.4, "high": 0.6, "above_blind": 0.2, "above_blind_high": 0.3}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETELL_DATA", str(tmp_path))
    folder = tmp_path / "run"
    (folder / "examine").mkdir(parents=True)
    (folder / "pretrain").mkdir()
    (folder / "outcome").mkdir()
    (folder / "card").mkdir()
    by_kind = {
        "textbooks": {"loss": 2.0, "bits_per_byte": 1.0, "tokens": 300},
        "books": {"loss": 1.0, "bits_per_byte": 2.0, "tokens": 600},
        "docs": {"loss": 1.0, "bits_per_byte": 2.0, "tokens": 600},
        "scenes.count": {"loss": 9.0, "bits_per_byte": 9.0, "tokens": 9},
    }
    tasks = [TASK | {"task": f"t{i}", "above_blind_low": low} for i, low in enumerate([0.1, 0.0, -0.1])]
    examined = {"tasks": tasks, "text": {"bits_per_byte": 1.5, "by_kind": by_kind}}
    (folder / "examine" / "examine.json").write_text(json.dumps(examined))
    manifest = {"key": "", "output": "", "files": [], "metrics": {"tokens": 1000}}
    (folder / "pretrain" / "manifest.json").write_text(json.dumps(manifest))
    outcome = manifest | {"metrics": {"error": -0.02, "covered": True}}
    (folder / "outcome" / "manifest.json").write_text(json.dumps(outcome))
    (folder / "card" / "manifest.json").write_text(json.dumps(manifest | {"seconds": 0.5}))
    return folder


def test_only_intervals_above_zero_count(run: Path) -> None:
    figures = quickstart.measure(runs.FinishedRun(run, 6, 10.0, 12.0, 2_000_000_000))
    assert figures["visual_tasks_above_blind"] == {"value": 1, "unit": "of 3 tasks", "aim": 3}
    assert figures["wall_s"]["value"] == 12 and figures["peak_rss_gb"]["value"] == 2
    assert figures["card_s"]["value"] == 0.5
    assert figures["accuracy_t0"]["spread"] == [0.4, 0.6]
    assert figures["forecast_error_pct"]["value"] == 2 and figures["forecast_covered"]["value"] == 1
    earlier = quickstart.measure(runs.FinishedRun(run, 6, 10.0))
    assert "wall_s" not in earlier and "peak_rss_gb" not in earlier


def test_bits_per_byte_of_several_texts_are_weighted_by_their_bytes(run: Path) -> None:
    (run / "recipe.yaml").write_text(recipe_yaml(load_recipe("textbooks-cpu")))
    figures = textbooks.measure(runs.FinishedRun(run, 6, 90.0))
    # 600 nats over 600 bytes' worth at 1, and twice 600 nats over 300 at 2.
    assert figures["val_bits_per_byte"]["value"] == 1.5
    assert figures["minutes"]["value"] == 1.5 and figures["tokens"]["value"] == 1000


def test_an_unfinished_run_or_one_of_other_settings_is_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run.parent / "results"
    results.mkdir()
    monkeypatch.setattr(common, "RESULTS", results)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--run", str(run)])
    (run / "recipe.yaml").write_text(recipe_yaml(load_recipe("quickstart", ["train.tokens=1e6"])))
    with pytest.raises(SystemExit, match="not a finished run: data is missing"):
        runs.benchmark("quickstart", quickstart.measure, set(), None)
    monkeypatch.setattr(runs, "_read", lambda folder: nullcontext(runs.FinishedRun(folder, 6, 1.0)))
    runs.benchmark("quickstart", quickstart.measure, set(), None)
    assert "settings are not those of quickstart" in capsys.readouterr().out
    (run / "recipe.yaml").write_text(recipe_yaml(load_recipe("quickstart")))
    runs.benchmark("quickstart", quickstart.measure, {"wall_s"}, None)
    assert "wall_s cannot be told" in capsys.readouterr().out
    assert not list(results.iterdir())
    runs.benchmark("quickstart", quickstart.measure, {"stages"}, None)
    assert [path.name.split(".")[0] for path in results.iterdir()] == ["quickstart"]
