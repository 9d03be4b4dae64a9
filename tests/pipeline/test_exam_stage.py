"""The stage of exams: which models sit, once each, and what of the questions stood in the run's own data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretell import loading
from foretell.data.document import Document, Segment
from foretell.data.parquet import write_documents
from foretell.errors import RecipeError
from foretell.evals.completion import from_callable
from foretell.evals.exams import api
from foretell.pipeline import stages
from foretell.pipeline.sitting import exams_stage
from foretell.recipe import Recipe
from foretell.recipes import check_recipe
from foretell.run import silent
from test_pipeline import TINY


def recipe(*exams: str) -> Recipe:
    raw = json.loads(json.dumps(TINY))
    raw["data"]["sources"] = raw["data"]["sources"][1:]
    return check_recipe(raw | {"examine": {"exams": list(exams)}})


def guesser(asked: list[str]) -> Any:
    """Stands for a loaded model: says B, and counts what it was asked."""

    def load(path: Path, device: str) -> Any:
        async def guess(prompt: Any, **params: Any) -> str:
            asked.append(path.parent.name)
            return "B"

        model: Any = from_callable(guess, str(path))
        model.generator = SimpleNamespace(close=lambda: None)
        return model

    return load


def test_exams_come_before_the_page_and_only_where_they_are_named() -> None:
    assert [stage.name for stage in stages(recipe())][-3:] == ["examine", "page", "card"]
    found = stages(recipe("world"))
    assert [stage.name for stage in found][-4:] == ["examine", "exams", "page", "card"]
    assert "exams" in found[-1].inputs and "page" not in found[-1].inputs
    examine = {stage.name: stage for stage in found}["examine"]
    assert "exams" not in examine.config  # naming an exam examines nothing anew


def test_an_exam_that_is_not_there_ends_the_run_before_it_begins() -> None:
    with pytest.raises(RecipeError, match=r"there is no exam 'worlds'; there are .*world"):
        stages(recipe("worlds"))


def test_each_model_sits_once_and_the_data_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = tmp_path / "run", list[str]()
    exam = api.open_exam("world", "holdout")
    leaked = next(item for section, item in exam.questions if section.name == "choices")
    text = "\n".join([leaked.question, *leaked.options])
    (run / "recipe.yaml").parent.mkdir()
    (run / "recipe.yaml").write_text("name: tiny\n")
    (run / "data/world").mkdir(parents=True)
    documents = [Document("1", (Segment(text=f"Seen: {text}"),), "web", "CC0-1.0"),
                 Document("2", (Segment(text="Nothing of it."),), "web", "CC0-1.0")]  # fmt: skip
    write_documents(run / "data/world/train.parquet", documents)
    monkeypatch.setattr(loading, "load", guesser(asked))
    stage = exams_stage(recipe("world"), silent, aligned=True)
    assert stage.inputs == ("data", "ppo", "pretrain")
    (run / "exams").mkdir()
    metrics = stage.build({name: run / name for name in stage.inputs}, run / "exams")
    assert metrics["exams"]["world"].keys() == {"ppo", "pretrain"}
    assert metrics["contaminated"] == {"world.holdout.v1": 1 / len(exam.questions)}
    score = api.read_score(run / "exams/world-ppo.jsonl")
    assert score.final is not None and score.attempt == 1 and score.exam.split == "holdout"
    assert metrics["exams"]["world"]["ppo"]["score"] == score.final.value
    found = json.loads((run / "exams/contamination.json").read_text())["evals"]
    assert [row["contaminated_items"] for row in found] == [1, 1]
    assert not (run / "exams/corpus").exists()
    count = len(asked)
    assert set(asked) == {"ppo", "pretrain"}
    stage.build({name: run / name for name in stage.inputs}, run / "exams")
    assert len(asked) == count  # a stage that was cut off does not ask again
