"""A measurement is of this model by its weights, by its place, or by its name; else it is another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from card_run import WEIGHTS, card_run, write

from foretell.errors import CardError
from foretell.report.card.subject import Subject, subject_of


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    card_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return subject_of("runs/quickstart")


def test_a_run_is_its_last_stage(subject: Subject) -> None:
    assert subject.stages == ("pretrain", "sft", "ppo") and subject.final == "ppo"
    assert subject.weights == {digest: stage for stage, digest in WEIGHTS.items()}
    assert subject.shown == "runs/quickstart"


@pytest.mark.parametrize(
    ("model", "stage"),
    [
        ("runs/quickstart", "ppo"),
        ("./runs/quickstart/", "ppo"),
        ("runs/quickstart/pretrain/checkpoint", "pretrain"),
        ("/elsewhere/runs/quickstart", "ppo"),
        ("/elsewhere/runs/quickstart/sft/checkpoint", "sft"),
        ("quickstart", "ppo"),
        ("http://localhost:8000/v1#quickstart", "ppo"),
        ("runs/quickstart/outcomes/base", "pretrain"),
        ("gpt-4", None),
        ("runs/other", None),
        ("http://localhost:8000/v1", None),
        ("runs/quickstart/data", None),
        ("", None),
    ],
)
def test_by_name_or_place(subject: Subject, model: str, stage: str | None) -> None:
    assert subject.stage_of(model) == stage


def test_weights_decide_where_they_are_known(subject: Subject) -> None:
    assert subject.stage_of("anything", WEIGHTS["sft"]) == "sft"
    assert subject.stage_of("runs/quickstart", "c" * 64) is None


def test_another_run_of_the_same_name_is_another(subject: Subject, tmp_path: Path) -> None:
    card_run(tmp_path / "older")
    assert subject.stage_of("older/quickstart") is None


def test_open_weights_and_endpoints(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    found = subject_of(str(tmp_path / "small.gguf"))
    assert found.run is None and found.shown == "small.gguf"  # not where it lies, which may be someone's home
    assert found.stage_of(str(tmp_path / "small.gguf")) == "" and found.stage_of("other.gguf") is None
    url = "http://localhost:8000/v1#small"
    assert subject_of(url).stage_of(url) == "" and subject_of(url).stage_of("small") == ""
    assert subject_of("org/name").folder is None


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="There is no run or model"):
        subject_of(str(tmp_path / "none"))
    with pytest.raises(CardError, match=r"recipe\.yaml is missing"):
        subject_of(str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(CardError, match="no trained model yet"):
        subject_of(str(tmp_path))
    write(tmp_path / "reward/checkpoint/config.json", {})
    with pytest.raises(CardError, match="no trained model yet"):
        subject_of(str(tmp_path))
