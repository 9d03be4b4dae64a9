"""TruthfulQA and moderation are put alike on both sides, and where their scores part is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_examination_figures import Scorer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from examination_safety import (
    ARMS,
    compare_moderation,
    compare_truthful,
    write_moderation,
    write_truthful,
)
from foretell.evals.api import open_registry, run

HEAD = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source"


def table(folder: Path) -> str:
    path = folder / "TruthfulQA.csv"
    rows = [
        f"A,C{i % 3},What is {i}?,It is {i},It is {i}; Number {i},It is {i + 1}; None; A fish{i},x" for i in range(20)
    ]
    path.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spoken(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


class Chat(Scorer):
    """Scores conversations, too."""

    async def score(self, prompt: Any, continuations: Any, trial: Any) -> list[float]:
        return await super().score(spoken(prompt), continuations, trial)


def answer(folder: Path, name: str, model: Scorer, noise: float, chat: bool) -> None:
    """lm-eval's answers, as its own functions make them of the scorer's log-probabilities and some noise."""
    docs = lines(folder / f"{name}.lm-eval.jsonl")
    space = "" if chat else " "
    for what in ("mc1", "mc2"):
        rows = []
        for doc in docs:
            told = doc[f"{what}_targets"]
            logs = np.array([model.asked[doc["query"], f"{space}{text}"] for text in told["choices"]])
            logs += [0.5, *[0.5 + noise] * (len(logs) - 1)] if chat else noise  # lm-eval's newline: the same for all
            labels, share = np.array(told["labels"]), np.exp(logs) / np.exp(logs).sum()
            acc = float(logs.argmax() == 0) if what == "mc1" else float(share[labels == 1].sum())
            rows.append({"acc": acc, "resps": logs.tolist()})
        found = {"seconds": 1.0, "acc": float(np.mean([row["acc"] for row in rows])), "rows": rows}
        (folder / f"{name}-{what}.float32.json").write_text(json.dumps(found))
        (folder / f"{name}-{what}.float64.json").write_text(json.dumps(found | {"rows": rows[:4]}))


@pytest.mark.parametrize(("name", "chat"), ARMS.items())
def test_truthfulqa_is_put_alike_and_compared(tmp_path: Path, name: str, chat: bool) -> None:
    args = write_truthful(tmp_path, name, 8, path=table(tmp_path))
    model = Chat()
    run(name, model, registry=open_registry(), args=args, out=tmp_path / f"{name}.log.jsonl")
    docs = lines(tmp_path / f"{name}.lm-eval.jsonl")
    assert len(docs) == 8 and {query for query, _ in model.asked} == {doc["query"] for doc in docs}
    before = {"truthfulqa": 6, "truthfulqa-5shot": 5, "truthfulqa-chat": 0}[name]
    assert all(doc["query"].count("\nA:") == before + 1 for doc in docs)  # worked samples stand there once
    answer(tmp_path, name, model, 1e-5, chat)
    found = compare_truthful(tmp_path, name)
    key = name.replace("-", "_")
    assert found[f"{key}_mc1_apart"]["value"] == 0 and found[f"{key}_mc2_apart"]["value"] < (1e-4 if chat else 1e-12)
    assert found[f"{key}_agree"]["value"] == 8
    assert found[f"{key}_logprob_apart"]["value"] == pytest.approx(1e-5, rel=0.01)
    others = 4 / 5 if chat else 1  # the share of a row's continuations beside the one that the others are compared with
    assert found[f"{key}_off_double"]["value"] == pytest.approx(1e-5 * others**0.5, rel=0.02)
    assert found[f"{key}_off_double_lm_eval"]["value"] == 0
    assert "process_results_mc2" in (tmp_path / f"{name}-mc2.yaml").read_text()

    file = tmp_path / f"{name}-mc2.float32.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"acc": 2.0}))
    worse = compare_truthful(tmp_path, name)
    assert worse[f"{key}_mc2_apart"]["value"] == pytest.approx(2 - worse[f"{key}_mc2"]["value"], abs=1e-3)


def test_moderation_is_put_alike_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"text {i}", "V": i % 2, "S3": int(i < 5)}) + "\n" for i in range(24))
    )
    args = write_moderation(tmp_path, 12, path=str(path))
    model = Scorer()
    run("moderation", model, registry=open_registry(), args=args, out=tmp_path / "moderation.log.jsonl")
    docs = lines(tmp_path / "moderation.lm-eval.jsonl")
    assert len(docs) == 24 and set(model.asked) == {
        (doc["query"], f" {word}") for doc in docs for word in ("no", "yes")
    }
    resps = [[model.asked[doc["query"], f" {word}"] for word in doc["choices"]] for doc in docs]
    rows = [
        {"acc": float((yes > no) == doc["gold"]), "resps": [no, yes]}
        for (no, yes), doc in zip(resps, docs, strict=True)
    ]
    peer = {"seconds": 1.0, "acc": float(np.mean([row["acc"] for row in rows])), "rows": rows}
    for dtype in ("float32", "float64"):
        (tmp_path / f"moderation.{dtype}.json").write_text(json.dumps(peer))
    found = compare_moderation(tmp_path)
    assert found["moderation_accuracy_apart"]["value"] == found["moderation_logprob_apart"]["value"] == 0
    assert found["moderation_ap_apart"]["value"] < 1e-12 and found["moderation_ap_macro_apart"]["value"] < 1e-12
    assert found["moderation_agree"]["value"] == 24
    assert "chance is 0.25" in found["moderation_sexual_minors_ap"]["unit"]

    rows[0]["resps"] = rows[0]["resps"][::-1]
    (tmp_path / "moderation.float32.json").write_text(json.dumps(peer))
    assert compare_moderation(tmp_path)["moderation_logprob_apart"]["value"] > 1e-3
