"""Published benchmarks: their files are read, their prompts are built, and answers are judged by their own rules."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from foretell.evals.academic import Benchmark
from foretell.evals.base import Completion, Tally, Trial
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn
from foretell.evals.registry import Registry

Reply = Callable[[dict[str, Any], str], str]
Score = Callable[[dict[str, Any], str, str], float]
COUNTS = {
    "gsm8k": 1319, "mgsm": 2750, "mmlu": 14042, "arc-challenge": 1172, "arc-easy": 2376, "hellaswag": 10042,
    "winogrande": 1267, "lambada": 5153, "truthfulqa": 817, "bbh": 6511, "ifeval": 541, "humaneval": 164,
}  # fmt: skip


def text_of(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else prompt[0]["content"]


def judged(
    eval: Benchmark, samples: Sequence[dict[str, Any]], reply: Reply | None = None, score: Score | None = None
) -> tuple[dict[str, Any], list[list[tuple[str, dict[str, Any]]]]]:
    """The report and the events of a model that is told the sample it is asked."""
    tally, events = Tally(eval.kept), []

    async def one(sample: dict[str, Any]) -> None:
        async def ask(prompt: Any, params: Any) -> Completion:
            return Completion((reply(sample, text_of(prompt)),), prompt)

        async def scores(prompt: Any, continuations: Sequence[str]) -> list[float]:
            return [score(sample, text_of(prompt), c) for c in continuations]

        trial = Trial("x", [ModelFn("fake", ask, score=scores if score else None)], random.Random(0))
        await eval.eval_sample(sample, trial)
        tally.add(trial.events)
        events.append(trial.events)

    async def everything() -> None:
        await asyncio.gather(*map(one, samples))

    asyncio.run(everything())
    return eval.report(tally), events


def benchmark(name: str, **changed: Any) -> Benchmark:
    made = make_eval(Registry(), name, **changed)
    assert isinstance(made, Benchmark)
    return made


def some(eval: Benchmark, count: int = 200) -> list[dict[str, Any]]:
    samples = eval.samples()
    return random.Random(0).sample(list(samples), min(count, len(samples)))


def right(sample: dict[str, Any], prompt: str) -> str:
    """What a model would say that knows."""
    if "choices" in sample:
        options = re.findall(r"^([A-Z])\. (.*)", prompt.rpartition("\n\n")[2], re.MULTILINE)
        return next(
            f" {letter}" for letter, text in options if text == sample["options"][sample["gold"]].split("\n")[0]
        )
    if "canonical_solution" in sample:
        return sample["canonical_solution"]
    if prompt.rstrip().endswith("step by step."):
        return f"Because of this and that. So the answer is {sample['ideal'][0]}."
    return sample.get("answer", sample["ideal"][0])


def wrong(sample: dict[str, Any], prompt: str) -> str:
    if "choices" in sample:
        letter = right(sample, prompt).strip()
        return "B" if letter == "A" else "A"
    return "    return None\n" if "canonical_solution" in sample else "So the answer is 987654321."


def score_right(sample: dict[str, Any], prompt: str, continuation: str) -> float:
    gold = sample["gold"]
    if "contexts" in sample:
        return -1.0 if prompt.endswith(sample["contexts"][gold]) else -2.0
    if continuation.strip() in tuple("ABCD") and prompt.endswith("Answer:"):
        return -1.0 if ord(continuation[1]) - ord("A") == gold else -2.0
    # A character's worth, so that a long right answer is still likelier than a short wrong one.
    right = continuation[1:] in (sample["options"][gold], *sample.get("true", ()))
    return -0.001 * len(continuation) if right else -50.0 * len(continuation)


@pytest.mark.realdata
@pytest.mark.parametrize("name", COUNTS)
def test_reads_every_row(name: str) -> None:
    samples = benchmark(name).samples()
    assert len(samples) == COUNTS[name]
    assert all(sample["query"] for sample in samples)


@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in COUNTS if name not in ("ifeval", "humaneval")])
def test_who_knows_scores_1_and_who_does_not_0(name: str) -> None:
    eval = benchmark(name)
    samples = some(eval)
    assert judged(eval, samples, right)[0]["accuracy"] == 1
    report, events = judged(eval, samples, wrong)
    assert report["accuracy"] == 0
    matches = [data for event in events for type, data in event if type == "match"]
    assert [data["group"] for data in matches] == [sample.get("group") for sample in samples]


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mmlu", "arc-challenge", "hellaswag", "winogrande", "truthfulqa"])
def test_likelihoods_choose(name: str) -> None:
    eval = benchmark(name)
    samples = some(eval)
    report, _ = judged(eval, samples, score=score_right)
    assert report["accuracy"] == 1
    assert report.get("mc2", 1) == pytest.approx(1)
    report, _ = judged(eval, samples, score=lambda *asked: -score_right(*asked))
    assert report["accuracy"] == 0
