"""The search for a mixture from a recipe to another, on runs of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretell.errors import ForecastError
from foretell.pipeline.mixing import search_mixture
from foretell.recipe import Recipe
from foretell.recipes import check_recipe


def tiny(folder: Path) -> Recipe:
    for name, words in (("digits", "0123456789 "), ("letters", "abcdefghij ")):
        lines = [
            json.dumps({"id": f"{name}-{i}", "text": "".join(words[(i * 7 + j * j) % 11] for j in range(160))})
            for i in range(300)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [
        {"kind": "jsonl", "name": name, "path": str(folder / f"{name}.jsonl"), "heldout": 0.1, "license": "CC0-1.0"}
        for name in ("digits", "letters")
    ]
    return check_recipe(
        {
            "name": "two",
            "data": {"sources": sources, "sequence_length": 32, "tokens": 60_000, "heldout_tokens": 2000},
            "tokenizer": {"vocab_size": 300, "train_bytes": 20_000},
            "model": {"width": 64, "depth": 1, "head_dim": 16, "max_length": 32},
            "train": {"tokens": 60_000, "batch_tokens": 256, "device": "cpu"},
        },
        "a test",
    )


def test_a_search_ends_in_a_recipe_and_goes_on_where_it_was_left(tmp_path: Path) -> None:
    recipe, run = tiny(tmp_path), tmp_path / "run"
    found = search_mixture(recipe, run, widths=[16, 32], trials=5, check=1, workers=1)
    assert found.runs == 5 * 2 + 2 and found.trials.losses.shape == (2, 5, 2)
    weights = [source.weight for source in found.recipe.data.sources]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert weights == pytest.approx(list(found.recommended.shares), abs=1e-3)
    # More of a source lowers its own loss, in runs that differ in nothing else.
    shares, losses = found.trials.shares, found.trials.losses
    most, least = shares[:, 0].argmax(), shares[:, 0].argmin()
    assert losses[1, most, 0] < losses[1, least, 0]
    results = sorted(run.glob("mixture/*/rungs/*/result.json"))
    written = [path.stat().st_mtime_ns for path in results]
    again = search_mixture(recipe, run, widths=[16, 32], trials=5, check=1, workers=1)
    assert [path.stat().st_mtime_ns for path in results] == written
    assert (again.trials.losses == losses).all() and again.runs == found.runs
    told = json.loads((run / "mixture" / "mixture.json").read_text())
    assert told["sources"] == ["digits", "letters"] and told["runs"] == 12


def test_an_aim_without_a_source_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ForecastError, match="no source 'verse'"):
        search_mixture(tiny(tmp_path), tmp_path / "run", aim={"verse": 1.0})
    assert not (tmp_path / "run").exists()
