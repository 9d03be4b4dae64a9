"""Alignment as part of a run, at a size that takes seconds: every arm, what is skipped, what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import foretell
from clikit import invoke
from foretell.align.rules import RuleWeights
from foretell.errors import RecipeError
from foretell.pipeline import run_recipe, run_status
from foretell.pipeline.alignment import load_grader
from foretell.recipes import check_recipe, load_recipe

FAST: dict[str, Any] = {"device": "cpu", "precision": "float32"}
TUNE: dict[str, Any] = FAST | {"batch_tokens": 2048, "sequence_length": 1024, "lr": 1e-3}
RAW: dict[str, Any] = {
    "name": "aligned",
    "data": {
        "sources": [
            {"kind": "world", "documents": 300, "heldout_documents": 60, "kinds": {"hazards": 3, "personas": 1}},
        ],
        "sequence_length": 128,
        "tokens": 8_000,
        "heldout_tokens": 1_000,
    },
    "tokenizer": {"vocab_size": 512, "train_bytes": 40_000},
    "model": {"width": 32, "depth": 1, "head_dim": 16, "max_length": 1024},
    "train": {"tokens": 4096, "batch_tokens": 512, "eval_batches": 1, **FAST},
    "examine": {"samples": 1, "max_tokens": 3},
    "align": {
        "lessons": {"demonstrations": 120, "preferences": 60, "prompts": 40, "graded": 200, "things": 6, "people": 32},
        "sft": TUNE,
        "reward": TUNE,
        "ppo": {"rounds": 1, "prompts": 4, "minibatches": 1, "max_tokens": 12, "heldout": 0, **FAST},
        "arms": {
            "rbrm": {"rubric": 1.0},
            "rm": {},
            "rules": {"rules": 1.0},
            "mixed": {"ppo": {"ptx": 0.5, "ptx_rows": 1}, "judged": ["disallowed"]},
        },
        "outcomes": 6,
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned") / "run"
    run_recipe(check_recipe(RAW), folder, arms=True)
    return folder


def test_every_arm_is_trained_and_judged(run: Path) -> None:
    assert all(
        (run / stage / "checkpoint").is_dir() for stage in ("sft", "reward", "ppo", "ppo-rm", "ppo-rules", "ppo-mixed")
    )
    metrics = json.loads((run / "outcomes/manifest.json").read_text())["metrics"]
    assert set(metrics["rates"]) == {"base", "sft", "rbrm", "rm", "rules", "mixed"}
    for rates in metrics["rates"].values():
        for estimate, low, high in rates.values():
            assert 0 <= low <= estimate <= high <= 1
    assert (run / "outcomes/rbrm/records.jsonl").is_file() and (run / "outcomes/index.html").is_file()
    log = [json.loads(line) for line in (run / "ppo-mixed/log.jsonl").read_text().splitlines()]
    assert any("ptx_loss" in line for line in log)
    for stage, names in (("ppo", {"model", "rubric"}), ("ppo-rules", {"model", "rules"})):
        lines = [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]
        assert next(set(line["rewards"]) for line in lines if "rewards" in line) == names


def test_rules_are_fitted_on_top_of_the_reward_model(run: Path) -> None:
    metrics = json.loads((run / "rules/manifest.json").read_text())["metrics"]
    assert metrics["right"]["rules"] > max(0.6, metrics["right"]["model"]) and metrics["tested"] >= 10
    rules = RuleWeights.load(run / "rules/rules.json")
    weights = {kind: dict(zip(rules.names, row, strict=True)) for kind, row in rules.weights.items()}
    assert weights["refuse"]["refusal.A"] > weights["refuse"]["refusal.C"]
    assert weights["comply"]["refusal.D"] > weights["comply"]["refusal.A"]


def test_the_run_page_tells_of_it(run: Path) -> None:
    page = (run / "page/index.html").read_text(encoding="utf-8")
    assert "Alignment" in page and "../outcomes/index.html" in page and "Complies with disallowed requests" in page


def test_a_run_is_talked_to_by_its_main_arm(run: Path) -> None:
    assert foretell.load(run, device="cpu").path == run / "ppo/checkpoint"


def test_only_what_changed_is_done_again(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/manifest.json")}
    again = check_recipe({**RAW, "align": {**RAW["align"], "outcomes": 7}})
    run_recipe(again, run)
    changed = {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"outcomes", "page", "card"}
    _, states = run_status(run)
    assert {state.state for state in states} == {"done"}


def test_a_grader_may_be_told_what_to_judge(run: Path) -> None:
    grader = load_grader(run / "grader/grader.npz", ["disallowed"])
    assert list(grader.rubric.rewards) == ["disallowed"]
    assert set(load_grader(run / "grader/grader.npz").rubric.rewards) > {"disallowed", "allowed"}


@pytest.mark.parametrize(
    ("align", "why"),
    [
        ({"main": "none"}, "arms are rbrm"),
        ({"arms": {"rbrm": {"ppo": {"rate": 1}}}}, "rate"),
        ({"lessons": {"flaws": {"comply": 2}}}, "comply"),
        ({"lessons": {"flaws": {"laziness": 0.5}}}, "laziness"),
        ({"lessons": {"kinds": {"poems": 1}}}, "poems"),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(align: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        check_recipe({**RAW, "align": align})


def test_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "aligned.yaml"
    recipe.write_text(json.dumps({**RAW, "align": {**RAW["align"], "outcomes": 7}}))
    code, out, errors = invoke(capsys, "align", recipe, "--out", run)
    assert code == 0 and "disallowed.complied" in out and "rbrm" in out, errors
    recipe.write_text(json.dumps({key: value for key, value in RAW.items() if key != "align"}))
    code, _, errors = invoke(capsys, "align", recipe, "--out", tmp_path / "other")
    assert code == 2 and "no section align" in errors


def test_the_preset_is_sound() -> None:
    recipe = load_recipe("align-cpu")
    assert recipe.align is not None and recipe.align.main in recipe.align.arms


def test_the_example_of_fitted_rules_is_sound() -> None:
    recipe = load_recipe(Path(__file__).resolve().parents[2] / "examples" / "align-rules.yaml")
    assert recipe.align is not None and recipe.align.arms[recipe.align.main].rules > 0
