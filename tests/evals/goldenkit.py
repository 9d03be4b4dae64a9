"""OpenAI's registry, and what its own tool reported for 281 evals of it with a deterministic model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foretell.evals.classes import make_eval
from foretell.evals.completion import from_callable
from foretell.evals.registry import Registry
from foretell.evals.runner import Settings, run_eval

_DIGESTED = {"correct", "picked", "expected", "choice", "score", "accuracy", "f1_score", "prompt", "sampled"}


def unpacked(data: Path, folder: Path) -> Registry:
    """The registry of the archives in `data`, unpacked into `folder`."""
    for name in ("registry_yaml", "registry_data"):
        with tarfile.open(data / f"{name}.tar.xz") as packed:
            packed.extractall(folder, filter="data")
    return Registry((folder / "evals/registry",))


def golden_rows(data: Path) -> list[dict[str, Any]]:
    """What upstream reported, an eval a row."""
    return [json.loads(line) for line in (data / "golden_visible.jsonl").read_text(encoding="utf-8").splitlines()]


def golden_model(data: Path) -> Any:
    """The module of the deterministic model."""
    spec = importlib.util.spec_from_file_location("golden_model", data / "golden_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fault(registry: Registry, golden: Any, row: dict[str, Any], folder: Path) -> str:
    """What differs between our run, logged in `folder`, and upstream's; nothing if all agrees."""
    made = make_eval(registry, row["eval"])
    answers = golden.build_map(made.samples()[:])
    model = from_callable(lambda prompt, **_: golden.complete(prompt, answers), "")
    count = 3 if getattr(made, "multicomp_n", 1) == "from_models" else 1
    log = run_eval(made, [model] * count, folder / f"{row['eval']}.jsonl", Settings(max_samples=row["max_samples"]))
    report = {name: value for name, value in log.report.items() if "std" not in name}
    if report != pytest.approx(row["final_report"], abs=1e-9, rel=0, nan_ok=True):
        return f"report {report}, expected {row['final_report']}"
    events = [event for number in range(len(log)) for event in log.events(number)]
    if (counts := Counter(event["type"] for event in events)) != row["event_counts"]:
        return f"events {counts}, expected {row['event_counts']}"
    lines = sorted(
        json.dumps(
            [e["sample_id"], e["type"], {k: v for k, v in e["data"].items() if k in _DIGESTED}],
            ensure_ascii=False,
            sort_keys=True,
            default=str,
        )
        for e in events
    )
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return "" if digest == row["events_digest"] else "digest of the events"
