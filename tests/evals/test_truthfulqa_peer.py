"""TruthfulQA beside lm-eval: the same prompts and continuations are scored, and the same scores give the same figures.

lm-eval's own task files are read, and its own function makes MC2 of log-likelihoods; a scripted model scores both.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foretell.evals.academic_forms import FORMS, convert
from foretell.evals.base import Completion, Tally, Trial
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn
from foretell.evals.registry import Registry

found = importlib.util.find_spec("lm_eval")
pytestmark = [pytest.mark.peer, pytest.mark.skipif(found is None, reason="lm-eval is not installed")]


class Loader(yaml.SafeLoader):
    """Their files name functions, which are not needed."""


Loader.add_constructor("!function", lambda loader, node: str(node.value))


def theirs() -> tuple[str, Any]:
    """Their prompt's template, and their MC2 of (log-likelihood, greedy) pairs."""
    assert found is not None and found.submodule_search_locations
    folder = Path(next(iter(found.submodule_search_locations))) / "tasks" / "truthfulqa"
    config = yaml.load((folder / "truthfulqa_mc1.yaml").read_text(), Loader)
    source = (folder / "utils.py").read_text().partition("def process_results_mc2")[2].partition("\ndef ")[0]
    space: dict[str, Any] = {"np": np}
    exec(f"def process_results_mc2{source}", space)
    return config["doc_to_text"], space["process_results_mc2"]


def docs(count: int) -> list[dict[str, Any]]:
    rng, made = random.Random(0), []
    for i in range(count):
        true, false = (
            [f"True {i} {j}." for j in range(rng.randint(1, 4))],
            [f"False {i} {j}." for j in range(rng.randint(1, 5))],
        )
        one = rng.sample(false, rng.randint(1, len(false)))  # MC1 may have fewer wrong answers than MC2
        made.append({
            "question": f"What is it with {i}?",
            "mc1_targets": {"choices": [true[0], *one], "labels": [1, *[0] * len(one)]},
            "mc2_targets": {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)},
        })  # fmt: skip
    return made


def likelihood(prompt: str, continuation: str) -> float:
    return -30 * random.Random(f"{prompt}|{continuation}").random()


def test_truthfulqa_is_lm_evals() -> None:
    import jinja2

    template, mc2 = theirs()
    made, rows = make_eval(Registry(), "truthfulqa"), docs(50)
    for doc, sample in zip(rows, convert(FORMS["truthfulqa"], rows), strict=True):
        prompt = jinja2.Template(template, keep_trailing_newline=True).render(**doc)
        asked: dict[str, set[str]] = {}

        async def scores(text: Any, continuations: Sequence[str], asked: dict[str, set[str]] = asked) -> list[float]:
            asked.setdefault(text, set()).update(continuations)
            return [likelihood(text, c) for c in continuations]

        async def ask(prompt: Any, params: Any) -> Completion:
            raise AssertionError("nothing is sampled")

        trial, tally = Trial("x", [ModelFn("m", ask, score=scores)], random.Random(0)), Tally()
        asyncio.run(made.eval_sample(sample, trial))
        tally.add(trial.events)
        one, many = doc["mc1_targets"]["choices"], doc["mc2_targets"]["choices"]
        assert asked == {prompt: {f" {text}" for text in (*one, *many)}}
        likelier = np.argmax([likelihood(prompt, f" {text}") for text in one]) == 0
        share = mc2(doc, [(likelihood(prompt, f" {text}"), False) for text in many])["acc"]
        assert made.report(tally) == {"accuracy": float(likelier), "mc2": pytest.approx(share, rel=1e-12)}
