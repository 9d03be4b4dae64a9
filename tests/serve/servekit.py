"""Servers for tests: a scripted model behind a real socket of this machine."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from starlette.routing import BaseRoute

from foretell.chat import Conversation
from foretell.errors import ContextLengthError, GenerationError, GrammarError, ImageError
from foretell.generate import Prompt, Request, Result, TokenLogprob, Usage
from foretell.images import decode_image
from foretell.loading import Model
from foretell.serve.app import create_app
from foretell.serve.calls import Limits, Server
from foretell.serve.gate import Gate, StaticGate
from foretell.serve.metrics import Metrics
from foretell.serve.models import Models
from foretell.serve.run import Process
from foretell.serve.traffic import Traffic
from foretell.template import Encoded

LIMIT = 1000  # tokens that the stub reads
PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Stats:
    running: int = 2
    waiting: int = 1
    cache_used: float = 0.5
    cached_tokens: int = 7
    guessed_tokens: int = 3
    preemptions: int = 0


class Stub:
    """Answers with the words of the last message, or with `reply`; a word is a token.

    A reply that holds "wait" pauses after its first word until `release`, one that holds "break" fails there.
    seen: every request. closed: how many calls have ended, whichever way.
    """

    can_score = False

    def __init__(self, reply: Callable[[Request], str] | None = None) -> None:
        self.reply = reply
        self.seen: list[Request] = []
        self.release = asyncio.Event()
        self.closed = 0

    def encode(self, prompt: Prompt, room: int = 1) -> Encoded:
        if isinstance(prompt, Encoded):
            return prompt
        if isinstance(prompt, Conversation):
            for image in prompt.images:
                decode_image(image.data)
            prompt = " ".join(message.text for message in prompt.messages)
        count = len(prompt.split())
        if count + room > LIMIT:
            raise ContextLengthError(
                f"The prompt is {count} tokens long, but this model reads at most {LIMIT}.", count, LIMIT
            )
        ids = np.arange(count, dtype=np.int32)
        return Encoded(ids, np.zeros(count, np.bool_), np.zeros((0, 0, 0, 3), np.uint8))

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        self.seen += requests
        encoded = [self.encode(request.prompt) for request in requests]
        for request in requests:
            if request.grammar and '"type": "nonsense"' in request.grammar.text:
                raise GrammarError("The schema has a type nonsense. Use one of JSON Schema's.")
        try:
            for i, (request, prompt) in enumerate(zip(requests, encoded, strict=True)):
                text = self.reply(request) if self.reply else last_text(request.prompt)
                words = [word if k == 0 else f" {word}" for k, word in enumerate(text.split(" "))]
                kept = words[: request.sampling.max_tokens]
                k = request.sampling.logprobs
                logs = [TokenLogprob(w, -1, -0.5, tuple((f"{w}{j}", -1.0 - j) for j in range(k))) for w in kept]
                images = len(request.prompt.images) if isinstance(request.prompt, Conversation) else 0
                usage = Usage(len(prompt.ids), len(kept), images)
                for sample in range(request.n):
                    for at, word in enumerate(kept):
                        if at == 1 and "wait" in text:
                            await self.release.wait()
                        if at == 1 and "break" in text:
                            raise RuntimeError("a secret of the engine")
                        yield Result(word, (at,), None, None, tuple(logs[at : at + 1] if k else ()), i, sample, True)
                        await asyncio.sleep(0)
                    finish = "stop" if len(kept) == len(words) else "length"
                    yield Result("".join(kept), (), finish, usage, tuple(logs if k else ()), i, sample)
        finally:
            self.closed += 1

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        raise GenerationError("The stub does not score.")

    async def prompt_logprobs(self, prompt: Prompt, top: int) -> list[TokenLogprob]:
        words = prompt.split(" ") if isinstance(prompt, str) else [f"t{i}" for i in prompt.ids]
        spelled = [word if k == 0 else f" {word}" for k, word in enumerate(words)]
        alike = tuple((f"x{j}", -2.0 - j) for j in range(top))
        return [TokenLogprob(w, -1, -1.0 if k else float("nan"), alike if k else ()) for k, w in enumerate(spelled)]

    async def embed(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        return [[float(len(self.encode(prompt).ids)), 0.5, -1.0] for prompt in prompts]

    def stats(self) -> Stats:
        return Stats()


def last_text(prompt: Prompt) -> str:
    if isinstance(prompt, Conversation):
        return prompt.messages[-1].text or "nothing"
    return prompt if isinstance(prompt, str) else "ids"


class Pictures:
    """Images without a network: those of data: URLs."""

    async def get_all(self, urls: Sequence[str]) -> list[bytes]:
        return [self.get(url) for url in urls]

    def close(self) -> None:
        pass

    def get(self, url: str) -> bytes:
        if not url.startswith("data:image/"):
            raise ImageError(f"{url[:40]} is no image that this server fetches.")
        try:
            data = base64.b64decode(url.partition(",")[2], validate=True)
        except ValueError as error:
            raise ImageError(f"The image's base64 is damaged ({error}).") from error
        decode_image(data)
        return data


def make_server(
    generators: Mapping[str, Any],
    *,
    aliases: Mapping[str, str] | None = None,
    gate: Gate | None = None,
    max_waiting: int = 64,
    limits: Limits | None = None,
    **parts: Any,
) -> Server:
    models = Models({name: name for name in generators}, lambda ref: Model(generators[ref], Path(ref)), aliases=aliases)
    traffic = Traffic(max_waiting)
    upstream = parts.get("upstream")
    metrics = Metrics(lambda: models.engines, traffic.counts, lambda: upstream.aliases.values() if upstream else ())
    return Server(models, Pictures(), traffic, metrics, gate or StaticGate(), limits or Limits(), **parts)


@contextmanager
def running(server: Server, drain_seconds: float = 5.0, pages: Sequence[BaseRoute] = ()) -> Iterator[Live]:
    """The server on a loopback port, in a thread; drained at the end. pages: routes beside the API's."""
    ready = threading.Event()
    urls: list[str] = []

    def started(url: str) -> None:
        urls.append(url)
        ready.set()

    process = Process(create_app(server, pages), server, port=0, drain_seconds=drain_seconds, started=started)
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        with httpx.Client(base_url=urls[0], verify=False, timeout=30) as http:
            yield Live(urls[0], server, process, http)
    finally:
        process.handle_exit(15, None)
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


@dataclass(frozen=True)
class Live:
    """url: without a path. http: a client of it."""

    url: str
    server: Server
    process: Process
    http: httpx.Client

    def on_loop(self, call: Callable[[], object]) -> None:
        """Run in the server's event loop."""
        assert self.process._loop is not None
        self.process._loop.call_soon_threadsafe(call)
