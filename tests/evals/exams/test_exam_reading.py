"""Exam files: every mistake is named with file and line or field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from examkit import ESSAY_SCALE, SHOT, choice_exam, choices, write_exam, write_jsonl

from foretell.errors import EvalError
from foretell.evals.exams.reading import exam_files, load_exam


def changed(path: Path, **fields: Any) -> Path:
    spec = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(spec | fields, sort_keys=False))
    return path


def test_a_whole_exam_is_read(tmp_path: Path) -> None:
    exam = load_exam(choice_exam(tmp_path), "holdout")
    assert exam.eval_name == "small.holdout.v0" and len(exam.questions) == 8 and not exam.warnings
    assert exam.digest != load_exam(choice_exam(tmp_path / "b", 12), "holdout").digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exam: small\ntitle: 5\nsections: []\ntotal: {out_of: 1}\n", r"small.yaml, line 2: title: .*string"),
        ("exam: other\ntitle: t\nsections:\n- {name: a, kind: choice, items: {}}\ntotal: {out_of: 1}\n",
         "line 1: exam is"),
        ("exam: small\ntitle: t\nsections:\n- name: a\n  kind: quiz\n  items: {}\ntotal: {out_of: 1}\n",
         "line 5: sections.0.kind: .*found \"quiz\""),
        ("exam: small\ntitle: t\nsections:\n- {name: a, kind: choice, items: {}}\ntotal: {out_of: 1}\nextra: 1\n",
         "line 6: extra: Extra"),
        ("exam: small\ntitle: t\nsections: [\n", "not readable YAML"),
        ("exam: small\ntitle: t\nsections:\n- {name: a, kind: choice, items: {}}\ntotal: {out_of: '1'}\n",
         "line 5: total.out_of: "),
    ],
)  # fmt: skip
def test_yaml_mistakes_have_a_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "small.yaml").write_text(text)
    with pytest.raises(EvalError, match=told):
        load_exam(tmp_path / "small.yaml", "holdout")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"answer": None}, "h.jsonl, line 3: answer: the gold is missing"),
        ({"answer": "E"}, "h.jsonl, line 3: answer: it is 'E'; expected a letter from A to D"),
        ({"options": ["x"]}, "h.jsonl, line 3: options: there are 1"),
        ({"options": ["x", "x", "y", "z"]}, "'x' stands there twice"),
        ({"question": 3}, "h.jsonl, line 3: question: "),
        ({"colour": "red"}, "h.jsonl, line 3: colour: Extra"),
        ({"id": "q0"}, "line 3: id 'q0' stands in .*line 1, too"),
        ({"images": {"a": "gone.png"}}, "h.jsonl, line 3: images.a: gone.png is not there"),
        ({"question": "See <image a>."}, "h.jsonl, line 3: images: the text shows 'a'"),
    ],
)
def test_question_mistakes_have_a_line(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    path = choice_exam(tmp_path)
    rows = choices(8)
    rows[1] |= row
    write_jsonl(tmp_path / "h.jsonl", [rows[0], "", *rows[1:]])
    with pytest.raises(EvalError, match=told):
        load_exam(path, "holdout")


def test_lines_that_are_no_json(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    write_jsonl(tmp_path / "h.jsonl", [*choices(2), "{"])
    with pytest.raises(EvalError, match=r"h.jsonl, line 3 is not JSON"):
        load_exam(path, "holdout")


def test_worked_questions_show_their_work(tmp_path: Path) -> None:
    path = choice_exam(tmp_path)
    write_jsonl(tmp_path / "s.jsonl", [{k: v for k, v in SHOT.items() if k != "explanation"}])
    with pytest.raises(EvalError, match=r"s.jsonl, line 1: explanation is missing"):
        load_exam(path, "holdout")
    write_jsonl(tmp_path / "s.jsonl", [choices(1)[0] | {"explanation": "It is."}])
    with pytest.raises(EvalError, match="this worked question is asked in the exam"):
        load_exam(path, "holdout")
    assert load_exam(choice_exam(tmp_path, section={"explain": False}), "holdout").sections[0].shots


def test_a_total_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"small.yaml, line \d+: total.out_of is 10, but holdout .* allow 8 at best"):
        load_exam(choice_exam(tmp_path, out_of=10), "holdout")
    path = choice_exam(tmp_path, section={"weight": 1.25}, out_of=10)
    assert load_exam(path, "holdout").sections[0].factor == 1.25
    with pytest.raises(EvalError, match="allow 170 at best"):
        load_exam(choice_exam(tmp_path, out_of=180, chart={"linear": [130, 170]}), "holdout")


def test_charts_are_of_the_points_that_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="no raw 8"):
        load_exam(choice_exam(tmp_path, out_of=20, chart={"0-3": 10, "4-7": 20}), "holdout")
    exam = load_exam(choice_exam(tmp_path, out_of=20, chart={"0-3": 10, "4-8": 20}, percentiles={10: 3, 20: "50-60"}),
                     "holdout")  # fmt: skip
    assert exam.chart is not None and exam.chart(4) == 20
    with pytest.raises(EvalError, match="gap at 20"):
        load_exam(choice_exam(tmp_path, out_of=20, chart={"0-3": 10, "4-8": 20}, percentiles={10: 3}), "holdout")


def test_points_for_wrong_and_blank_answers(tmp_path: Path) -> None:
    """As in a contest: 6 if right, 1.5 if left blank; or a quarter point off."""
    amc = load_exam(choice_exam(tmp_path, section={"points": 6, "blank": 1.5}, out_of=48), "holdout").sections[0]
    assert (amc.lowest, amc.highest) == (0, 48)
    sat = load_exam(choice_exam(tmp_path, section={"wrong": -0.25}), "holdout").sections[0]
    assert (sat.lowest, sat.highest) == (-2, 8)


def test_rubrics_and_scales(tmp_path: Path) -> None:
    free = {"name": "f", "kind": "free", "items": {"holdout": "f.jsonl"}}
    rows = [{"question": "Why?", "rubric": [{"criterion": "Says why.", "points": 3}]}, {"question": "How?"}]
    with pytest.raises(EvalError, match=r"f.jsonl, line 2: it has neither rubric nor answer"):
        load_exam(write_exam(tmp_path, [free], {"out_of": 3}, {"f.jsonl": rows}), "holdout")
    essay = {"name": "e", "kind": "essay", "items": {"holdout": "e.jsonl"}, "scale": ESSAY_SCALE, "weight": 2.0}
    path = write_exam(
        tmp_path, [free, essay], {"out_of": 7}, {"f.jsonl": rows[:1], "e.jsonl": [{"question": "Write."}]}
    )
    assert [section.highest for section in load_exam(path, "holdout").sections] == [3, 2]
    changed(path, sections=[free, essay | {"scale": {0: "a", 2: "b"}}])
    with pytest.raises(EvalError, match="whole numbers without a gap"):
        load_exam(path, "holdout")


def test_unbalanced_options_are_told(tmp_path: Path) -> None:
    path = choice_exam(tmp_path, 40)
    write_jsonl(tmp_path / "h.jsonl", [row | {"answer": "A"} for row in choices(40)])
    (told,) = load_exam(path, "holdout").warnings
    assert "A is right 40 of 40 times" in told
    rows = choices(40)
    for row in rows:
        row["options"]["ABCD".index(row["answer"])] += " and a good deal more"
    write_jsonl(tmp_path / "h.jsonl", rows)
    (told,) = load_exam(path, "holdout").warnings
    assert "the longest in 40 of 40" in told
    rows = choices(40)
    rows[0]["options"].append("none")
    write_jsonl(tmp_path / "h.jsonl", rows)
    (told,) = load_exam(path, "holdout").warnings
    assert "39 with 4, 1 with 5" in told


def test_splits_and_folders(tmp_path: Path) -> None:
    path = choice_exam(tmp_path, section={"items": {"holdout": "h.jsonl"}})
    with pytest.raises(EvalError, match="the section one has no nonholdout questions"):
        load_exam(path, "nonholdout")
    assert exam_files([tmp_path])["small"] == path
    with pytest.raises(EvalError, match="no folder"):
        exam_files([tmp_path / "gone"])
