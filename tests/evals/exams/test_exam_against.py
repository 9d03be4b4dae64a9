"""Two models over exams: paired by question, exams alike, multiple choice alone unless asked otherwise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from examkit import choice_exam, choices, write_exam

from clikit import invoke
from foretell.errors import EvalError
from foretell.evals.exams import api
from foretell.evals.exams.against import against, shares
from foretell.evals.exams.scoring import ExamScore
from foretell.measure.stats import paired_difference


def base(prompt: Any, **params: Any) -> str:
    return "A"


def tuned(prompt: Any, **params: Any) -> str:
    """Right where A is, and where B is."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return "B" if int(text.split("Which is number ")[-1].split("?")[0]) % 4 == 1 else "A"


def sit(path: Path, model: Any, **settings: Any) -> ExamScore:
    return api.run(path, model, out=path.parent / f"{model.__name__}.jsonl", store=path.parent / "s.sqlite", **settings)


def test_differences_are_paired(tmp_path: Path) -> None:
    path = choice_exam(tmp_path, 40)
    found = against([sit(path, tuned)], [sit(path, base)])
    (row,) = found.rows
    told = paired_difference([float(i % 4 < 2) for i in range(40)], [float(i % 4 == 0) for i in range(40)])
    assert (row.baseline, row.candidate) == (0.25, 0.5) and row.comparison.difference == told
    assert found.mean.estimate == 0.25 and found.mean.low == pytest.approx(told.low)


def test_exams_count_alike(tmp_path: Path) -> None:
    """The mean over exams, and its margins as those of a sum of independent ones."""
    paths = []
    for name, count in (("small", 40), ("other", 8)):
        path = choice_exam(tmp_path / name, count)
        path.write_text(path.read_text().replace("exam: small", f"exam: {name}"))
        paths.append(path.rename(path.with_name(f"{name}.yaml")))
    found = against([sit(p, tuned) for p in paths], [sit(p, base) for p in paths])
    d = [row.comparison.difference for row in found.rows]
    assert found.mean.estimate == 0.25 and found.baseline == 0.25 and found.candidate == 0.5
    assert found.mean.estimate - found.mean.low == pytest.approx(math.hypot(*(x.estimate - x.low for x in d)) / 2)


def test_free_responses_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    sections = [
        {"name": "a", "kind": "choice", "items": {"nonholdout": "n.jsonl"}, "explain": False},
        {"name": "b", "kind": "free", "items": {"nonholdout": "f.jsonl"}},
    ]
    files = {"n.jsonl": choices(8), "f.jsonl": [{"question": "Which is number 0?", "answer": "A"}]}
    score = sit(write_exam(tmp_path, sections, {"out_of": 9}, files), base)
    assert len(shares(score).values) == 8 and len(shares(score, choices_only=False).values) == 9


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    one = sit(choice_exam(tmp_path / "a"), base)
    with pytest.raises(EvalError, match="with other questions"):
        against([one], [sit(choice_exam(tmp_path / "b", 12), base)])
    with pytest.raises(EvalError, match="are of one exam"):
        against([one, one], [one])
    with pytest.raises(EvalError, match="no exam in common"):
        against([one], [])


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """list, run and report, as a user types them; pages are whole and name what they show."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def base(prompt, **params):\n    return 'A'\n\n\ndef tuned(prompt, **params):\n"
                                      "    return 'B'\n")  # fmt: skip
    choice_exam(
        tmp_path / "own", 8, out_of=170, chart={"linear": [130, 170]}, percentiles={"130-149": "25-50", "150-170": 62}
    )
    code, out, _ = invoke(capsys, "exam", "list", "--exams", "own")
    assert code == 0 and "A small exam" in out and "world" in out
    for name in ("base", "tuned"):
        code, out, err = invoke(capsys, "exam", "run", f"mine:{name}", "small", "--exams", "own", "--holdout",
                                "--record-path", f"{name}.jsonl")  # fmt: skip
        assert code == 0, err
    assert "one      8  2 of 8" in out and "140 (" in out and "25 (25 to " in out
    code, out, err = invoke(capsys, "exam", "run", "mine:base", "small", "--exams", "own", "--holdout", "--fresh",
                            "--record-path", "again.jsonl")  # fmt: skip
    assert "Holdout run 2 of this model: not a first look." in out
    code, out, err = invoke(capsys, "exam", "report", "tuned.jsonl", "again.jsonl", "--against", "base.jsonl")
    assert code == 2 and "of one exam" in err
    code, out, err = invoke(capsys, "exam", "report", "tuned.jsonl", "--against", "base.jsonl", "--out", "pages")
    assert code == 0 and "mine:tuned against mine:base" in out, err
    page = (tmp_path / "pages" / "tuned.html").read_text()
    assert "A small exam: mine:tuned" in page and 'id="q7"' in page and "Which is number 7?" in page
    assert (tmp_path / "pages" / "tuned-against.html").is_file()
    assert "not a first look" in (tmp_path / "again.html").read_text()
    code, _, err = invoke(capsys, "exam", "run", "dummy", "smal", "--exams", "own")
    assert code == 2 and "Near are small" in err
