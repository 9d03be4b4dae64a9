"""Another server with this API, and this one in front: what was checked here goes on, and its answers come back."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from foretell.engine.openai_form import FormError, events, read_json, refusal_of, usage_of
from foretell.engine.wire import Wire
from foretell.errors import RequestError
from foretell.generate import Usage
from foretell.images import decode_image
from foretell.serve.asked import ChatBody, CompletionBody, EmbeddingBody
from foretell.serve.calls import Server, check_work, json_response, log
from foretell.serve.chat import fetch
from foretell.serve.completions import prompts_of
from foretell.serve.models import unknown_model
from foretell.serve.refusals import refuse, written
from foretell.serve.traffic import DONE, EventStream, event, together

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

PATHS = {  # nothing else is ever asked for
    ChatBody: "/chat/completions",
    CompletionBody: "/completions",
    EmbeddingBody: "/embeddings",
}
_BODY = 256_000_000  # bytes of an answer
_KNOWN = 1_000  # models that are looked at
_FRESH_S = 5.0  # between two looks at its list, however many unknown names are asked for
_CONNECT_S, _READ_S = 10.0, 600.0
_PASSED = (400, 404, 409, 413, 422, 429)  # statuses that are the caller's to mend; all else is this server's trouble


class Upstream:
    """url, key: as `engine.remote.Endpoint`'s. aliases: other names of its models.

    Of a caller's headers none goes on, and none of its come back. Raises GenerationError for a URL that is none.
    """

    def __init__(self, url: str, key: str | None = None, aliases: Mapping[str, str] | None = None) -> None:
        self.url = Wire(url, key or "", {}, _READ_S, 0, 1, None).url  # checks both
        self.aliases = dict(aliases or {})
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: ClientSession | None = None
        self.known: set[str] = set()  # its models, as it last told them: figures name no others
        self._asked_at = -math.inf

    async def answer(
        self,
        server: Server,
        asked: ChatBody | CompletionBody | EmbeddingBody,
        raw: Mapping[str, Any],
    ) -> Response:
        """Its answer to a checked call, whole or as a stream. Raises RequestError with what it says of a failure."""
        name = self.aliases.get(asked.model, asked.model)
        body = {**raw, "model": name}
        if not isinstance(asked, EmbeddingBody):
            prompts = len(prompts_of(asked.prompt)) if isinstance(asked, CompletionBody) else 1
            check_work(asked, (asked.n or 1) * prompts, server.limits)
        if isinstance(asked, ChatBody):
            body["messages"] = await self._messages(server, raw["messages"])
        streams = not isinstance(asked, EmbeddingBody) and bool(asked.stream)
        await self._check(name, asked.model)
        with server.traffic.queue():
            response = await self._open(PATHS[type(asked)], body)
            if streams and "event-stream" in response.headers.get("content-type", ""):
                pieces = self._pieces(server, name, response)

                async def close() -> None:
                    response.close()

                return EventStream(pieces, close)
            found = await _object(response)
        _count(server, name, found)
        return json_response(found)

    async def names(self) -> list[str]:
        """The models that it offers, and their aliases. Raises RequestError."""
        found = await _object(await self._open("/models", None))
        try:
            names = [str(entry["id"]) for entry in found["data"]]
        except (KeyError, TypeError) as error:
            raise _trouble("told its models in an unknown form") from error
        self.known = set(names[:_KNOWN])
        return [*names, *self.aliases]

    async def ready(self) -> None:
        """Raises RequestError where it cannot be reached; whatever it answers, it is there."""
        try:
            await self.names()
        except RequestError as error:
            if error.code == "upstream_unreachable":
                raise

    async def _check(self, name: str, asked: str) -> None:
        """Refuse a name that it does not list. Many servers answer to any, and prices and caps go by the name.

        Where it tells no list, all names pass. Raises RequestError.
        """
        if name in self.known:
            return
        now = time.monotonic()
        if now - self._asked_at > _FRESH_S:
            self._asked_at = now
            try:
                await self.names()
            except RequestError:
                return
        if self.known and name not in self.known:
            raise unknown_model(asked)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _messages(self, server: Server, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With every image decoded and written anew: what goes on holds pixels, and nothing else that came."""
        pictures = await fetch(server, messages)
        placed = [dict(message) for message in messages]
        for (i, j), data in pictures.items():
            content = placed[i]["content"] = list(placed[i]["content"])
            url = await asyncio.to_thread(_as_png, data)
            content[j] = {"type": "image_url", "image_url": {**content[j]["image_url"], "url": url}}
        return placed

    async def _open(self, path: str, body: Mapping[str, Any] | None) -> ClientResponse:
        """Its response, with a status of success and nothing read yet."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S),
            )
        try:
            response = await self._session.request(
                "GET" if body is None else "POST", f"{self.url}{path}", json=body, allow_redirects=False
            )
            if response.status == 200:
                return response
            try:
                raise _refusal(response.status, await response.content.read(20_000))
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.error("upstream %s%s: %s", self.url, path, error or type(error).__name__)
            raise refuse("The upstream server cannot be reached.", 503, code="upstream_unreachable") from error

    async def _pieces(self, server: Server, name: str, response: ClientResponse) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for batch in together(_checked(response, lambda found: _count(server, name, found))):
                yield b"".join(batch)
        except RequestError as error:
            yield event(written(error))
        except (FormError, aiohttp.ClientError, OSError, TimeoutError) as error:
            if server.traffic.draining:
                said = refuse("The server is shutting down, and ended this stream.", 503, code="shutting_down")
                yield event(written(said))
                return
            log.error("upstream %s: a stream broke off (%s)", self.url, error)
            yield event(written(_trouble("broke off its stream")))


async def _checked(response: ClientResponse, count: Callable[[Mapping[str, Any]], None]) -> AsyncIterator[bytes]:
    """Whole events of JSON, and the end. Raises where it breaks off, or tells of a failure."""
    open_choices: set[int] | None = None
    async for data in events(response.content.iter_any()):
        if data == b"[DONE]":
            yield DONE
            return
        found = read_json(data)
        if found.get("error"):
            raise _refusal(500, data)
        for choice in found.get("choices") or ():
            open_choices = open_choices or set()
            (open_choices.discard if choice.get("finish_reason") else open_choices.add)(choice.get("index", 0))
        count(found)
        yield event(data if b"\n" not in data else json.dumps(found).encode())
    if open_choices is None or open_choices:
        raise FormError("ended before its replies did")
    yield DONE  # some servers leave it out


async def _object(response: ClientResponse) -> dict[str, Any]:
    import aiohttp

    pieces, size = [], 0
    try:
        async for piece in response.content.iter_any():
            pieces.append(piece)
            if (size := size + len(piece)) > _BODY:
                raise FormError("sent too long an answer")
        found = read_json(b"".join(pieces))
    except (FormError, aiohttp.ClientError, OSError, TimeoutError) as error:
        log.error("upstream: %s", error)
        raise _trouble("gave no answer that can be read") from error
    finally:
        response.close()
    if found.get("error") and not found.get("choices"):  # some gateways send failures with status 200
        raise _refusal(500, json.dumps(found).encode())
    return found


def _refusal(status: int, body: bytes) -> RequestError:
    """What it says of a failure, where the caller can mend it; of another only that it is one."""
    said, code, param = refusal_of(body)
    if status in _PASSED:
        return refuse(said or "The upstream server refused.", status, param=param or None, code=code or None)
    log.error("upstream answered %s: %s", status, said)
    if status in (401, 403):
        log.error("its key is the variable FORETELL_UPSTREAM_KEY, or --upstream-key")
        return _trouble("refused this server's key")
    if status == 503:
        return refuse("The upstream server is overloaded.", 503, code="upstream_overloaded")
    return _trouble("failed")


def _trouble(what: str) -> RequestError:
    return refuse(f"The upstream server {what}.", 500, code="upstream_error")


def _count(server: Server, name: str, found: Mapping[str, Any]) -> None:
    if "prompt_tokens" in (usage := usage_of(found)):
        server.metrics.used(name, Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0)))


def _as_png(data: bytes) -> str:
    buffer = BytesIO()
    decode_image(data).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
