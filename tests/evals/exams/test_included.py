"""Exams that come with Foretell: the generated one here; published questions and textbooks where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretell.errors import EvalError
from foretell.evals.exams import api
from foretell.evals.exams.adapters import adapted, in_part
from foretell.evals.exams.takers import Taker

SIZES = {  # questions of the holdout's sections
    "lsat": [214, 76, 89], "sat-math": [93], "sat-reading": [66], "aqua": [82], "professional-law": [1220],
    "textbook-economics": [10], "textbook-physics-es": [59], "textbook-physics-pl": [66],
}  # fmt: skip


def test_the_generated_exam(tmp_path: Path) -> None:
    """Its splits share no question, worked ones are none of either, keys are balanced, better takers score higher."""
    tuning, holdout = api.open_exam("world"), api.open_exam("world", "holdout")
    for a, b in zip(tuning.sections, holdout.sections, strict=True):
        asked = [{(i.question, *i.images.values()) for i in part} for part in (a.items, b.items, a.shots)]
        assert len(asked[0]) == len(a.items) and not asked[0] & asked[1] and not asked[2] & (asked[0] | asked[1])
    assert not tuning.warnings and tuning.has_images
    assert all(shot.explanation for shot in tuning.sections[0].shots)
    scores = [
        api.run(tuning, Taker(tuning, theta), out=tmp_path / f"{theta}.jsonl", store=tmp_path / "s.sqlite").final
        for theta in (-1.5, 0.0, 1.5)
    ]
    values = [(score.value, score.percentile) for score in scores if score is not None]
    assert len(values) == 3 and values == sorted(values) and values[0][0] % 10 == 0
    assert tuning.digest == api.open_exam("world").digest


def test_every_exam_is_listed() -> None:
    found = {exam.name: exam for exam in api.listed()}
    assert set(found) == {"world", *SIZES}
    assert all(exam.splits == ("holdout", "nonholdout") for exam in found.values())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"from": "nowhere"}, "from is 'nowhere'; expected one of agieval"),
        ({"from": "world", "kind": "nothing", "count": 3}, "The world has no kind 'nothing'"),
        ({"from": "world", "kind": "choices", "count": 3, "colour": 1}, "has no option colour"),
        ({"from": "mmlu", "topic": "law"}, "options do not fit mmlu"),
        ({"from": "agieval", "files": "gone/x.jsonl"}, "there is no gone/x.jsonl. Set FORETELL_DATA"),
        (
            {"from": "exercises", "subject": "x", "lang": "en", "split": "train", "files": "gone.parquet"},
            "no gone.parquet",
        ),
    ],
)
def test_sources_that_are_none(source: dict[str, Any], told: str) -> None:
    with pytest.raises(EvalError, match=f"here: .*{told}"):
        adapted(source, "here")


def test_parts_split_keys_for_ever() -> None:
    keys = [f"key {i}" for i in range(500)]
    parts = [[k for k in keys if in_part(k, part)] for part in ("1/5", "2-3/5", "4-5/5")]
    assert sorted(key for part in parts for key in part) == sorted(keys) and [len(part) for part in parts] == [
        pytest.approx(share, abs=35) for share in (100, 200, 200)
    ]
    with pytest.raises(EvalError, match="part is '6/5'"):
        in_part("x", "6/5")


@pytest.mark.realdata
@pytest.mark.parametrize("name", SIZES)
def test_published_questions(name: str, real_data: Path, tmp_path: Path) -> None:
    """Read and sat whole, by a model that says A: its points are the share of keys that are A."""
    tuning, holdout = api.open_exam(name), api.open_exam(name, "holdout")
    assert [len(section.items) for section in holdout.sections] == SIZES[name]
    passages = [{(item.group or item.question) for _, item in exam.questions} for exam in (tuning, holdout)]
    assert not passages[0] & passages[1]
    if name.startswith("textbook"):
        score = api.run(holdout, lambda prompt, **params: "42", grader="person", out=tmp_path / "l.jsonl",
                        store=tmp_path / "s.sqlite")  # fmt: skip
        assert score.ungraded == SIZES[name][0]
        return
    score = api.run(tuning, lambda prompt, **params: "A", out=tmp_path / "l.jsonl", store=tmp_path / "s.sqlite")
    for section in score.sections:
        keys = [item.answer for part in tuning.sections if part.name == section.name for item in part.items]
        assert section.raw.estimate == keys.count("A") and section.n == len(keys)
    assert score.raw_highest == pytest.approx(tuning.spec.total.out_of)
