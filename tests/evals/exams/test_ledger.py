"""A holdout is sat once: a second run of the same model is marked, whatever it is called; cut-off runs go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examkit import choice_exam, choices, write_jsonl

from foretell.errors import EvalError
from foretell.evals.completion import ModelFn, from_callable
from foretell.evals.exams import api
from foretell.evals.exams.ledger import Ledger
from foretell.evals.exams.reading import load_exam


def model(prompt: Any, **params: Any) -> str:
    return "A"


def sit(path: Path, name: str, model: Any = model, **settings: Any) -> Any:
    return api.run(path, model, out=path.parent / name, store=path.parent / "s.sqlite", holdout=True, **settings)


def test_a_second_holdout_run_is_marked(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    first, second = sit(path, "1.jsonl"), sit(path, "2.jsonl")
    assert (first.attempt, first.repeated) == (1, False)
    assert (second.attempt, second.repeated) == (2, True)
    assert api.read_score(tmp_path / "2.jsonl").repeated  # the mark is in the log
    assert [look.log for look in Ledger(tmp_path / "s.sqlite").looks("small")] == [
        str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl"),
    ]  # fmt: skip


def test_another_model_has_its_own_first_look(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    sit(path, "1.jsonl")
    assert sit(path, "2.jsonl", from_callable(model, "other")).attempt == 1
    assert sit(path, "3.jsonl", vision=False).attempt == 1  # the other arm


def test_a_model_under_another_name_and_an_exam_that_changed_are_the_same(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    fn = from_callable(model, "name")
    renamed = ModelFn("renamed", fn._ask)
    renamed.identity = fn.identity
    assert sit(path, "1.jsonl", fn).attempt == 1
    assert sit(path, "2.jsonl", renamed).attempt == 2
    write_jsonl(tmp_path / "h.jsonl", [row | {"question": row["question"] + "!"} for row in choices(8)])
    assert sit(path, "3.jsonl", fn).attempt == 3


def test_nonholdout_runs_are_free(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    for name in ("1.jsonl", "2.jsonl"):
        assert api.run(path, model, out=tmp_path / name, store=tmp_path / "s.sqlite").attempt is None
    assert not Ledger(tmp_path / "s.sqlite").looks("small")


def test_a_holdout_that_was_cut_off_goes_on_as_the_same_run(tmp_path: Path) -> None:
    path = choice_exam(tmp_path, section={"explain": False})
    state = {"left": 3}

    def fails(prompt: Any, **params: Any) -> str:
        if state["left"] <= 0:
            raise EvalError("gone")
        state["left"] -= 1
        return "A"

    from foretell.evals.runner import Budget

    with pytest.raises(EvalError, match="budget"):
        sit(path, "1.jsonl", from_callable(fails, "m"), budget=Budget(seconds=0.0), concurrency=1)
    state["left"] = 99
    assert sit(path, "1.jsonl", from_callable(fails, "m")).attempt == 1


def test_a_holdout_takes_no_limit_and_no_cache(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    with pytest.raises(EvalError, match="as a whole"):
        sit(path, "1.jsonl", samples=2)
    with pytest.raises(EvalError, match="no cache"):
        sit(path, "1.jsonl", cache=tmp_path / "c.sqlite")
    assert not (tmp_path / "s.sqlite").exists()


def test_what_changed_since_cannot_be_scored(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    sit(path, "1.jsonl")
    write_jsonl(tmp_path / "h.jsonl", [row | {"answer": "B"} for row in choices(8)])
    assert load_exam(path, "holdout").digest
    with pytest.raises(EvalError, match="have changed since"):
        api.read_score(tmp_path / "1.jsonl")
