"""A finished, aligned and forecast run on disk, and measurements of its model, for the tests of the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_run import fake_run, manifest

WEIGHTS = {stage: f"{i}{'ab' * 31}{i}" for i, stage in enumerate(("pretrain", "sft", "ppo"))}
NAMES = {"pretrain": "base", "sft": "sft", "ppo": "rbrm"}
RATES = {
    "disallowed.complied": (0.9, 0.25),
    "over_refused": (0.0, 0.125),
    "redteam.succeeded": (0.5, 0.375),
    "choices.facts": (0.25, 0.3125),
}


def interval(value: float, width: float = 0.0625) -> dict[str, float]:
    return {"estimate": value, "low": max(0.0, value - width), "high": min(1.0, value + width)}


def assessment(ece: float) -> dict[str, Any]:
    bins = [
        {"low": i / 4, "high": (i + 1) / 4, "count": 40, "confidence": i / 4 + 0.125, "accuracy": interval(i / 4 + 0.1)}
        for i in range(4)
    ]
    return {
        "questions": 80, "accuracy": 0.5625, "ece": interval(ece), "by_chance": 0.03125, "top_ece": interval(ece / 2),
        "brier": 0.6875, "log_loss": 1.1875, "bins": bins,
    }  # fmt: skip


def outcomes(column: int) -> dict[str, Any]:
    rates = [{"measure": name, **interval(value[column]), "n": 64, "keys": 16} for name, value in RATES.items()]
    calibration = {
        "temperature": 2.125,
        "fitted": 80,
        "before": assessment(0.1875 - column / 16),
        "after": assessment(0.046875),
    }
    return {"settings": {}, "left_out": {}, "rates": rates, "calibration": calibration}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def card_run(folder: Path, aligned: bool = True, forecast: bool = True) -> Path:
    """Write the run into `folder`/quickstart and return that."""
    run = fake_run(folder, steps=20)
    trained = json.loads((run / "pretrain/manifest.json").read_text())
    trained["metrics"] |= {"loss": 3.0625, "bits_per_byte": 1.84375, "device": "cpu"}
    write(run / "pretrain/manifest.json", trained)
    checkpoint(run, "pretrain")
    if forecast:
        claim = {"value": 1.75, "low": 1.625, "high": 1.9375, "level": 0.9, "unit": "bits per byte"}
        made = claim | {"record": "quickstart-001.json", "sha256": "f" * 64, "utc": "2026-03-02T08:59:00+00:00"}
        write(run / "ladder/manifest.json", manifest("ladder", 60.5, ["pack"], {"flops": 3e11, "compute_ratio": 61.5}))
        write(run / "forecast/manifest.json", manifest("forecast", 2.5, ["ladder"], made))
        reached = claim | {"loss": 1.84375, "error": -0.051, "covered": True}
        write(run / "outcome/manifest.json", manifest("outcome", 1.5, ["forecast"], reached))
    if aligned:
        for stage in ("sft", "ppo"):
            write(run / stage / "manifest.json", manifest(stage, 30.5, ["pretrain"], {"flops": 4.5e11}))
            checkpoint(run, stage)
        titles = {name: name.replace(".", " ").capitalize() for name in RATES}
        kept = {"base": 3.0625, "sft": 3.125, "rbrm": 3.25}
        found = manifest("outcomes", 90.5, ["ppo"], {"titles": titles, "pretraining_loss": kept})
        write(run / "outcomes/manifest.json", found | {"config": {"names": NAMES}})
        for i, name in enumerate(NAMES.values()):
            write(run / "outcomes" / name / "outcomes.json", outcomes(min(i, 1)))
            (run / "outcomes" / name / "records.jsonl").write_text("{}\n")
    return run


def checkpoint(run: Path, stage: str) -> None:
    write(run / stage / "checkpoint/config.json", {"model_type": "foretell"})
    write(run / stage / "checkpoint/manifest.json", {"files": {"model.safetensors": WEIGHTS[stage]}})


QUIZ = """exam: quiz
version: v1
title: A quiz of letters
note: Percentiles are made up for a test.
license: CC0-1.0
sections:
- name: choices
  kind: choice
  explain: false
  items:
    holdout: quiz.jsonl
