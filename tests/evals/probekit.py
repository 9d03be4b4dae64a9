"""What tests of probes share: a probe by its name in the registry, a model that is a function, and its rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foretell.evals.base import Completion
from foretell.evals.classes import make_eval
from foretell.evals.completion import ModelFn
from foretell.evals.log import RunLog
from foretell.evals.rates import Probe, graded_of, rates_of
from foretell.evals.registry import Registry
from foretell.evals.runner import run_eval

Say = Callable[[list[dict[str, Any]]], str]
Score = Callable[[str, str], float]


def probe(name: str, **args: Any) -> Probe:
    made = make_eval(Registry(), name, **args)
    assert isinstance(made, Probe)
    return made


def model(say: Say, score: Score | None = None, name: str = "model") -> ModelFn:
    """say: of the messages (text is one message of the user). score: of the last message and a continuation."""

    async def ask(prompt: Any, params: Any) -> Completion:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return Completion((say(messages),), prompt, name)

    async def scores(prompt: Any, continuations: Sequence[str]) -> list[float]:
        assert score is not None
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        return [score(text, continuation) for continuation in continuations]

    return ModelFn(name, ask, score=scores if score else None)


def ran(folder: Path, made: Probe, *models: ModelFn, log: str = "log.jsonl") -> RunLog:
    return run_eval(made, models, folder / log)


def rates(folder: Path, made: Probe, *models: ModelFn) -> dict[str, float]:
    """Of a run, the rates by measure, without those of which nothing was asked."""
    log = ran(folder, made, *models)
    assert not log.invalid.any()
    return {rate.measure.name: rate.value.estimate for rate in rates_of(log) if rate.n}


def write_rows(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def grades(log: RunLog) -> list[dict[str, float]]:
    return [dict(sample.grades) for sample in graded_of(log)]
