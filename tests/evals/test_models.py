"""From the name of a model to its answers: functions, generators, endpoints, chains."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from evalkit import small_eval

from foretell.chat import Conversation
from foretell.errors import CheckpointError, EvalError, GenerationError
from foretell.evals.base import Trial
from foretell.evals.completion import ChainOfThoughtFn, from_callable, from_generator
from foretell.evals.models import as_model, make_model
from foretell.evals.registry import Registry
from foretell.evals.runner import run_eval
from foretell.generate import Prompt, Request, Result, Usage
from foretell.loading import Model

NONE = Registry(())


class Echo:
    """A generator that answers with its prompt, and remembers how questions came."""

    can_score = True

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []
        self.scored: list[int] = []

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        self.batches.append(list(requests))
        for i, request in enumerate(requests):
            prompt = request.prompt
            text = prompt if isinstance(prompt, str) else prompt.messages[-1].text
            if text == "too long" and len(requests) >= 1:
                raise GenerationError("It does not fit.")
            for sample in range(request.n):
                yield Result(f"{text}!", (), "stop", Usage(3, 2), request=i, sample=sample)
            await asyncio.sleep(0)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        return (await self.score_many([(prompt, continuations)]))[0]

    async def score_many(self, asked: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
        self.scored.append(len(asked))
        return [[-float(len(text)) for text in continuations] for _, continuations in asked]


def ask(fn: Any, prompt: Any, **params: Any) -> tuple[str, Trial]:
    trial = Trial("x.dev.0", [fn], random.Random(0))
    return asyncio.run(trial.complete(prompt, **params)), trial


@pytest.mark.parametrize(
    "function",
    [
        lambda prompt, **_: "yes",
        lambda prompt, **_: ["yes", "no"],
        lambda prompt, **_: type("R", (), {"get_completions": lambda self: ["yes"]})(),
    ],
    ids=["text", "texts", "upstream's result"],
)
def test_a_function_answers_in_any_form(function: Any) -> None:
    text, trial = ask(from_callable(function, "f"), "q", temperature=0)
    assert text == "yes"
    ((type, data),) = trial.events
    assert type == "sampling" and data["prompt"] == "q" and data["sampled"][0] == "yes" and data["model"] == "f"


def test_a_function_that_returns_no_text_is_told() -> None:
    with pytest.raises(EvalError, match="returned a int"):
        ask(from_callable(lambda prompt, **_: 3, "f"), "q")
    with pytest.raises(EvalError, match="gave no text"):
        ask(from_callable(lambda prompt, **_: [], "f"), "q")


def test_questions_of_one_moment_go_before_the_engine_together(tmp_path: Path) -> None:
    echo = Echo()
    made = small_eval(tmp_path, "Match", [{"input": f"q{i}", "ideal": f"q{i}!"} for i in range(200)])
    log = run_eval(made, [from_generator(echo, "echo")], tmp_path / "log.jsonl")
    assert log.report["accuracy"] == 1.0 and log.report["usage_total_tokens"] == 1000
    assert sum(map(len, echo.batches)) == 200 and len(echo.batches) < 12
    assert echo.batches[0][0].sampling.temperature == 0.0 and isinstance(echo.batches[0][0].prompt, str)


def test_one_question_that_does_not_fit_spoils_no_other(tmp_path: Path) -> None:
    echo = Echo()
    rows = [{"input": text, "ideal": f"{text}!"} for text in ("a", "too long", "b", "c")]
    made = small_eval(tmp_path, "Match", rows)
    log = run_eval(made, [from_generator(echo, "echo")], tmp_path / "log.jsonl")
    assert log.report["accuracy"] == 1.0 and log.report["invalid_samples"] == 1
    (message,) = (e["data"]["message"] for n in range(4) for e in log.events(n) if e["type"] == "invalid_sample")
    assert message == "It does not fit."


def test_a_model_that_reads_no_prompt_at_all_has_failed(tmp_path: Path) -> None:
    for number in (3, 40):
        made = small_eval(tmp_path / str(number), "Match", [{"input": "too long", "ideal": "x"}] * number)
        with pytest.raises(EvalError, match=r"samples have no answer; .*It does not fit.* 0 of"):
            run_eval(made, [from_generator(Echo(), "echo")], tmp_path / f"{number}.jsonl")


@pytest.mark.parametrize(("chat", "kind"), [(True, Conversation), (False, str), (None, str)])
def test_text_and_messages_are_put_as_the_model_reads_them(chat: bool | None, kind: type) -> None:
    echo = Echo()
    _, trial = ask(from_generator(echo, "echo", chat=chat), "q")
    assert isinstance(echo.batches[0][0].prompt, kind)
    assert trial.events[0][1]["prompt"] == ([{"role": "system", "content": "q"}] if chat else "q")
    ask(from_generator(echo, "echo", chat=chat), [{"role": "user", "content": "q"}])
    assert isinstance(echo.batches[1][0].prompt, str if chat is False else Conversation)


def test_defaults_go_before_the_evals_own_parameters() -> None:
    echo = Echo()
    ask(
        from_generator(echo, "echo", defaults={"temperature": 0.5}),
        "q",
        temperature=0.0,
        max_tokens=7,
        frequency_penalty=0,
    )
    sampling = echo.batches[0][0].sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.5, 7)


def test_continuations_are_scored_and_recorded() -> None:
    echo = Echo()
    trial = Trial("x.dev.0", [from_generator(echo, "echo")], random.Random(0))

    async def both() -> list[list[float]]:
        return list(await asyncio.gather(trial.score("p", ["a", "bbb"]), trial.score("q", ["cc"])))

    assert trial.can_score and asyncio.run(both()) == [[-1.0, -3.0], [-2.0]]
    assert echo.scored == [2]
    assert ("cond_logp", {"prompt": "p", "completion": "bbb", "logp": -3.0}) in trial.events
    blind = Trial("x.dev.0", [from_callable(lambda prompt, **_: "x", "f")], random.Random(0))
    assert not blind.can_score
    with pytest.raises(EvalError, match="tells no log-probabilities"):
        asyncio.run(blind.score("p", ["a"]))


def test_a_chain_of_thought_asks_twice_and_records_both() -> None:
    replies = iter(["Because.", " 4 \n"])
    inner = from_callable(lambda prompt, **_: next(replies), "m")
    text, trial = ask(ChainOfThoughtFn(inner, inner), "2 + 2?")
    assert text == "4" and [data["sampled"] for _, data in trial.events] == [["Because."], [" 4 \n"]]
    first, second = (data["prompt"] for _, data in trial.events)
    assert second[: len(first)] == first and first[0] == {"role": "system", "content": "2 + 2?"}
    assert second[-2] == {"role": "assistant", "content": "Because."}


def registry(tmp_path: Path, text: str) -> Registry:
    (tmp_path / "completion_fns").mkdir()
    (tmp_path / "completion_fns/x.yaml").write_text(text)
    return Registry((tmp_path,))


def test_registered_completion_functions_are_made(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        f"""
thinker: {{class: 'evals.completion_fns.cot:ChainOfThoughtCompletionFn', args: {{cot_completion_fn: dummy}}}}
solver:
  class: evals.solvers.nested.cot_solver:CoTSolver
  args: {{cot_solver: {{class: x, args: {{completion_fn_options: {{model: dummy}}}}}}}}
