"""What OpenAI's own tool reported for 281 evals of its registry, with a deterministic model: ours must say the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from goldenkit import fault, golden_model, golden_rows, unpacked

from foretell.evals.classes import make_eval
from foretell.evals.completion import from_callable
from foretell.evals.registry import Registry
from foretell.evals.runner import Settings, run_eval

pytestmark = pytest.mark.realdata


def data() -> Path:
    return Path(os.environ["FORETELL_DATA"]) / "evals"


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return unpacked(data(), tmp_path_factory.mktemp("upstream"))


def test_every_report_event_count_and_digest_agrees(upstream: Registry, tmp_path: Path) -> None:
    golden, rows = golden_model(data()), golden_rows(data())
    wrong = {row["eval"]: found for row in rows if (found := fault(upstream, golden, row, tmp_path))}
    assert len(rows) == 281 and wrong == {}


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
