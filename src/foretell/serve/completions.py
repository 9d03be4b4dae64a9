"""POST /v1/completions: text or token ids to be continued, with what evaluation harnesses read: echo and logprobs."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request as HTTPRequest

from foretell.errors import GenerationError
from foretell.generate import Prompt, Request, Result, TokenLogprob, Usage
from foretell.serve.asked import CompletionBody
from foretell.serve.calls import (
    Reply,
    Server,
    bytes_of,
    finished,
    finite,
    json_response,
    sampling_of,
    start,
    stream,
)
from foretell.serve.models import Served
from foretell.serve.refusals import Params
from foretell.template import Encoded


def prompts_of(given: Any) -> list[Prompt]:
    """What one field holds: text, texts, token ids, or lists of them."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [_encoded(given)]
    return [text if isinstance(text, str) else _encoded(text) for text in given]


def _encoded(ids: Sequence[int]) -> Encoded:
    return Encoded(np.asarray(ids, np.int32), np.zeros(len(ids), np.bool_), np.zeros((0, 0, 0, 3), np.uint8))


async def complete(server: Server, http: HTTPRequest, asked: CompletionBody) -> Any:
    served = await server.models.get(asked.model)
    generator, n, prompts = served.generator, asked.n or 1, prompts_of(asked.prompt)
    limit = 16 if asked.max_tokens is None else asked.max_tokens
    top = 0 if asked.logprobs is None else max(asked.logprobs, 1)
    replies = n * len(prompts)
    sampling = sampling_of(asked, served, max_tokens=limit, logprobs=top, replies=replies, limits=server.limits)
    tenant = http.state.caller.tenant

    echoes: list[_Echo] = []
    if asked.echo:
        with server.traffic.queue():
            echoes = await asyncio.gather(*(_echo(generator, prompt, top) for prompt in prompts))
    reply = _Reply(server, served, asked, n, echoes)
    requests = [Request(prompt, sampling, n, None, tenant, served.adapter) for prompt in prompts]
    if limit == 0:
        generator = _Silent(generator.encode)
    if asked.stream:
        return stream(reply, await start(server, generator, requests), Params("prompt"))
    return json_response(reply.whole(await finished(server, generator, requests)))


@dataclass(frozen=True)
class _Silent:
    """Answers with nothing: where no token is asked for, but the prompt's echo."""

    encode: Callable[[Prompt, int], Encoded]

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        for i, request in enumerate(requests):
            length = len((await asyncio.to_thread(self.encode, request.prompt, 0)).ids)
            for sample in range(request.n):
                yield Result("", (), "length", Usage(length, 0), (), i, sample)


@dataclass(frozen=True)
class _Echo:
    """A prompt as it is told back: its text, and of each token its log-probability (that of the first is nan)."""

    text: str
    logprobs: Sequence[TokenLogprob] = ()


async def _echo(generator: Any, prompt: Prompt, top: int) -> _Echo:
    if top and not hasattr(generator, "prompt_logprobs"):
        raise GenerationError("This model does not tell the log-probabilities of its prompts. Leave out 'echo'.")
    logprobs = await generator.prompt_logprobs(prompt, top) if top else ()
    if isinstance(prompt, str):
        return _Echo(prompt, logprobs)
    assert isinstance(prompt, Encoded)
    return _Echo(generator.tokenizer.decode(prompt.ids.tolist(), skip_special=False), logprobs)


class _Reply(Reply):
    """One call's choices, whole or piece by piece: choice i * n + j is sample j of prompt i."""

    def __init__(self, server: Server, served: Served, asked: CompletionBody, n: int, echoes: Sequence[_Echo]) -> None:
        super().__init__(server, served, asked, "text_completion", "cmpl")
        self._asked, self._n, self._echoes = asked, n, echoes
        self._offsets: dict[int, _Offsets] = {}
        self._told: dict[int, int] = {}

    def whole(self, results: Sequence[Result]) -> dict[str, Any]:
        choices = []
        for result in results:
            echo, choice = self._echo(result), self._choice(result)
            logprobs = self._logprobs(choice, [*echo.logprobs, *result.logprobs])
            fields = {"index": choice, "text": echo.text + result.text, "logprobs": logprobs}
            choices.append({**fields, "finish_reason": result.finish_reason or "stop"})
        return {**self.head, "choices": choices, "usage": self.used(results)}

    def write(self, result: Result) -> str:
        choice, text = self._choice(result), ""
        if choice not in self._told:
            self._told[choice] = 0
            if (echo := self._echo(result)).text:
                text = self._piece(choice, echo.text, echo.logprobs)
        if result.delta:
            self._told[choice] += len(result.logprobs)
            return text + self._piece(choice, result.text, result.logprobs)
        self.done.append(result)
        left = result.logprobs[self._told[choice] :]
        return text + self._piece(choice, "", left, json.dumps(result.finish_reason or "stop"))

    def _choice(self, result: Result) -> int:
        return result.request * self._n + result.sample

    def _echo(self, result: Result) -> _Echo:
        return self._echoes[result.request] if self._echoes else _Echo("")

    def _piece(self, choice: int, text: str, logprobs: Sequence[TokenLogprob], finish: str = "null") -> str:
        told = json.dumps(self._logprobs(choice, logprobs)) if logprobs else "null"
        rest = f',"text":{json.dumps(text)},"logprobs":{told},"finish_reason":{finish}'
        return f"{self.opening}{choice}{rest}{self.closing}"

    def _logprobs(self, choice: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._asked.logprobs is None:
            return None
        offsets = self._offsets.setdefault(choice, _Offsets())
        values = [None if token.logprob != token.logprob else finite(token.logprob) for token in tokens]
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": values,
            "top_logprobs": [
                None if value is None else self._top(token) for token, value in zip(tokens, values, strict=True)
            ],
            "text_offset": [offsets.next(bytes_of(self.served.generator, token)) for token in tokens],
        }

    def _top(self, token: TokenLogprob) -> dict[str, float]:
        """The likeliest, and the token itself as OpenAI does; of those spelled alike the likelier."""
        top: dict[str, float] = {}
        for text, value in (*token.top[: self._asked.logprobs], (token.token, token.logprob)):
            top[text] = max(top.get(text, -9999.0), finite(value))
        return top


class _Offsets:
    """Where tokens begin in a text, in characters."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def next(self, data: bytes) -> int:
        begins = self._at
        self._at += len(self._decoder.decode(data))
        return begins
