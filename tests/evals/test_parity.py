"""What OpenAI's own tool reported for 281 evals of its registry, with a deterministic model: ours must say the same."""

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

pytestmark = pytest.mark.realdata

DIGESTED = {"correct", "picked", "expected", "choice", "score", "accuracy", "f1_score", "prompt", "sampled"}


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Registry:
    folder = tmp_path_factory.mktemp("upstream")
    for name in ("registry_yaml", "registry_data"):
        with tarfile.open(real(request) / f"{name}.tar.xz") as packed:
            packed.extractall(folder, filter="data")
    return Registry((folder / "evals/registry",))


def real(request: pytest.FixtureRequest) -> Path:
    import os

    return Path(os.environ["FORETELL_DATA"]) / "evals"


def fake_model(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("golden_model", folder / "golden_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_report_event_count_and_digest_agrees(
    upstream: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    golden = fake_model(real(request))
    rows = [json.loads(line) for line in (real(request) / "golden_visible.jsonl").read_text().splitlines()]
    wrong = {row["eval"]: fault for row in rows if (fault := compare(upstream, golden, row, tmp_path))}
    assert len(rows) == 281 and wrong == {}


def compare(registry: Registry, golden: Any, row: dict[str, Any], folder: Path) -> str:
    """What differs; nothing if all agrees."""
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
            [e["sample_id"], e["type"], {k: v for k, v in e["data"].items() if k in DIGESTED}],
            ensure_ascii=False,
            sort_keys=True,
            default=str,
        )
        for e in events
    )
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return "" if digest == row["events_digest"] else "digest of the events"


def test_every_name_of_the_registry_is_found(upstream: Registry) -> None:
    assert len(upstream.evals) > 900
    assert all(upstream.eval(name).name for name in upstream.evals)
    assert all(upstream.graded(name).prompt for name in upstream.modelgraded)
    sets = {name: upstream.resolve(name) for name in upstream.sets if name not in upstream.evals}
    assert sets["test-basic"][:1] and all(sets.values())


def test_every_eval_of_the_templates_can_be_made_and_its_first_sample_judged(
    upstream: Registry, tmp_path: Path
) -> None:
    from foretell.errors import EvalError
    from foretell.evals.classes import _TEMPLATES

    model = from_callable(lambda prompt, **_: "Yes")
    lacking = 0
    for name, entry in upstream.evals.items():
        spec = upstream.eval(name) if entry.alias is None else None
        if spec is None or spec.cls not in _TEMPLATES or "multiple_choice" in spec.cls:
            continue
        made = make_eval(upstream, name)
        try:
            made.samples()
        except EvalError as error:
            assert "LFS pointer" in str(error) or "cannot be read" in str(error)
            lacking += 1
            continue
        fns = [model] * (3 if getattr(made, "multicomp_n", 1) == "from_models" else 1)
        log = run_eval(made, fns, tmp_path / f"{name}.jsonl", Settings(max_samples=1))
        assert "invalid_samples" not in log.report, name
    assert lacking < 40
