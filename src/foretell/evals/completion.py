"""Completion functions: how an eval reaches a model, whatever it is, and chains that ask a model several times."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from foretell.chat import Conversation
from foretell.errors import EvalError, ForetellError
from foretell.evals.base import Completion, CompletionFn, Trial
from foretell.evals.prompts import Prompt, as_chat, as_text
from foretell.generate import Generator, Request, Result, Sampling, collect
from foretell.generate import Prompt as EnginePrompt

Ask = Callable[[Prompt, Mapping[str, Any]], Awaitable[Completion]]

Score = Callable[[Prompt, Sequence[str]], Awaitable[Sequence[float]]]

_KNOWN = frozenset(("max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "logprobs"))


class ModelFn:
    """A model as a completion function: every question is recorded as an event.

    name: what it is called in logs. ask: answers a prompt. identity: all that decides an answer beside prompt and
    parameters, such as a URL or a digest of weights; part of the cache's key. defaults: parameters of every question,
    which an eval's own do not overrule. score: log-probabilities in nats of continuations, where the model tells them.
    weights: SHA-256 of what was loaded, where that is known; it goes into the log, so that others can tell of which
    model it is.
    """

    weights = ""

    def __init__(
        self,
        name: str,
        ask: Ask,
        identity: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        score: Score | None = None,
    ) -> None:
        self.name, self._ask, self._defaults, self._score = name, ask, dict(defaults or {}), score
        self.identity = {"model": name, **(identity or {})}

    @property
    def can_score(self) -> bool:
        return self._score is not None

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

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
        if self._score is None:
            raise EvalError(f"{self.name} tells no log-probabilities. Take a local model, or an endpoint that does.")
        score = self._score

        async def ask() -> Completion:
            return Completion((), prompt, self.name, logprobs=tuple(await score(prompt, continuations)))

        key = {**self.identity, "prompt": prompt, "continuations": list(continuations), "params": {"temperature": 0}}
        done = await trial.call(key, ask)
        for continuation, logp in zip(continuations, done.logprobs, strict=True):
            trial.record("cond_logp", {"prompt": prompt, "completion": continuation, "logp": logp})
        return list(done.logprobs)


class ChainOfThoughtFn:
    """Asks for reasoning first, then for the answer: upstream's cot completion function.

    think, answer: the models that do; the same one in most cases.
    """

    can_score = False

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

    async def score(self, prompt: Prompt, continuations: Sequence[str], trial: Trial) -> list[float]:
        raise EvalError(f"{self.name} thinks before it answers, so it cannot score. Give the model itself.")


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


class Together:
    """Puts questions that come at the same time before a generator in one batch.

    While one batch is worked on, the next gathers, so that its size follows from the load. most: requests of a batch.
    """

    def __init__(self, generator: Generator, most: int = 256) -> None:
        self.generator, self.most = generator, most
        self._asked: list[tuple[Any, asyncio.Future[Any]]] = []
        self._scored: list[tuple[Any, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> list[Result]:
        found: list[Result] = await self._put(self._asked, request)
        return found

    async def score(self, prompt: EnginePrompt, continuations: Sequence[str]) -> list[float]:
        found: list[float] = await self._put(self._scored, (prompt, continuations))
        return found

    async def _put(self, queue: list[tuple[Any, asyncio.Future[Any]]], question: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue.append((question, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # all who ask in this turn of the loop
        while self._asked or self._scored:
            for queue, answer in ((self._asked, self._collect), (self._scored, self._scores)):
                taken, queue[:] = queue[: self.most], queue[self.most :]
                taken = [(question, future) for question, future in taken if not future.done()]
                if taken:
                    await self._answer(taken, answer)

    async def _answer(self, taken: list[tuple[Any, asyncio.Future[Any]]], answer: Callable[..., Any]) -> None:
        try:
            found = await answer([question for question, _ in taken])
        except ForetellError as error:
            if len(taken) == 1:
                if not taken[0][1].done():
                    taken[0][1].set_exception(error)
                return
            for one in taken:  # one that does not fit must not spoil the others
                await self._answer([one], answer)
            return
        except BaseException:
            for _, future in taken:
                future.cancel()
            raise
        for (_, future), value in zip(taken, found, strict=True):
            if not future.done():
                future.set_result(value)

    async def _collect(self, requests: list[Request]) -> list[list[Result]]:
        return await collect(self.generator, requests)

    async def _scores(self, asked: list[tuple[EnginePrompt, Sequence[str]]]) -> list[list[float]]:
        if (many := getattr(self.generator, "score_many", None)) is not None:
            found: list[list[float]] = await many(asked)
            return found
        return [await self.generator.score(prompt, continuations) for prompt, continuations in asked]


def from_generator(
    generator: Generator,
    name: str,
    *,
    chat: bool | None = None,
    identity: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ModelFn:
    """A local engine, or anything else that generates, as a model; questions are put together in batches.

    chat: whether text is put as a message (True), or messages as text (False); None leaves each as it is.
    """
    together = Together(generator)

    def form(prompt: Prompt) -> Prompt:
        return prompt if chat is None else as_chat(prompt) if chat else as_text(prompt)

    async def ask(prompt: Prompt, params: Mapping[str, Any]) -> Completion:
        asked = form(prompt)
        known = {key: value for key, value in params.items() if key in _KNOWN and value is not None}
        results = await together.ask(Request(_request(asked), Sampling(**known), params.get("n", 1)))
        usage = {"prompt_tokens": 0, "completion_tokens": 0}
        for result in results:
            if result.usage is not None:
                usage["prompt_tokens"] = result.usage.prompt_tokens
                usage["completion_tokens"] += result.usage.completion_tokens
        usage["total_tokens"] = sum(usage.values())
        return Completion(tuple(result.text for result in results), asked, name, usage)

    async def score(prompt: Prompt, continuations: Sequence[str]) -> Sequence[float]:
        return await together.score(_request(form(prompt)), continuations)

    return ModelFn(name, ask, identity, defaults, score if generator.can_score else None)


def _request(prompt: Prompt) -> EnginePrompt:
    return prompt if isinstance(prompt, str) else Conversation.from_openai(prompt)


async def dummy(prompt: Prompt, **params: Any) -> str:
    """Upstream's model for dry runs."""
    return "This is a dummy response."
