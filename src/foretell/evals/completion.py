"""Completion functions: how an eval reaches a model, whatever it is, and chains that ask a model several times."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from foretell.chat import Conversation
from foretell.errors import EvalError, GenerationError
from foretell.evals.base import Completion, CompletionFn, Trial
from foretell.evals.prompts import Prompt, as_chat, as_text
from foretell.generate import Generator, Request, Sampling, collect

Ask = Callable[[Prompt, Mapping[str, Any]], Awaitable[Completion]]

_KNOWN = frozenset(("max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "logprobs"))


class ModelFn:
    """A model as a completion function: every question is recorded as a sampling event.

    name: what it is called in logs. ask: answers a prompt. identity: all that decides an answer beside prompt and
    parameters, such as a URL or a digest of weights; part of the cache's key. defaults: parameters of every question,
    which an eval's own do not overrule.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        identity: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self._ask, self._defaults = name, ask, dict(defaults or {})
        self.identity = {"model": name, **(identity or {})}

    async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str:
        asked = params | self._defaults
        key = {**self.identity, "prompt": prompt, "params": asked}
        done = await trial.call(key, lambda: self._ask(prompt, asked))
        data: dict[str, Any] = {"prompt": done.prompt, "sampled": list(done.texts)}
        if done.model:
            data["model"] = done.model
        if done.usage is not None:
            data["usage"] = dict(done.usage)
        trial.record("sampling", data)
        if not done.texts:
            raise EvalError(f"{self.name} gave no text; what it returned is in the log of {trial.id}.")
        return done.texts[0]


class ChainOfThoughtFn:
    """Asks for reasoning first, then for the answer: upstream's cot completion function.

    think, answer: the models that do; the same one in most cases.
    """

    def __init__(
        self, think: CompletionFn, answer: CompletionFn, cot_template: str = "", extract_answer_template: str = ""
    ) -> None:
        self.name = f"cot/{think.name}"
        self.think, self.answer = think, answer
        self.cot_template = cot_template or (
            "\nBefore answering, reason in a step-by-step manner as to get the right answer, then conclude with the "
            "answer."
        )
        self.extract_template = extract_answer_template or (
            "\nGiven the above reasoning, the answer in the format requested by the question is:"
        )

    async def __call__(self, prompt: Prompt, trial: Trial, **params: Any) -> str:
        asked: Prompt = [*as_chat(prompt), {"role": "assistant", "content": self.cot_template}]
        reasoning = await self.think(asked, trial, **params)
        last = [{"role": "assistant", "content": text} for text in (reasoning, self.extract_template)]
        return (await self.answer([*asked, *last], trial, **params)).strip()


def from_callable(function: Callable[..., Any], name: str = "") -> ModelFn:
    """A Python function as a model: prompt (text, or messages in OpenAI form) and parameters -> text or texts.

    It may be async, and may return upstream's result objects (get_completions).
    """
    named = name or getattr(function, "__name__", type(function).__name__)

    async def ask(prompt: Prompt, params: Mapping[str, Any]) -> Completion:
        answer = function(prompt, **params)
        if inspect.isawaitable(answer):
            answer = await answer
        if hasattr(answer, "get_completions"):
            answer = answer.get_completions()
        if isinstance(answer, str):
            return Completion((answer,), prompt, named)
        if isinstance(answer, Sequence) and all(isinstance(text, str) for text in answer):
            return Completion(tuple(answer), prompt, named)
        raise EvalError(f"{named} returned a {type(answer).__name__}; expected a text, or a list of texts.")

    return ModelFn(named, ask)


def from_generator(
    generator: Generator,
    name: str,
    *,
    chat: bool | None = None,
    identity: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ModelFn:
    """A local engine, or anything else that generates, as a model.

    chat: whether text is put as a message (True), or messages as text (False); None leaves each as it is.
    """

    async def ask(prompt: Prompt, params: Mapping[str, Any]) -> Completion:
        asked = prompt if chat is None else as_chat(prompt) if chat else as_text(prompt)
        known = {key: value for key, value in params.items() if key in _KNOWN and value is not None}
        request = Request(
            asked if isinstance(asked, str) else Conversation.from_openai(asked), Sampling(**known), params.get("n", 1)
        )
        try:
            (results,) = await collect(generator, [request])
        except GenerationError as error:
            raise EvalError(f"{name}: {error}") from error
        usage = {"prompt_tokens": 0, "completion_tokens": 0}
        for result in results:
            if result.usage is not None:
                usage["prompt_tokens"] = result.usage.prompt_tokens
                usage["completion_tokens"] += result.usage.completion_tokens
        usage["total_tokens"] = sum(usage.values())
        return replace(Completion((), asked, name, usage), texts=tuple(result.text for result in results))

    return ModelFn(name, ask, identity, defaults)


async def dummy(prompt: Prompt, **params: Any) -> str:
    """Upstream's model for dry runs."""
    return "This is a dummy response."