- name: replies
  kind: free
  items:
    holdout: replies.jsonl
total:
  of: raw
  out_of: 800
  chart: {linear: [200, 800], step: 10}
  percentiles: {takers: {mean: 0, spread: 1}}
published:
- {model: GPT-4, score: 790, percentile: 99, source: "a report, table 1"}
"""


def quiz(folder: Path) -> Path:
    """A small exam: of four choices B is right in two, of two free responses B in one."""
    irt = {"difficulty": 0.0, "discrimination": 1.0}
    choices = [
        {
            "id": f"c{i}",
            "question": f"Which of these is number {i}?",
            "options": ["w", "x", "y", "z"],
            "answer": key,
            "irt": irt,
        }
        for i, key in enumerate("BABC")
    ]
    replies = [{"id": f"r{key}", "question": f"Say {key}.", "answer": key, "irt": irt} for key in "BD"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("quiz", choices), ("replies", replies)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "quiz.yaml").write_text(QUIZ)
    return folder / "quiz.yaml"


def contamination(folder: Path, model: str = "runs/quickstart") -> Path:
    part = {"n": 40, "value": 0.75, "low": 0.625, "high": 0.875}
    row = {
        "eval": "world.holdout.v1", "kind": "exam", "model": model, "items": 48, "contaminated_items": 6,
        "short_contaminated_items": 1, "share": 0.125, "whole": part, "clean": part | {"value": 0.6875},
        "degradation": {"estimate": -0.0833, "low": -0.25, "high": 0.125}, "reported": 0.6875,
    }  # fmt: skip
    index = {"documents": 1234, "sources": [{"name": "quickstart/world", "sha256": "1" * 64}]}
    return write(folder / "contamination.json", {"format": 1, "index": index, "evals": [row], "tables": []})


def languages(folder: Path, model: str = "runs/quickstart", comparable: bool = True) -> Path:
    rows = [
        {"language": code, "name": name, "n": 120, "accuracy": value, "low": value - 0.0625, "high": value + 0.0625,
         "without_letter": 3, "flagged": 0,
         "against_english": None if code == "en" else {"n": 120, "p": 0.03, **interval(value - 0.5)}}
        for code, name, value in (("en", "English", 0.5), ("de", "German", 0.4375), ("sw", "Swahili", 0.3125))
    ]  # fmt: skip
    value = {
        "kind": "languages", "version": 1, "model": model, "samples": "run.jsonl", "set": "MMLU, translated",
        "chance": 0.25, "mean": interval(0.41), "languages": rows, "published": {"comparable": comparable},
    }  # fmt: skip
    return write(folder / "run.summary.json", value)


def calibration(folder: Path, before: str, after: str, weights: str = "") -> Path:
    sides = {
        side: {
            "source": {"model": model, "weights": weights, "log": "run.jsonl"},
            **assessment(ece),
            "accuracy": interval(0.5625),
        }
        for side, model, ece in (("before", before, 0.0078125), ("after", after, 0.078125))
    }
    change = {key: interval(0.0703125) for key in ("accuracy", "ece", "top_ece")}
    repair = {"temperature": 2.5, "before": assessment(0.0859375), "after": assessment(0.015625)}
    value = {"format": 1, "bins": 10, "seed": 0, "level": 0.95, **sides, "change": change, "repair": repair}
    return write(folder / "calibration.json", value)


def summary(folder: Path, part: str, model: str = "runs/quickstart", **more: Any) -> Path:
    rows = [{"title": "Attacks that succeed", **interval(0.4375), "n": 32, "limit": "jailbreaks"}]
    value = {"form": "foretell.summary", "part": part, "title": "Attacks of ten families", "model": model, "rows": rows}
    return write(folder / f"{part}.json", value | more)
