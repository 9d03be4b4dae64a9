"""Adapters beside PEFT's: every side begins with the same loss, and figures are of the steps that count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import adapters
import adapters_ours
import adapters_peer


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = adapters.write_job(tmp_path_factory.mktemp("adapters"), adapters.TINY)
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def ours(job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    patch = pytest.MonkeyPatch()
    patch.setattr("foretell.train.loop.peak_rate", lambda *_: 1e11)
    folder = tmp_path_factory.mktemp("ours")
    found = {mode: adapters_ours.train(job, mode, folder / mode) for mode in adapters.MODES}
    patch.undo()
    return found


def test_ours_trains_whole_or_adapters_alone(job: dict[str, Any], ours: dict[str, Any]) -> None:
    assert ours["full"]["losses"][0] == pytest.approx(ours["lora"]["losses"][0], abs=1e-5)
    assert ours["lora"]["trained"] < ours["full"]["trained"]
    for told in ours.values():
        assert len(told["seconds"]) == job["steps"] and all(second > 0 for second in told["seconds"])
        assert len(told["losses"]) == job["steps"] + job["warm_up"]
        assert told["peak_rss"] >= told["loaded_rss"] > 0


def test_the_peer_computes_the_same_on_the_same_rows(job: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs = adapters_peer.train(job, "full")
    assert theirs["losses"][0] == pytest.approx(ours["full"]["losses"][0], abs=1e-4)
    assert theirs["trained"] == ours["full"]["trained"]
    assert len(theirs["seconds"]) == job["steps"] and set(theirs["versions"]) == {"transformers", "torch"}


@pytest.mark.peer
def test_peft_computes_the_same(job: dict[str, Any], ours: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    theirs = adapters_peer.train(job, "lora")
    assert theirs["losses"][0] == pytest.approx(ours["lora"]["losses"][0], abs=1e-4)
    assert theirs["trained"] == ours["lora"]["trained"]


def told(rate: float, grown: float, loss: float = 2.0) -> dict[str, Any]:
    return {
        "seconds": [64 / rate] * 2, "losses": [loss, 1.0], "peak_rss": 5e8 + grown, "loaded_rss": 5e8, "trained": 7,
        "versions": {"peft": "1"},
    }  # fmt: skip


def test_figures_are_ratios_round_by_round(job: dict[str, Any]) -> None:
    sides = {
        "full": [told(100, 4e6), told(200, 4e6)],
        "lora": [told(150, 1e6), told(300, 1e6)],
        "lora_peer": [told(75, 2e6), told(100, 2e6)],
    }
    found = adapters.figures_of(sides, job)
    assert found["tokens_s_lora"]["spread"] == [150, 300] and found["lora_speed"]["value"] == 1.5
    assert found["lora_vs_peft"]["spread"] == [2, 3] and found["lora_memory"]["value"] == 0.25
    assert found["lora_memory_vs_peft"]["value"] == 0.5 and "full_vs_transformers" not in found
    with pytest.raises(SystemExit, match="do not compute the same"):
        adapters.figures_of({**sides, "lora": [told(1, 1, 2.1)]}, job)
