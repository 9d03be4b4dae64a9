"""Training a ladder: one process a core, resumable rung by rung, diverged rungs kept apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import ForecastError
from foretell.forecast import ladder
from foretell.forecast.ladder import data_shape, read_ladder, run_ladder
from foretell.forecast.rungs import RungPlan, flops, lay
from foretell.forecast.table import LadderTable
from foretell.recipe import ForecastConfig, Recipe
from foretell.train import loop
from toy import Toy
from toy import toy as toy

CONFIG = ForecastConfig(widths=(16, 32, 48, 64, 80), seeds=(2, 1))


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "peak_rate", lambda *_: 1e11)


@pytest.fixture(scope="module")
def plans(toy: Toy) -> list[RungPlan]:
    recipe = toy.recipe(tokens=40 * 512)
    raw = recipe.model_dump(mode="json")
    raw["model"] |= {"width": 96, "vision": raw["model"]["vision"] | {"width": 48}}
    raw |= {"forecast": CONFIG.model_dump(mode="json"), "tokenizer": {"vocab_size": 320}}
    return lay(Recipe.model_validate(raw), data_shape(toy.folder / "pack"))


def run(toy: Toy, plans: list[RungPlan], out: Path, **arguments: Any) -> LadderTable:
    f = toy.folder
    given = {"config": CONFIG, "workers": 1, **arguments}
    return run_ladder(plans, f / "pack", f / "heldout", f / "tokenizer", out, **given)


@pytest.fixture(scope="module")
def trained(toy: Toy, plans: list[RungPlan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder")
    run(toy, plans, out)
    return out


def test_table_holds_every_rung_with_its_curve(trained: Path, plans: list[RungPlan]) -> None:
    table = read_ladder(trained, [plan.name for plan in plans], CONFIG)
    assert table.to_json() == json.loads((trained / "ladder.json").read_text())
    assert {rung.run for rung in table.rungs} | {rung.run for rung, _ in table.excluded} == {p.name for p in plans}
    assert table.unit == "bits per byte" and len(table.settings["tokenizer"]) == 16
    for rung in table.rungs:
        plan = next(plan for plan in plans if plan.name == rung.run)
        assert rung.flops == pytest.approx(plan.flops, rel=0.05)  # planned from a sample of the pack
        assert (rung.params, rung.tokens, rung.seed) == (plan.params, plan.tokens, plan.seed)
        shares = [share for share, _ in table.curves[rung.run]]
        assert shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1
    first = [rung for rung in table.rungs if rung.run.startswith("w0016")]
    assert len(first) == 2 and first[0].flops == first[1].flops and first[0].loss != first[1].loss


def test_two_workers_give_the_numbers_of_one(toy: Toy, plans: list[RungPlan], trained: Path, tmp_path: Path) -> None:
    table = run(toy, plans[:2] + plans[-1:], tmp_path, workers=2)
    alone = {rung.run: rung.loss for rung in read_ladder(trained, [p.name for p in plans], CONFIG).rungs}
    assert {rung.run: pytest.approx(rung.loss, rel=1e-4) for rung in table.rungs} == {
        name: alone[name] for name in (plan.name for plan in [*plans[:2], plans[-1]]) if name in alone
    }


def test_finished_rungs_are_not_trained_again(
    toy: Toy, plans: list[RungPlan], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    real = ladder.train_rung

    def count(task: Any) -> dict[str, Any]:
        begun.append(task.rung.name)
        return real(task)

    monkeypatch.setattr(ladder, "train_rung", count)
    before = run(toy, plans, trained)
    assert not begun
    (trained / "rungs" / plans[2].name / "result.json").unlink()
    changed = replace(plans[-1], recipe=plans[-1].recipe.model_copy(update={"seed": 77}))
    again = run(toy, [*plans[:-1], changed], trained)
    assert sorted(begun) == sorted([plans[2].name, plans[-1].name])
    old, new = ({r.run: r.loss for r in t.rungs} for t in (before, again))
    assert old[plans[2].name] == new[plans[2].name] and old[plans[-1].name] != new[plans[-1].name]
    run(toy, plans, trained)  # as the other tests have it


def test_a_diverged_rung_is_kept_apart_with_its_reason(toy: Toy, plans: list[RungPlan], tmp_path: Path) -> None:
    optimizer = plans[0].recipe.train.optimizer.model_copy(update={"lr": 1e30})
    train = plans[0].recipe.train.model_copy(update={"optimizer": optimizer})
    wild = replace(plans[0], recipe=plans[0].recipe.model_copy(update={"train": train}))
    table = run(toy, [wild, *plans[1:4]], tmp_path)
    assert [rung.run for rung, _ in table.excluded] == [wild.name]
    assert wild.name not in {rung.run for rung in table.rungs} | set(table.curves)
    assert LadderTable.from_json(json.loads((tmp_path / "ladder.json").read_text())).excluded[0][1]


def test_rungs_of_other_data_are_refused(trained: Path, plans: list[RungPlan]) -> None:
    path = trained / "rungs" / plans[1].name / "result.json"
    whole = path.read_text()
    found = json.loads(whole)
    found["data"]["evaluation set"] = "0" * 64
    path.write_text(json.dumps(found))
    with pytest.raises(ForecastError, match="another evaluation set"):
        read_ladder(trained, [plan.name for plan in plans], CONFIG)
    path.write_text(whole[:50])
    with pytest.raises(ForecastError, match="not trained to its end"):
        read_ladder(trained, [plan.name for plan in plans], CONFIG)
    path.write_text(whole)


def test_data_shape_is_that_of_the_whole_pack(toy: Toy, plans: list[RungPlan]) -> None:
    index = json.loads((toy.folder / "pack" / "index.json").read_text())
    found = data_shape(toy.folder / "pack")
    assert found.learned == pytest.approx(index["learned_tokens"] / (index["rows"] * 64), rel=0.15)
    assert found.tiles > 0 and 1 < found.context <= 32.5
    assert flops(plans[0].recipe, found) == pytest.approx(plans[0].flops)


SCRIPT = """
import pickle, sys
from pathlib import Path
from foretell.forecast.ladder import run_ladder
from foretell.recipe import ForecastConfig
if __name__ == "__main__":
    plans, folder = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
    run_ladder(plans, folder / "pack", folder / "heldout", folder / "tokenizer", Path(sys.argv[3]),
               config=ForecastConfig(), workers=2, report=lambda *a: print(flush=True))
"""


def test_an_interrupt_saves_every_rung_that_runs(toy: Toy, plans: list[RungPlan], tmp_path: Path) -> None:
    """Ctrl-C reaches parent and workers; the rungs that ran have a checkpoint, and the same call ends them."""
    import pickle

    train = {"tokens": 10**6 * 512, "checkpoint_minutes": 1e6, "log_every": 1}
    long = [
        replace(p, recipe=p.recipe.model_copy(update={"train": p.recipe.train.model_copy(update=train)}))
        for p in plans[:3]
    ]
    (tmp_path / "plans").write_bytes(pickle.dumps(long))
    (tmp_path / "go.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "go.py", tmp_path / "plans", toy.folder, tmp_path / "out"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    logs = [tmp_path / "out" / "rungs" / plan.name / "log.jsonl" for plan in (long[2], long[0])]  # the longest is first
    while not all(log.is_file() and b'"train"' in log.read_bytes() for log in logs):
        assert process.stdout is not None and process.stdout.readline(), "it ended"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert all(list((log.parent / "checkpoints").iterdir()) for log in logs)
    assert not (tmp_path / "out" / "rungs" / long[1].name).exists()
