"""What `--with` finds: every form of measurement, of this model alone, and clear words for anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import card_run
import pytest
from card_run import WEIGHTS, write

from foretell.errors import CardError
from foretell.evals.completion import from_callable
from foretell.evals.exams import api
from foretell.report.card.evidence import Measurement
from foretell.report.card.forms import FORMS, find_measurements
from foretell.report.card.subject import Subject, subject_of


async def guess(prompt: Any, **params: Any) -> str:
    return "B"


def sit(log: Path, model: str = "runs/quickstart", weights: str = "") -> Path:
    """A real log of a small exam, of a model that always says B."""
    fn = from_callable(guess, model)
    fn.weights = weights
    exam = card_run.quiz(log.parent / "exam")
    api.run(exam, fn, holdout=True, out=log, store=log.parent / f"{log.stem}.sqlite")
    return log


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    card_run.card_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return subject_of("runs/quickstart")


def find(subject: Subject, *folders: str) -> list[Measurement]:
    return find_measurements(subject, [Path(folder) for folder in folders], Path("out"))


def test_every_form_is_found_and_told_apart(subject: Subject, tmp_path: Path) -> None:
    made = tmp_path / "made"
    card_run.contamination(made)
    card_run.languages(made)
    card_run.calibration(made, "runs/quickstart/pretrain/checkpoint", "runs/quickstart")
    card_run.summary(made, "redteam")
    sit(made / "exam.jsonl")
    write(made / "other.json", {"form": "something else", "part": 1, "rows": []})
    (made / "notes.json").write_text("[1, 2]")
    found = {each.form: each for each in find(subject, "made")}
    assert found.keys() == {form.name for form in FORMS} - {"eval"}
    assert found["calibration"].stages == ("pretrain", "ppo")
    assert {each.stages for name, each in found.items() if name != "calibration"} == {("ppo",)}


def test_calibration_of_a_model_that_has_moved_is_known_by_its_weights(subject: Subject, tmp_path: Path) -> None:
    for digest in subject.weights:
        card_run.calibration(tmp_path / digest, "/elsewhere", "/elsewhere", digest)
        assert [each.form for each in find(subject, digest)] == ["calibration"]
    card_run.calibration(tmp_path / "other", "/elsewhere", "/elsewhere", "0" * 64)
    with pytest.raises(CardError, match="measures /elsewhere"):
        find(subject, "other")


def test_an_exam_is_scored_into_the_card_s_folder(subject: Subject, tmp_path: Path) -> None:
    log = sit(tmp_path / "made/exam.jsonl", weights=WEIGHTS["pretrain"])
    (found,) = find(subject, "made")
    score = api.read_score(log)
    assert score.final is not None and score.final.percentile is not None
    document = found.document
    assert document.path == Path("out/computed/exam.json") and document.made_from == (Path("made/exam.jsonl"),)
    assert document.get("final", "value") == score.final.value
    assert document.get("final", "percentile") == list(score.final.percentile)
    assert [s["share"]["estimate"] for s in document.get("sections")] == [s.share for s in score.sections]
    assert found.stage == "pretrain"  # by its weights, though the name is the run's
    assert document.samples == Path("made/exam.jsonl")


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: card_run.contamination(folder, "gpt-4"),
        lambda folder: card_run.languages(folder, "runs/other"),
        lambda folder: card_run.calibration(folder, "runs/quickstart", "runs/other"),
        lambda folder: card_run.summary(folder, "safety", "gpt-4"),
        lambda folder: card_run.summary(folder, "safety", weights="e" * 64),
        lambda folder: card_run.summary(folder, "safety", ""),
    ],
)
def test_measurements_of_another_model_are_refused(subject: Subject, tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "made")
    with pytest.raises(CardError, match=r"measures .* and this card is of runs/quickstart") as caught:
        find(subject, "made")
    assert path.name in str(caught.value) and WEIGHTS["ppo"][:12] in str(caught.value)


def test_a_log_of_other_weights_is_refused_though_its_name_fits(subject: Subject, tmp_path: Path) -> None:
    sit(tmp_path / "made/exam.jsonl", weights="d" * 64)
    with pytest.raises(CardError, match=r"runs/quickstart \(weights dddddddddddd\)"):
        find(subject, "made")


def test_a_check_without_a_run_is_of_the_corpus(subject: Subject, tmp_path: Path) -> None:
    path = card_run.contamination(tmp_path / "made")
    value = json.loads(path.read_text())
    del value["evals"][0]["model"]
    write(path, value)
    with pytest.raises(CardError, match="no model that it names"):
        find(subject, "made")
    manifest = tmp_path / "runs/quickstart/data/manifest.json"
    write(manifest, json.loads(manifest.read_text()) | {"files": [{"path": "train.parquet", "sha256": "1" * 64}]})
    (found,) = find(subject, "made")
    assert found.stage == "ppo"


def test_folders_with_nothing_in_them_are_told(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="There is no none"):
        find(subject, "none")
    write(tmp_path / "made/x.json", {"a": 1})
    with pytest.raises(
        CardError, match=r"holds no measurement that a card knows\. Known are logs of foretell exam run"
    ):
        find(subject, "made")


@pytest.mark.parametrize("name", ["contamination.json", "run.summary.json", "safety.json"])
def test_a_damaged_file_is_named(subject: Subject, tmp_path: Path, name: str) -> None:
    made = tmp_path / "made"
    path = {"contamination.json": card_run.contamination, "run.summary.json": card_run.languages}.get(
        name, lambda folder: card_run.summary(folder, "safety")
    )(made)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CardError, match=rf"{name} is damaged"):
        find(subject, "made")


def test_a_damaged_log_is_named(subject: Subject, tmp_path: Path) -> None:
    log = sit(tmp_path / "made/exam.jsonl")
    log.write_bytes(log.read_bytes()[:-300])
    with pytest.raises(CardError, match=r"exam\.jsonl cannot be scored"):
        find(subject, "made")


def test_a_summary_without_its_fields_is_refused(subject: Subject, tmp_path: Path) -> None:
    card_run.summary(tmp_path / "made", "safety", title="")
    with pytest.raises(CardError, match="without part, title or rows"):
        find(subject, "made")


ROW = {"title": "Toxic", "estimate": 0.25, "low": 0.125, "high": 0.5, "n": 8}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"part": "safty"}, "part is 'safty'; a card has exams"),
        ({"weigths": "a"}, "there is a field 'weigths', .* Is it weights?"),
        ({"asked": "8"}, "asked is '8'; expected a number"),
        ({"rows": [ROW, 7]}, r"rows\[1\] is 7"),
        ({"rows": [ROW, {"title": "Toxic", "estimat": 0.25}]}, r"rows\[1\] has a field 'estimat', .* Is it estimate?"),
        ({"rows": [{"title": "Toxic", "value": 0.25}]}, r"rows\[0\] has no estimate"),
        ({"rows": [ROW | {"title": 1}]}, r"rows\[0\]\.title is 1"),
        ({"rows": [ROW | {"estimate": 25}]}, r"rows\[0\]\.estimate is 25, and a share lies between 0 and 1"),
        ({"rows": [ROW | {"low": -0.5}]}, r"rows\[0\]\.low is -0\.5"),
        ({"rows": [ROW | {"arm": "change", "estimate": -1.5}]}, r"estimate is -1\.5, .* between -1 and 1"),
        ({"rows": [ROW | {"estimate": "0.25"}]}, r"rows\[0\]\.estimate is '0\.25'; expected a number"),
        ({"rows": [ROW | {"n": True}]}, r"rows\[0\]\.n is True"),
        ({"rows": [ROW | {"form": "ratio"}]}, r"rows\[0\]\.form is 'ratio'; expected one of share"),
        ({"rows": [ROW | {"limit": "jailbreak"}]}, r"rows\[0\]\.limit is 'jailbreak'; expected one of hallucination"),
    ],
)
def test_a_summary_that_says_something_wrong_is_refused_by_its_place(
    subject: Subject, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    path = card_run.summary(tmp_path / "made", "safety")
    write(path, json.loads(path.read_text()) | more)
    with pytest.raises(CardError, match=said) as caught:
        find(subject, "made")
    assert path.name in str(caught.value)


def test_a_summary_may_tell_more_and_leave_numbers_empty(subject: Subject, tmp_path: Path) -> None:
    rows = [ROW | {"better": "low", "groups": 2}, ROW | {"estimate": None, "low": None, "high": None},
            ROW | {"estimate": 25.0, "high": 50, "form": "percent"}]  # fmt: skip
    card_run.summary(tmp_path / "made", "safety", rows=rows, levels=[], reasons={})
    assert len(find(subject, "made")) == 1


@pytest.mark.parametrize("text", ['{"spec": {"eval_name": "own"', ' {"spec" : {"eval_name": "own"\n', '{"spec": 5}\n'])
def test_a_log_whose_first_line_is_damaged_is_named(subject: Subject, tmp_path: Path, text: str) -> None:
    card_run.summary(tmp_path / "made", "safety")
    (tmp_path / "made/broken.jsonl").write_text(text)
    with pytest.raises(CardError, match=r"broken\.jsonl is a damaged log"):
        find(subject, "made")
    (tmp_path / "made/broken.jsonl").write_text('{"prompt": "a", "spec"\n')
    assert len(find(subject, "made")) == 1
