"""What every call shares: the parts of the server, sampling as it was asked for, and results as they come."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import Response

from foretell.generate import Request, Result, Sampling, TokenLogprob, Usage
from foretell.serve.asked import Drawing
from foretell.serve.body import BodyLimits
from foretell.serve.gate import Gate, StaticGate
from foretell.serve.metrics import Metrics
from foretell.serve.models import Models, Served
from foretell.serve.refusals import Params, refusal, refuse, written
from foretell.serve.traffic import DONE, EventStream, Peeked, Traffic, event, together

if TYPE_CHECKING:
    from foretell.serve.gateway import Gateway
    from foretell.serve.upstream import Upstream

log = logging.getLogger("foretell.serve")


class Images(Protocol):
    """Where images come from."""

    async def get_all(self, urls: Sequence[str]) -> list[bytes]:
        """The bytes behind the data: or http(s) URLs of one call. Raises ImageError, and OverloadedError."""
        ...

    def close(self) -> None: ...


class Moderator(Protocol):
    """What answers /v1/moderations."""

    async def moderate(self, inputs: Sequence[str | list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """One result for each input: flagged, categories, category_scores, as OpenAI's."""
        ...


class Closes(Protocol):
    """What goes on beside the calls, and is to be ended."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """Bounds of one call. reply_tokens: of all its replies together."""

    body: BodyLimits = field(default_factory=BodyLimits)
    reply_tokens: int = 262_144


@dataclass(frozen=True)
class Server:
    """The parts of a server."""

    models: Models
    images: Images
    traffic: Traffic
    metrics: Metrics
    gate: Gate = field(default_factory=StaticGate)
    limits: Limits = field(default_factory=Limits)
    moderator: Moderator | None = None
    upstream: Upstream | None = None
    gateway: Gateway | None = None
    replies: Closes | None = None  # of the chat page

    def start(self) -> None:
        """What goes on beside the calls, on the running loop."""
        if self.gateway is not None:
            self.gateway.start()

    async def close(self) -> None:
        if self.replies is not None:
            await self.replies.close()
        if self.gateway is not None:
            await self.gateway.close()
        self.models.close()
        self.images.close()
        if self.upstream is not None:
            await self.upstream.close()


def json_response(content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")


def check_work(asked: Drawing, replies: int, limits: Limits) -> int:
    """The most tokens each reply of a call may have. Raises RequestError where more are asked for."""
    share = limits.reply_tokens // replies
    name = "max_completion_tokens" if getattr(asked, "max_completion_tokens", None) else "max_tokens"
    if (wanted := getattr(asked, name)) is not None and wanted > share:
        text = f"Invalid '{name}': {replies} replies of {wanted} tokens exceed the {limits.reply_tokens} of one call."
        raise refuse(text, 400, param=name, code="integer_above_max_value")
    return share


def sampling_of(
    asked: Drawing, served: Served, *, max_tokens: int | None, logprobs: int, replies: int, limits: Limits
) -> Sampling:
    """How replies are drawn: as asked, else as the model's makers advise.

    max_tokens None: as many as there is room for. replies: how many the call asks for.
    Raises RequestError where the replies together may be longer than the server allows.
    """
    share = check_work(asked, replies, limits)
    given = {"temperature": asked.temperature, "min_p": asked.min_p, "seed": asked.seed}
    given |= {"frequency_penalty": asked.frequency_penalty, "presence_penalty": asked.presence_penalty}
    given |= {"top_p": None if asked.top_p is None else max(asked.top_p, 1e-6)}  # 0 leaves the likeliest token, as 1e-6
    given |= {"top_k": None if asked.top_k is None else max(asked.top_k, 0)}  # vLLM's -1 means all, too
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    bias = {int(token): value for token, value in (asked.logit_bias or {}).items()}
    fields = {**served.sampling, **{name: value for name, value in given.items() if value is not None}}
    fields |= {"max_tokens": max(max_tokens or share, 1), "stop": tuple(stop), "logit_bias": bias, "logprobs": logprobs}
    return Sampling(**fields)


async def start(server: Server, generator: Any, requests: Sequence[Request]) -> Peeked[list[Result]]:
    """Results in lists of what is ready, from the moment on that the first ones are.

    Raises what the generator raises before, and OverloadedError.
    """
    batches = together(generator.generate(requests))
    try:
        with server.traffic.queue():
            return Peeked(await anext(batches), batches)
    except BaseException:
        await batches.aclose()
        raise


async def finished(server: Server, generator: Any, requests: Sequence[Request]) -> list[Result]:
    """All finished results, by request and sample. Raises as `start`."""
    async with aclosing(generator.generate(requests)) as results:
        with server.traffic.queue():
            first = await anext(results)
        done = [] if first.delta else [first]
        done += [result async for result in results if not result.delta]
    return sorted(done, key=lambda result: (result.request, result.sample))


class Reply:
    """What one call is answered with; a subclass writes results as the events of a stream.

    kind: of a whole answer. prefix: of its id. A stream's pieces stand between `opening` and `closing`: all of one but
    what changes is written once, so that a token costs one short json.dumps.
    """

    def __init__(self, server: Server, served: Served, asked: Drawing, kind: str, prefix: str) -> None:
        self.server, self.served = server, served
        self.head = head_of(kind, prefix, served)
        self.tells_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        self.opening = f'data: {json.dumps(self.head, separators=(",", ":"))[:-1]},"choices":[{{"index":'
        self.closing = '}],"usage":null}\n\n' if self.tells_usage else "}]}\n\n"
        self.done: list[Result] = []

    def write(self, result: Result) -> str:
        """The events of one result."""
        raise NotImplementedError

    def end(self) -> str:
        """What follows the last result."""
        usage = self.used(self.done)
        return f"data: {json.dumps({**self.head, 'choices': [], 'usage': usage})}\n\n" if self.tells_usage else ""

    def used(self, results: Sequence[Result]) -> dict[str, Any]:
        """What finished results have used, counted and as it is told."""
        usage = usage_of(results)
        self.server.metrics.used(self.served.name, usage)
        return usage_fields(usage)


def stream(writer: Reply, batches: Peeked[list[Result]], params: Params) -> EventStream:
    """A response that sends what is ready in one piece; a failure on the way becomes its last event."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for batch in batches:
                if text := "".join(map(writer.write, batch)):
                    yield text.encode()
            yield writer.end().encode() + DONE
        except Exception as error:
            log.exception("a stream broke off")
            yield event(written(refusal(error, params)))

    return EventStream(pieces(), batches.aclose)


def usage_of(results: Iterable[Result]) -> Usage:
    """Of a whole call: samples of one request share its prompt."""
    told = [(result.sample, result.usage) for result in results if result.usage is not None]
    return Usage(
        sum(usage.prompt_tokens for sample, usage in told if sample == 0),
        sum(usage.completion_tokens for _, usage in told),
        sum(usage.image_tokens for sample, usage in told if sample == 0),
        sum(usage.cached_tokens for sample, usage in told if sample == 0),
    )


def usage_fields(usage: Usage) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cached_tokens, "audio_tokens": 0, "image_tokens": usage.image_tokens}
    completion = {"reasoning_tokens": 0, "audio_tokens": 0}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completion,
    }


def head_of(kind: str, prefix: str, served: Served) -> dict[str, Any]:
    """The fields that a reply and every piece of a streamed one begin with."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.fingerprint,
    }


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what cannot be."""
    return logprob if logprob > -9999.0 else -9999.0


def bytes_of(generator: Any, token: TokenLogprob) -> bytes:
    """A token's bytes, which may be a part of a character; of a control token none."""
    tokenizer = getattr(generator, "tokenizer", None)
    return tokenizer.decode_bytes([token.id]) if tokenizer is not None and token.id >= 0 else token.token.encode()
