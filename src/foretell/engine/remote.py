"""Any OpenAI-compatible endpoint behind the Generator protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from foretell.chat import Conversation
from foretell.engine.openai_form import (
    Answer,
    FormError,
    Messages,
    as_messages,
    as_text,
    parameters,
    prompt_of,
    read_answer,
    read_echoes,
    read_stream,
    results_of,
)
from foretell.engine.wire import Trouble, Wire
from foretell.errors import EndpointError, GenerationError
from foretell.generate import Prompt, Request, Result

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["Answer", "Endpoint"]

T = TypeVar("T")

OPENAI = "https://api.openai.com/v1"


class Endpoint:
    """A server with OpenAI's API: /chat/completions for messages, /completions for text.

    url: the base URL, as a rule ending in /v1; OPENAI_BASE_URL, or OpenAI's own, where it is missing. model: the only
    one that the server offers, where it is missing. api_key: OPENAI_API_KEY where it is missing. chat: True puts text
    as one message of `role` (OpenAI Evals: "system"), False renders messages as text, None leaves each as it is.
    timeout_s: for one attempt; a call ends within twice as long, its retries included. retries: attempts after the
    first, at what may pass: 408, 409, 429, 5xx, connections that fail, time-outs. concurrency: calls in flight at most;
    fewer while the server is crowded. headers, extra: what every call carries in its head and its body, whatever it
    says itself. can_score: whether `score` works; found out by the first that does not, where it is None. random: what
    the waits between attempts are drawn from.

    For one event loop at a time, and another after it; the connections close with their loop, or by `close`.
    Raises GenerationError for a URL that is none, MissingExtraError, on the first call, without the extra `evals`.
    """

    def __init__(
        self,
        url: str | None = None,
        model: str | None = None,
        *,
        api_key: str | None = None,
        chat: bool | None = None,
        timeout_s: float = 600,
        retries: int = 8,
        concurrency: int = 64,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        role: str = "user",
        can_score: bool | None = None,
        random: Random | None = None,
    ) -> None:
        url = (url or os.environ.get("OPENAI_BASE_URL") or OPENAI).strip()
        key = (os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key).strip()
        self._wire = Wire(url, key, headers or {}, timeout_s, retries, concurrency, random)
        self.url = self._wire.url
        self.model, self.chat, self.role = model, chat, role
        self.can_score = chat is not True if can_score is None else can_score
        self._extra = dict(extra or {})
        self._scored = False

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r})"

    async def ask(self, prompt: str | Messages, **params: Any) -> Answer:
        """One call, whole. params: OpenAI's, as they are (temperature, max_tokens, n, stop, seed, response_format …).

        Raises EndpointError with the server's own words, once retries are used up or can change nothing.
        """
        chat, path, body = self._body(prompt)

        async def read(response: ClientResponse) -> Answer:
            return read_answer(await self._wire.object_of(response), chat)

        return await self._call(path, {**params, **body}, read)

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        """Deltas as they come, and one finished Result for each sample of each request; requests run side by side.

        Raises as `ask`; a stream that breaks off is asked for again only while nothing of it was handed on.
        """
        queue: asyncio.Queue[Result | asyncio.Task[None]] = asyncio.Queue()
        tasks = [asyncio.create_task(self._stream(i, request, queue.put_nowait)) for i, request in enumerate(requests)]
        for task in tasks:
            task.add_done_callback(queue.put_nowait)
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if isinstance(item, Result):
                    yield item
                else:
                    item.result()
                    left -= 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Log-probability in nats of each continuation after the prompt, from /completions that echo their prompt.

        A token that holds the end of the prompt and the start of the continuation counts as the continuation's.
        Raises EndpointError, and sets can_score to False, for a server that does not tell them.
        """
        if isinstance(prompt, Conversation) and self.chat is False:
            prompt = as_text(prompt.to_openai())
        if not isinstance(prompt, str) or not self.can_score:
            raise GenerationError(
                f"{self.url} can score text only, and only as a completion model. Give text, leave out chat=True, or "
                "score on the local engine."
            )
        if not prompt or not all(continuations):
            raise GenerationError("A prompt or continuation to score is empty. Give at least one character.")
        if not continuations:
            return []
        text = prompt
        wholes = [text + continuation for continuation in continuations]
        # One token is asked for, and left out of the sum: some servers refuse to draw none.
        body = {"prompt": wholes if len(wholes) > 1 else wholes[0], "max_tokens": 1, "logprobs": 1, "echo": True}

        async def read(response: ClientResponse) -> list[float]:
            try:
                scores = read_echoes(await self._wire.object_of(response), text, wholes)
                self._scored = True
                return scores
            except FormError as error:
                self.can_score = self._scored
                said = f"{self.url} {error}, so it cannot score{' this' if self._scored else ''}."
                advice = "Use a server whose /completions take echo with logprobs (vLLM does), or the local engine."
                raise Trouble(EndpointError(f"{said} {advice}", 200, not self._scored)) from None

        return await self._call("/completions", {**self._extra, **body, "temperature": 0}, read)

    async def models(self) -> list[str]:
        """The names of the models that the server offers. Raises as `ask`."""
        return await self._wire.models()

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        await self._wire.close()

    def _body(self, prompt: str | list[int] | Messages) -> tuple[bool, str, dict[str, Any]]:
        """Whether it is a chat, the path, and what is sent but for the model and parameters."""
        ids = not isinstance(prompt, str) and bool(prompt) and isinstance(prompt[0], int)
        if not ids and (self.chat or (self.chat is None and not isinstance(prompt, str))):
            return True, "/chat/completions", {"messages": as_messages(prompt, self.role), **self._extra}
        return False, "/completions", {"prompt": prompt if ids else as_text(prompt), **self._extra}

    async def _stream(self, index: int, request: Request, emit: Callable[[Result], None]) -> None:
        if request.n < 1:
            raise GenerationError(f"n is {request.n}; allowed is at least 1.")
        chat, path, body = self._body(prompt_of(request))
        body = {**parameters(request, chat), **body, "stream": True, "stream_options": {"include_usage": True}}
        handed_on = False

        async def read(response: ClientResponse) -> list[Result]:
            nonlocal handed_on
            if "event-stream" not in response.headers.get("content-type", ""):  # a server that does not stream
                return results_of(read_answer(await self._wire.object_of(response), chat), index, chat)
            finished = []
            async for result in read_stream(response.content.iter_any(), index, chat):
                if result.delta:
                    handed_on = True
                    emit(result)
                else:
                    finished.append(result)
            return finished

        results = await self._call(path, body, read, lambda: not handed_on)
        if [result.sample for result in results] != list(range(request.n)):
            raise EndpointError(f"{self.url} answered with {len(results)} choices; {request.n} were asked for.", 200)
        for result in results:
            emit(result)

    async def _call(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[ClientResponse], Awaitable[T]],
        repeatable: Callable[[], bool] = lambda: True,
    ) -> T:
        if not body.get("model"):
            self.model = self.model or await self._wire.only_model()
            body = {"model": self.model, **body}
        return await self._wire.call(path, body, read, repeatable)
