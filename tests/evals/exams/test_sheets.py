"""Grading by people: out on a sheet without the model's name, back with every mistake named, the mean of several."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from examkit import ESSAY_SCALE, write_exam, write_jsonl

from clikit import invoke
from foretell.errors import EvalError
from foretell.evals.exams import api, sheets


def secret_model(prompt: Any, **params: Any) -> str:
    return "Because <b>so</b>."


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A run of two replies that wait for grades."""
    free = {"name": "f", "kind": "free", "items": {"nonholdout": "f.jsonl"}}
    essay = {"name": "e", "kind": "essay", "items": {"nonholdout": "e.jsonl"}, "scale": ESSAY_SCALE}
    lines = [{"criterion": "Says why.", "points": 3}, {"criterion": "Says how.", "points": 1}]
    files = {
        "f.jsonl": [{"question": "Why?", "rubric": lines, "reference": "So."}],
        "e.jsonl": [{"question": "Write."}],
    }
    path = write_exam(tmp_path, [free, essay], {"out_of": 6}, files)
    score = api.run(path, secret_model, grader="person", out=tmp_path / "l.jsonl", store=tmp_path / "s.sqlite")
    assert score.ungraded == 2 and score.final is None and score.raw.estimate != score.raw.estimate
    return score.log


def filled(log: Path, points: list[Any], **more: Any) -> Path:
    rows = sheets.sheet_rows(api.read_score(log), again=True)
    for row, values in zip(rows, points, strict=True):
        row |= {"points": values, "grader": "Ann", **more}
    write_jsonl(log.parent / "filled.jsonl", rows)
    return log.parent / "filled.jsonl"


def test_out_and_in_again(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "exam", "grade", log, "--out", log.parent / "sheet.jsonl")
    assert code == 0 and out.startswith("2 replies to grade")
    text = (log.parent / "sheet.jsonl").read_text()
    assert "secret_model" not in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0]["rubric"][0] == {"criterion": "Says why.", "most": 3, "least": 0}
    code, out, _ = invoke(capsys, "exam", "grade", log, "--sheet", filled(log, [[2, 1], [1]]))
    assert code == 0 and "2 grades of Ann kept." in out and "4 of 6" in out
    score = api.read_score(log)
    assert score.ungraded == 0 and score.final is not None and score.final.value == 4
    with pytest.raises(EvalError, match=r"Nothing of .* waits for a grade"):
        sheets.write_sheet(score, log.parent / "x.jsonl")


def test_the_mean_of_several_people_counts(log: Path) -> None:
    score = api.read_score(log)
    sheets.keep_grades(log, sheets.read_sheet(filled(log, [[3, 1], [2]]), score))
    sheets.keep_grades(log, sheets.read_sheet(filled(log, [[2, 0], [None]], grader="Bob"), score))
    assert sheets.people_s_grades(log) == {0: [2.5, 0.5], 1: [2.0]}
    assert api.read_score(log).raw.estimate == 5
    assert sheets.agreement(log) == sheets.Agreement(1, 2.0)
    sheets.keep_grades(
        log, sheets.read_sheet(filled(log, [[3, 1], [None]], grader="Bob"), score)
    )  # thought better of it
    assert sheets.agreement(log).difference == 0


@pytest.mark.parametrize(
    ("points", "more", "told"),
    [
        ([[4, 0], [1]], {}, r"filled.jsonl, line 1: points.0 is 4; expected a number from 0 to 3"),
        ([[1], [1]], {}, r"line 1: points is \[1\]; expected 2"),
        ([[1, "x"], [1]], {}, r"line 1: points.1 is 'x'"),
        ([[1, None], [1]], {}, r"line 1: points.1 is None"),
        ([[1, 1], [3]], {}, r"line 2: points.0 is 3; expected a number from 0 to 2"),
        ([[1, 1], [1]], {"grader": ""}, r"line 1: grader: there is no name"),
        ([[1, 1], [1]], {"sheet": "other"}, r"line 1: sheet is 'other'"),
        ([[1, 1], [1]], {"number": 7}, r"line 1: number: the log has no reply 7"),
    ],
)
def test_mistakes_have_a_line(log: Path, points: list[Any], more: dict[str, Any], told: str) -> None:
    with pytest.raises(EvalError, match=told):
        sheets.read_sheet(filled(log, points, **more), api.read_score(log))
    assert not sheets.grades_path(log).exists()


def test_the_page_needs_no_server_and_runs_its_own_script_alone(log: Path) -> None:
    sheets.write_sheet(api.read_score(log), log.parent / "sheet.html")
    text = (log.parent / "sheet.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and "script-src 'sha256-" in policy[1] and "secret_model" not in text
    assert "Because &lt;b&gt;so&lt;/b&gt;." in text and text.count('class="grade"') == 2
    assert text.count("<script>") == 1


def test_grade_asks_for_one_thing(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(capsys, "exam", "grade", log)[0] == 2
