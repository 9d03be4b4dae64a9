"""Everything that fans out, on a Ray cluster of two workers: what one machine makes, though a worker is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import raykit
from foretell.data.collection import execute
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.run import build
from foretell.errors import MissingExtraError, RunError
from foretell.evals import api
from foretell.evals.models import ModelRef
from foretell.forecast import ladder
from foretell.forecast.ladder import data_shape, run_ladder
from foretell.forecast.rungs import lay
from foretell.measure import cluster
from foretell.measure.fanout import Workers, fan_out
from foretell.recipe import ForecastConfig, Recipe
from foretell.train.log import read_log
from rayworks import KilledRank, once, work
from toy import Toy
from toy import toy as toy

CONFIG = ForecastConfig(widths=(16, 32, 48, 64, 80), seeds=(2, 1))


@pytest.fixture(scope="module")
def on() -> Iterator[str]:
    with raykit.cluster() as where:
        yield where


def test_tasks_are_done_again_where_their_worker_was_lost_and_errors_arrive_as_themselves(
    on: str, tmp_path: Path
) -> None:
    told: list[str] = []
    tasks = [(what, tmp_path) for what in ("a", "killed", "full", "b")]
    with Workers(2, on) as pool:
        assert dict(pool.map(work, tasks, tell=told.append)) == dict(enumerate(["a", "killed", "full", "b"]))
        assert len(told) == 2 and all("begun again (1 of 2)" in said for said in told)
        assert any("was lost" in said for said in told) and any("No space left" in said for said in told)
        with pytest.raises(Exception, match="Flying") as raised:
            list(pool.map(work, [("extra", tmp_path), ("a", tmp_path)]))
        assert "ray" not in str(raised.value).lower()
        with pytest.raises(KeyError, match="misspelt") as bug:
            list(pool.map(work, [("bug", tmp_path)]))
        assert "in work" in "".join(bug.value.__notes__)  # the worker's own traceback

        def tick() -> None:
            if all((tmp_path / f"long{i}").exists() for i in range(2)):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(pool.map(work, [(f"long{i}", tmp_path) for i in range(3)], tick))
        assert [(tmp_path / f"long{i}-saved").exists() for i in range(3)] == [True, True, False]
        assert not (tmp_path / "long2").exists()  # not begun
        with pytest.raises(RunError, match="last of 3 attempts"):
            list(pool.map(work, [("always", tmp_path)]))


def test_workers_are_few_work_where_they_were_called_and_are_of_one_kind(
    on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = dict(fan_out(work, [("place", tmp_path)] * 4, on=on, workers=1))
    assert {place for _, place in found.values()} == {str(tmp_path)} and len({pid for pid, _ in found.values()}) == 1
    monkeypatch.setattr(cluster, "versions", lambda: {"foretell": "0.0.0"})
    with pytest.raises(RunError, match=r"other software.*here 0\.0\.0"):
        list(fan_out(work, [("a", tmp_path)], on=on))


def killed_rung(task: Any) -> dict[str, Any]:
    """A rung whose process is killed behind its second checkpoint, the first time."""
    from foretell.train import loop, trainer

    loop.peak_rate = lambda *_: 1e11
    real = trainer.Trainer.save

    def save(self: Any) -> Path:
        path = real(self)
        if self.count.step == 2 and task.rung.name.startswith("w0032") and once(task.out.parent / "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    trainer.Trainer.save = save
    try:
        return ladder.train_rung(task)
    finally:
        trainer.Trainer.save = real


def test_a_ladder_is_the_same_to_the_byte(on: str, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy.recipe(tokens=8 * 512, checkpoint_minutes=1e-9, eval_every=0.0)
    raw = recipe.model_dump(mode="json") | {
        "forecast": CONFIG.model_dump(mode="json"),
        "tokenizer": {"vocab_size": 320},
    }
    raw["model"] |= {"width": 96, "vision": raw["model"]["vision"] | {"width": 48}}
    f, plans = toy.folder, lay(Recipe.model_validate(raw), data_shape(toy.folder / "pack"))[:4]
    monkeypatch.setattr("foretell.train.loop.peak_rate", lambda *_: 1e11)
    told: list[tuple[str, str]] = []

    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        told.append((task, note)) if total == 0 else None

    run_ladder(plans, f / "pack", f / "heldout", f / "tokenizer", tmp_path / "one", config=CONFIG, workers=1)
    monkeypatch.setattr(ladder, "fan_out", lambda work, *args, **more: fan_out(killed_rung, *args, **more))
    asked = (plans, f / "pack", f / "heldout", f / "tokenizer", tmp_path / "ray")
    run_ladder(*asked, config=CONFIG, on=on, report=report)
    assert len(told) == 1 and told[0][0] == "ladder" and "begun again" in told[0][1]
    for plan in plans:
        one, ray = (tmp_path / place / "rungs" / plan.name for place in ("one", "ray"))
        assert weights(one) == weights(ray), plan.name
    assert (tmp_path / "one/ladder.json").read_bytes() == (tmp_path / "ray/ladder.json").read_bytes()
    resumed = [
        line for line in read_log(tmp_path / "ray/rungs" / plans[2].name / "log.jsonl") if line["event"] == "resume"
    ]
    assert [line["step"] for line in resumed] == [2]  # what was done is not done again

    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("a finished ladder begins nothing")

    monkeypatch.setattr(ladder, "train_rung", none)
    run_ladder(*asked, config=CONFIG, on=on)


def weights(rung: Path) -> str:
    return hashlib.sha256((rung / "checkpoint/model.safetensors").read_bytes()).hexdigest()


def test_a_collection_is_the_same_to_the_byte(on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"id": f"t{i}", "text": f"The {i}th sentence of a small text. " * 8}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, lines[3]]) + "\n")
    source = {"kind": "jsonl", "name": "lines", "path": str(tmp_path / "a.jsonl"), "unit_bytes": 2000}
    recipe = CollectionRecipe.model_validate(
        {"name": "kit", "sources": [source], "steps": [{"step": "unicode"}], "passes": [{"kind": "exact"}],
         "shard_bytes": 3000}
    )  # fmt: skip
    build(recipe, tmp_path / "one", workers=1)
    monkeypatch.setattr(execute, "Rank", KilledRank)
    told: list[str] = []
    build(
        recipe, tmp_path / "ray", on=on,
        report=lambda task, done, total=None, note="": told.append(note) if total == 0 else None,
    )  # fmt: skip
    one, ray = ({p.relative_to(tmp_path / place): p.read_bytes() for p in (tmp_path / place).rglob("*.parquet")}
                for place in ("one", "ray"))  # fmt: skip
    assert one == ray and len(one) > 3 and len(told) == 1


def test_evals_are_scored_alike(on: str, tmp_path: Path) -> None:
    names = ["arithmetic", "nothing", "logic"]
    settings: dict[str, Any] = {"samples": 8, "concurrency": 4, "exit_on_error": False}
    here = dict(api.run_set(names, [ModelRef("dummy")], folder=tmp_path / "here", **settings))
    there = dict(api.run_set(names, [ModelRef("dummy")], folder=tmp_path / "there", on=on, **settings))
    for name in ("arithmetic", "logic"):
        one, ray = here[name], there[name]
        assert isinstance(one, api.EvalReport) and isinstance(ray, api.EvalReport)
        assert one.report == ray.report and replace(one.scores, run="") == replace(ray.scores, run="")
        assert ray.log.path.parent == tmp_path / "there"
    assert "There is no eval" in str(there["nothing"])


def test_rounds_are_drawn_as_here(on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "align")
    import torch
    from alignkit import make_base, preferences, write_jsonl

    from foretell.align.drawers import Drawers, make_engine
    from foretell.align.episodes import Player, request_seed
    from foretell.align.examples import PromptRow, read_prompts
    from foretell.align.packing import require_template
    from foretell.align.stages import open_base
    from foretell.run import silent
    from foretell.tuning import PPOConfig, RolloutConfig

    base = make_base(tmp_path)
    settings = PPOConfig(
        device="cpu", precision="float32", prompts=4, max_tokens=8, rollout=RolloutConfig(workers=2, on=on)
    )
    rows = read_prompts(write_jsonl(tmp_path / "prompts.jsonl", preferences(4)))
    asked = [(i, row) for i, row in enumerate(rows) if isinstance(row, PromptRow)]
    opened = open_base(base.folder, "cpu")
    engine = make_engine(opened, settings)
    elsewhere = Drawers(opened.model, base.folder, settings, tmp_path / "run", silent)
    try:
        player = Player(engine, require_template(opened.template, ""), 256, 8)
        for number in range(2):
            here = player.play(asked, 1, lambda i, number=number: request_seed(0, number, i))  # type: ignore[misc]
            there = elsewhere.begin(number, asked, number).result()
            assert [one["ids"] for one in there] == [one.ids for one in here]
            with torch.no_grad():
                opened.model.decoder.embedding.mul_(1.5)
    finally:
        elsewhere.close()
        engine.close()


def test_no_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="expected local, ray"):
        list(fan_out(work, [("a", Path())], on="rya"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="cluster"):
        list(fan_out(work, [("a", Path())], on="ray"))