chat:
  class: evals.solvers.providers.openai.openai_solver:OpenAISolver
  args: {{completion_fn_options: {{model: gpt-x}}}}
own: {{class: '{__name__}:Own', args: {{word: hi}}}}
theirs: {{class: 'evals.completion_fns.langchain_llm:LangChainLLMCompletionFn'}}
""",
    )
    for name in ("thinker", "solver"):
        text, trial = ask(make_model(name, found), "q")
        assert text == "This is a dummy response." and len(trial.events) == 2
    assert ask(make_model("own", found), "q")[0] == "hi q"
    chat = make_model("chat", found)
    assert chat.name == "chat" and chat.identity["model"] == "gpt-x"  # type: ignore[attr-defined]
    with pytest.raises(EvalError, match="needs its code"):
        make_model("theirs", found)


class Own:
    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, prompt: str, **params: Any) -> str:
        return f"{self.word} {prompt}"


def test_references_name_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(make_model("dummy", NONE), "q")[0] == "This is a dummy response."
    assert make_model(f"{__name__}:shout", NONE).name == f"{__name__}:shout"
    assert ask(make_model(f"{__name__}:shout", NONE), "q")[0] == "Q"
    for ref, said in ((f"{__name__}:gone", "cannot be imported"), (f"{__name__}:NONE", "expected a function")):
        with pytest.raises(EvalError, match=said):
            make_model(ref, NONE)
    remote = make_model("http://localhost:9/v1#tiny", NONE)
    assert remote.name == "tiny" and remote.identity["url"] == "http://localhost:9/v1"  # type: ignore[attr-defined]
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EvalError, match="There is no model 'gpt-4o' here"):
        make_model("gpt-4o", NONE)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    assert make_model("gpt-4o", NONE).identity["chat"] is True  # type: ignore[attr-defined]
    assert make_model("gpt-3.5-turbo-instruct", NONE).identity["chat"] is False  # type: ignore[attr-defined]
    assert as_model(shout, NONE).name == "shout" and as_model(Echo(), NONE).can_score
    with pytest.raises(EvalError, match="A int is no model"):
        as_model(3, NONE)


def test_a_name_with_a_slash_is_a_hub_id_unless_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(ref: str) -> Any:
        asked.append(ref)
        raise CheckpointError("not reached")

    monkeypatch.setattr("foretell.loading.load", load)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(CheckpointError):
        make_model("org/small", NONE)
    assert asked == ["org/small"]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    assert make_model("org/small", NONE).name == "org/small" and len(asked) == 1


def shout(prompt: str, **params: Any) -> str:
    return prompt.upper()


def test_the_weights_of_a_loaded_model_go_into_the_log(tmp_path: Path) -> None:
    """They tell others, such as the system card, which model a run is of; its settings are the same without them."""
    from foretell.evals.results import result_of

    made = small_eval(tmp_path, "Match", [{"input": "q", "ideal": "q!"}])
    loaded = Model(Echo(), tmp_path / "checkpoint")
    plain = run_eval(made, [as_model(loaded, NONE)], tmp_path / "plain.jsonl")
    (tmp_path / "checkpoint").mkdir()
    digest = "ab" * 32
    (tmp_path / "checkpoint/manifest.json").write_text(json.dumps({"files": {"model.safetensors": digest}}))
    fn = as_model(loaded, NONE)
    assert fn.weights == digest
    log = run_eval(made, [fn], tmp_path / "log.jsonl")
    assert log.spec["run_config"]["weights"] == [digest] and "weights" not in plain.spec["run_config"]
    assert result_of(log).settings_digest == result_of(plain).settings_digest
