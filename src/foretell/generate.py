"""The Generator protocol: whatever can answer, behind one interface.

The local engine, an OpenAI-compatible endpoint and a plain Python callable all implement it, so evals,
alignment and serving never ask which one they hold.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from foretell.chat import Conversation
from foretell.errors import GenerationError
from foretell.template import Encoded

T = TypeVar("T")

Prompt = Conversation | Encoded | str
"""A conversation (the template adds the reply's opening), ready token ids, or plain text to be continued."""


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. top_k 0 means all. seed None draws a fresh one.

    min_p: tokens less likely than this share of the likeliest are left out. frequency_penalty, presence_penalty: taken
    off a token's logit for each time, and for any time, it stands in the reply so far (OpenAI's definition).
    logit_bias: added to tokens' logits, by id; −100 forbids one. stop: strings that end a reply and are cut from it.
    logprobs: how many of the likeliest tokens are told with each token, by the model's own distribution; 0 tells none.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int = 0

    def __post_init__(self) -> None:
        stop: object = self.stop
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(self.stop))
        for name, ok, allowed in (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more, and finite"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "-2 to 2"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "-2 to 2"),
            ("logit_bias", all(-100 <= bias <= 100 for bias in self.logit_bias.values()), "-100 to 100 for each token"),
            ("logprobs", 0 <= self.logprobs <= 20, "0 to 20"),
            ("stop", all(isinstance(s, str) and s for s in self.stop), "strings that are not empty"),
        ):
            if not ok:
                raise GenerationError(f"{name} is {getattr(self, name)!r}; allowed is {allowed}.")


@dataclass(frozen=True)
class Grammar:
    """What a reply must be: text is a JSON schema, a regular expression or a grammar in Lark's form."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


@dataclass(frozen=True)
class Request:
    """One prompt, and how it is to be answered.

    salt: who may share what was computed for this prompt's beginning: those with the same one. adapter: the LoRA
    adapter that answers, by the name it was loaded under; None is the model as it is.
    """

    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    grammar: Grammar | None = None
    salt: str = ""
    adapter: str | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """logprob in nats; top: the most likely alternatives, best first."""

    token: str
    id: int
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """image_tokens, cached_tokens: of the prompt's. The latter were not computed, since an earlier prompt began alike;
    that is chance, so replies which differ in nothing else are equal."""

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0
    cached_tokens: int = field(default=0, compare=False)


FinishReason = Literal["stop", "length", "content_filter", "error"]


@dataclass(frozen=True)
class Result:
    """A finished reply (delta False) or the next piece of one (delta True; finish_reason None)."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    request: int = 0
    sample: int = 0
    delta: bool = False


@runtime_checkable
class Generator(Protocol):
    """Answers requests. `generate` streams deltas and ends each sample with one finished Result."""

    can_score: bool

    def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]: ...

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Log-probability in nats of each continuation after the prompt; only if `can_score`."""
        ...


async def collect(generator: Generator, requests: Sequence[Request]) -> list[list[Result]]:
    """Finished results: one list of samples per request, in order."""
    done: dict[tuple[int, int], Result] = {}
    async for result in generator.generate(requests):
        if not result.delta:
            done[result.request, result.sample] = result
    return [[done[i, j] for j in range(request.n)] for i, request in enumerate(requests)]


def generate_sync(generator: Generator, requests: Sequence[Request]) -> list[list[Result]]:
    """`collect` for callers that do not await."""
    return run_sync(collect(generator, requests))


def score_sync(generator: Generator, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
    """`Generator.score` for callers that do not await."""
    return run_sync(generator.score(prompt, continuations))


def score_many_sync(generator: Generator, asked: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
    """`Generator.score` of many prompts, for callers that do not await: in batches where the generator has them."""

    async def one_by_one() -> list[list[float]]:
        return [await generator.score(prompt, continuations) for prompt, continuations in asked]

    batched = getattr(generator, "score_many", None)
    return run_sync(batched(asked) if batched else one_by_one())


def run_sync(answer: Coroutine[Any, Any, T]) -> T:
    """The answer, for callers that do not await."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answer)
    with ThreadPoolExecutor(1) as thread:  # a notebook's own loop is running: use another one
        return thread.submit(asyncio.run, answer).result()
