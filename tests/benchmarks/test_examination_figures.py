"""The examination asks both sides the same, and finds where their scores part."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import examination
from examination import Task, compare, write_rows
from foretell.evals.api import open_registry, run


class Scorer:
    """Scores by the text alone, and keeps what it was asked."""

    name, can_score = "scorer", True

    def __init__(self) -> None:
        self.asked: dict[tuple[str, str], float] = {}

    async def __call__(self, prompt: Any, trial: Any, **params: Any) -> str:
        return " 7 is the sum\n#### 7"

    async def score(self, prompt: Any, continuations: Any, trial: Any) -> list[float]:
        told = []
        for text in continuations:
            self.asked[prompt, text] = logp = -float(np.random.default_rng(list((prompt + text).encode())).random()) * 5
            trial.record("cond_logp", {"prompt": prompt, "completion": text, "logp": logp})
            told.append(logp)
        return told


def published(folder: Path, form: str) -> Path:
    """A few rows as the published file has them."""
    if form == "mmlu":
        rows = ["question,A,B,C,D,answer"]
        rows = [f"What is {i} and {i}?,{2 * i},{i},{3 * i},none,{'ABCD'[i % 4]}" for i in range(12)]
        path = folder / "sums_test.csv"
        path.write_text("\n".join(["question,choice0,choice1,choice2,choice3,answer", *rows]) + "\n")
        return path
    path = folder / f"{form}.jsonl"
    if form == "gsm8k":
        made = [{"question": f"What is {i} and 3?", "answer": f"It is {i + 3}.\n#### {i + 3}"} for i in range(12)]
    elif form == "lambada":
        made = [{"text": f"In the end there were {i} more words"} for i in range(12)]
    else:
        made = [
            {"query": f"Question: Which is {i}?", "choices": [f"{i}{c}" for c in "abc"], "gold": i % 3}
            for i in range(12)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def examine(folder: Path, task: Task) -> tuple[Scorer, Path, list[dict[str, Any]]]:
    args = write_rows(folder, task, 8)
    model, log = Scorer(), folder / "log.jsonl"
    run(task.name, model, registry=open_registry(), args=args, out=log)
    return model, log, [json.loads(line) for line in (folder / f"{task.name}.lm-eval.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "form", "more"),
    [("arc-challenge", "arc", {"num_few_shot": 2}), ("mmlu", "mmlu", {"shots": "", "num_few_shot": 2})],
)
def test_choices_are_put_alike_and_compared(tmp_path, name, form, more):
    task = Task(name, 8, args={"path": str(published(tmp_path, form)), **more})
    model, log, rows = examine(tmp_path, task)
    assert len(rows) == 8
    assert {(row["query"], f" {choice}") for row in rows for choice in row["choices"]} == set(model.asked)
    assert all(row["query"].count("Answer:") == 3 for row in rows)
    resps = [[[[model.asked[row["query"], f" {c}"] + 1e-5, 0.0]] for c in row["choices"]] for row in rows]
    sums = np.array([[r[0][0] for r in one] for one in resps])
    gold = np.array([row["gold"] for row in rows])
    acc = (sums.argmax(axis=1) == gold).astype(float)
    length = np.array([[len(c) for c in row["choices"]] for row in rows])
    normed = ((sums / length).argmax(axis=1) == gold).astype(float)
    theirs = {
        "scores": {"acc,none": acc.mean(), "acc_norm,none": normed.mean()},
        "rows": [
            {"at": i, "filter": "none", "resps": r, "acc": acc[i], "acc_norm": normed[i]} for i, r in enumerate(resps)
        ],
    }
    found = compare(name, log, theirs)
    key = name.replace("-", "_")
    what = "acc" if form == "mmlu" else "acc_norm"
    assert found[f"{key}_{what}_apart"]["value"] == 0 and found[f"{key}_{what}_contained"]["value"] == 1
    assert found[f"{key}_agree"]["value"] == 8
    assert found[f"{key}_logprob_apart"]["value"] == pytest.approx(1e-5, rel=0.01)
    theirs["scores"][f"{what},none"] = -0.5
    worse = compare(name, log, theirs)
    assert worse[f"{key}_{what}_apart"]["value"] == pytest.approx(worse[f"{key}_score"]["value"] + 0.5)
    assert worse[f"{key}_{what}_contained"]["value"] == 0


def test_replies_and_words_are_compared(tmp_path):
    task = Task("gsm8k", 8, "generate_until", {"path": str(published(tmp_path, "gsm8k")), "num_few_shot": 1})
    _, log, rows = examine(tmp_path, task)
    right = [float(row["answer"] == "7") for row in rows]
    assert sum(right) == 1 and all(row["query"].endswith("Answer:") for row in rows)
    theirs = {
        "scores": {"exact_match,flexible-extract": np.mean(right), "exact_match,strict-match": np.mean(right)},
        "rows": [
            {"at": i, "filter": how, "resps": [["7 is the sum\n#### 7" if i else "No."]], "exact_match": right[i]}
            for how in ("flexible-extract", "strict-match")
            for i in range(8)
        ],
    }
    found = compare("gsm8k", log, theirs)
    assert found["gsm8k_replies_alike"]["value"] == 7 and found["gsm8k_agree"]["value"] == 8
    assert found["gsm8k_flexible_contained"]["value"] == 1

    task = Task("lambada", 8, "loglikelihood", {"path": str(published(tmp_path, "lambada"))})
    model, log, rows = examine(tmp_path, task)
    told = [model.asked[row["query"], row["continuation"]] for row in rows]
    theirs = {
        "scores": {"perplexity,none": float(np.exp(-np.mean(told))), "acc,none": 0.0},
        "rows": [{"at": i, "filter": "none", "resps": [[[x, 0.0]]], "acc": 0.0} for i, x in enumerate(told)],
    }
    found = compare("lambada", log, theirs)
    assert found["lambada_perplexity_apart"]["value"] < 1e-12 and found["lambada_perplexity_contained"]["value"] == 1
    assert found["lambada_agree"]["value"] == 8 and found["lambada_acc_contained"]["value"] == 1


def test_the_peer_s_tasks_are_its_own_kinds():
    assert {task.name: task.kind for task in examination.TASKS} == {
        "mmlu": "multiple_choice", "arc-challenge": "multiple_choice", "hellaswag": "multiple_choice",
        "lambada": "loglikelihood", "gsm8k": "generate_until",
    }  # fmt: skip
