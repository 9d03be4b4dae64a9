"""Any OpenAI-compatible endpoint behind the Generator protocol, with its retries, limits and errors in words."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass

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
    read_json,
    read_stream,
    refusal_of,
    results_of,
)
from foretell.engine.pacing import Pace, backoff, shared_pace, spent_wait, told_wait
from foretell.errors import EndpointError, GenerationError, MissingExtraError
from foretell.generate import Prompt, Request, Result

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

__all__ = ["Answer", "Endpoint"]

T = TypeVar("T")

OPENAI = "https://api.openai.com/v1"
_CONNECT_S = 30.0
_BODY = 256_000_000  # bytes of one reply
_ALWAYS, _HASTE = 1_000_000, 2  # attempts worth making after the first: at what may pass, at what is likely to stay
_SECRET = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "stream_options": ""}  # of parameters that some servers refuse


@dataclass
class _Trouble(Exception):
    """An attempt that failed. retries: how many attempts after the first it is worth; wait: seconds asked for;
    crowded: the server had too much to do; unknown: it does not know the model; mended: the next is asked otherwise.
    """

    error: EndpointError
    retries: int = 0
    wait: float = 0
    crowded: bool = False
    unknown: bool = False
    mended: bool = False


@dataclass
class _Session:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    http: ClientSession
    addresses: Mapping[str, URL]
    gate: asyncio.Semaphore
    naming: asyncio.Lock
    pace: Pace
    keeper: AsyncIterator[None]


class Endpoint:
    """A server with OpenAI's API: /chat/completions for messages, /completions for text.

    url: the base URL, as a rule ending in /v1; OPENAI_BASE_URL, or OpenAI's own, where it is missing. model: the only
    one that the server offers, where it is missing. api_key: OPENAI_API_KEY where it is missing. chat: True puts text
    as one message of `role` (OpenAI Evals: "system"), False renders messages as text, None leaves each as it is.
    timeout_s: for one attempt; a call ends within twice as long, its retries included. retries: attempts after the
    first, at what may pass: 408, 409, 429, 5xx, connections that fail, time-outs. concurrency: calls in flight at most;
    fewer while the server is crowded. headers, extra: what every call carries in its head and its body, whatever it
    says itself. can_score: whether `score` works; tried where it is None. random: what the waits between attempts are drawn from.

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
        given = (url or os.environ.get("OPENAI_BASE_URL") or OPENAI).strip()
        try:
            parts = urlsplit(given)
            ok = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.username
        except ValueError:
            ok = False
        if not ok:
            shown = given.rpartition("@")[2]
            raise GenerationError(
                f"{shown} is no base URL of an endpoint. Expected one such as http://localhost:8000/v1, with the key "
                "in api_key or OPENAI_API_KEY."
            )
        if concurrency < 1 or retries < 0 or not timeout_s > 0:
            raise GenerationError(
                f"concurrency is {concurrency}, retries {retries}, timeout_s {timeout_s}; allowed are at least 1, 0 or "
                "more, and more than 0."
            )
        path = re.sub(r"/(chat/)?completions$", "", parts.path.rstrip("/")) or "/v1"
        self.url = f"{parts.scheme}://{parts.netloc}{path}"
        self.model, self.chat, self.role = model, chat, role
        self.timeout_s, self.retries, self.concurrency = timeout_s, retries, concurrency
        self.can_score = chat is not True if can_score is None else can_score
        key = (os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key).strip()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._headers |= {"Content-Type": "application/json", **(headers or {})}
        self._extra, self._query, self._key = dict(extra or {}), parts.query, key
        told = [*(v for k, v in self._headers.items() if _SECRET.search(k)), *(v for _, v in parse_qsl(parts.query))]
        # A short one ("EMPTY", for a local server) is no secret, and might well be part of an answer.
        self._secrets = [secret for secret in (key, *told) if len(secret) >= 16]
        self._random = random or Random()
        self._mended: dict[str, str] = {}
        self._answered = False
        self._session: _Session | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r})"

    async def ask(self, prompt: str | Messages, **params: Any) -> Answer:
        """One call, whole. params: OpenAI's, as they are (temperature, max_tokens, n, stop, seed, response_format …).

        Raises EndpointError with the server's own words, once retries are used up or can change nothing.
        """
        chat, path, body = self._body(prompt)

        async def read(response: ClientResponse) -> Answer:
            return read_answer(await self._object(response), chat)

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
        if not all(continuations):
            raise GenerationError("A continuation to score is empty. Give at least one character.")
        if not continuations:
            return []
        text = prompt
        wholes = [text + continuation for continuation in continuations]
        # One token is asked for, and left out of the sum: some servers refuse to draw none.
        body = {"prompt": wholes if len(wholes) > 1 else wholes[0], "max_tokens": 1, "logprobs": 1, "echo": True}

        async def read(response: ClientResponse) -> list[float]:
            try:
                return read_echoes(await self._object(response), text, wholes)
            except FormError as error:
                self.can_score = False
                advice = "Use a server whose /completions take echo with logprobs (vLLM does), or the local engine."
                raise _Trouble(EndpointError(f"{self.url} {error}, so it cannot score. {advice}", 200, True)) from None

        return await self._call("/completions", {**self._extra, **body, "temperature": 0}, read)

    async def models(self) -> list[str]:
        """The names of the models that the server offers. Raises as `ask`."""
        return await self._call("/models", None, self._names)

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.http.close()

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
                return results_of(read_answer(await self._object(response), chat), index, chat)
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
        body: Mapping[str, Any] | None,
        read: Callable[[ClientResponse], Awaitable[T]],
        repeatable: Callable[[], bool] = lambda: True,
    ) -> T:
        """Ask until there is an answer, or no more hope of one. body: None for a GET."""
        session = await self._opened()
        if body is not None and not body.get("model"):
            body = {"model": self.model or await self._only_model(session), **body}
        async with session.gate:
            attempt, ends = 0, math.inf
            while True:
                entered = await session.pace.enter()
                ends = min(ends, entered + 2 * self.timeout_s)
                answered = crowded = False
                try:
                    found = await self._attempt(session, path, body, read, ends - entered)
                    answered = self._answered = True
                    return found
                except _Trouble as trouble:
                    failed, crowded = trouble, trouble.crowded
                finally:
                    session.pace.leave(entered, answered=answered, crowded=crowded)
                if failed.mended:
                    continue
                wait = failed.wait + backoff(attempt, self._random)
                late = session.loop.time() + wait >= ends
                if attempt >= min(failed.retries, self.retries) or late or not repeatable():
                    break
                attempt += 1
                if crowded and failed.wait:
                    session.pace.hold(failed.wait)
                await asyncio.sleep(wait)
        error = failed.error
        if failed.unknown:
            with suppress(_Trouble):
                names = await self._attempt(session, "/models", None, self._names, _CONNECT_S)
                shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
                error.args = (f"{error} It offers: {shown or 'none'}.",)
        if attempt:
            waited = f", and asks to wait {failed.wait:.0f} s more" if late and failed.wait else ""
            error.args = (f"{error} It was asked {attempt + 1} times{waited}.",)
        raise error

    async def _attempt(
        self,
        session: _Session,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[ClientResponse], Awaitable[T]],
        left: float,
    ) -> T:
        """Ask once. Raises _Trouble, whatever happens."""
        import aiohttp

        sent = body
        if body is not None and self._mended:
            sent = {self._mended.get(name, name): value for name, value in body.items()}
            sent.pop("", None)
        seconds = min(self.timeout_s, left)
        is_page = False
        try:
            async with (
                asyncio.timeout(seconds),
                session.http.request(
                    "GET" if sent is None else "POST",
                    session.addresses[path],
                    data=None if sent is None else json.dumps(sent).encode(),
                    allow_redirects=False,
                ) as response,
            ):
                if spent := spent_wait(response.headers):
                    session.pace.hold(spent)
                if response.status != 200:
                    raise self._refusal(response.status, await self._read(response), response.headers, path, sent)
                is_page = "text/html" in response.headers.get("content-type", "")
                return await read(response)
        except _Trouble:
            raise
        except FormError as error:
            advice = (
                "Check the URL: it ends in /v1 as a rule." if is_page else "Ask again, or look at the server's log."
            )
            text = self._clean(f"{self.url}{path} {error}. {advice}")
            trouble = _Trouble(EndpointError(text, 200, lasting=is_page), 0 if is_page else _HASTE)
        except TimeoutError:
            text = f"{self.url} did not answer within {seconds:g} s. Check that it runs, or raise timeout_s."
            trouble = _Trouble(EndpointError(text), _ALWAYS, crowded=True)
        except aiohttp.ClientSSLError as error:
            text = f"{self.url} has no connection that can be trusted ({error}). Check the URL and the certificate."
            trouble = _Trouble(EndpointError(self._clean(text), lasting=True))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = self._clean(str(error) or type(error).__name__)
            text = f"{self.url} cannot be reached, or hung up ({said}). Check the URL, and that the server runs."
            trouble = _Trouble(EndpointError(text), _ALWAYS if self._answered else _HASTE)
        raise trouble

    def _refusal(
        self, status: int, body: bytes, headers: Mapping[str, str], path: str, sent: Mapping[str, Any] | None
    ) -> _Trouble:
        """What a status other than 200 means, and what to do."""
        said, code, param = refusal_of(body)
        told = f"{self.url} answered {status}: {said or 'nothing more'}"
        told = told if told.endswith((".", "!", "?")) else f"{told}."

        def final(advice: str, lasting: bool = False, unknown: bool = False) -> _Trouble:
            return _Trouble(EndpointError(f"{told} {advice}".strip(), status, lasting), unknown=unknown)

        if 300 <= status < 400:
            place = self._clean(headers.get("location", "another place").partition("?")[0])
            text = f"{self.url}{path} redirects to {place}. Give the base URL that it redirects to."
            return _Trouble(EndpointError(text, status, lasting=True))
        for name, other in _OTHER_NAMES.items():
            if status in (400, 422) and name in (sent or {}) and name in said and other in said:
                self._mended[name] = other
                return _Trouble(EndpointError(told, status), mended=True)
        if status == 402 or code in _NO_CREDIT:
            return final("The account has no credit left: add some, or use another key.", lasting=True)
        if headers.get("x-should-retry") != "false" and (status in (408, 409, 429) or status >= 500):
            wait, crowded = told_wait(headers, time.time()) or 0.0, status in (429, 503, 529)
            return _Trouble(EndpointError(f"{told} Try later.", status), _ALWAYS, wait, crowded)
        if status == 401:
            return final("Set the right key in OPENAI_API_KEY or api_key.", lasting=True)
        if code == "model_not_found" or (status == 404 and "model" in said.lower()):
            return final(f"The model asked for was {(sent or {}).get('model')!r}.", lasting=True, unknown=True)
        if status in (404, 405):
            return final(
                f"It has no {path}: the base URL ends in /v1 as a rule; chat=True asks for chat.", lasting=True
            )
        return final(f"Change or leave out {param}." if param else "")

    async def _only_model(self, session: _Session) -> str:
        """The server's one model. Raises EndpointError where it has another number of them."""
        async with session.naming:
            if self.model is None:
                names = await self.models()
                if len(names) != 1:
                    raise EndpointError(
                        f"{self.url} offers {len(names) or 'no'} models{': ' * bool(names)}{', '.join(names[:20])}. "
                        "Say which one to ask.",
                        lasting=True,
                    )
                self.model = names[0]
            return self.model

    async def _names(self, response: ClientResponse) -> list[str]:
        data = (await self._object(response)).get("data")
        if not isinstance(data, list) or not all(isinstance(entry, dict) and "id" in entry for entry in data):
            raise FormError("told its models in an unknown form")
        return [str(entry["id"]) for entry in data]

    async def _object(self, response: ClientResponse) -> dict[str, Any]:
        """The reply's JSON object, without keys that it may repeat."""
        body = await self._read(response)
        found = read_json(body)
        if found.get("error") and not found.get("choices"):  # some gateways send failures with status 200
            code = found["error"].get("code") if isinstance(found["error"], dict) else None
            status = code if isinstance(code, int) and code >= 400 else 500
            raise self._refusal(status, body, response.headers, response.url.path, None)
        return found

    async def _read(self, response: ClientResponse) -> bytes:
        size, pieces = 0, []
        async for piece in response.content.iter_any():
            pieces.append(piece)
            if (size := size + len(piece)) > _BODY:
                raise FormError(f"sent more than {_BODY // 10**6} MB")
        body = b"".join(pieces)
        for secret in self._secrets:
            body = body.replace(secret.encode(), b"***")
        return body

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def _opened(self) -> _Session:
        """This loop's session."""
        loop = asyncio.get_running_loop()
        if self._session is not None and self._session.loop is loop and not self._session.http.closed:
            return self._session
        try:
            import aiohttp
            from yarl import URL
        except ModuleNotFoundError as error:
            raise MissingExtraError("Asking an endpoint", "evals") from error
        host = urlsplit(self.url)
        direct = _is_local(host.hostname or "") or proxy_bypass(host.netloc)
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            headers=self._headers,
            proxy=None if direct else getproxies().get(host.scheme),
        )

        async def keep() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await http.close()

        keeper = keep()  # a loop that shuts down ends its generators, and this one then ends the session
        query = f"?{self._query}" if self._query else ""
        self._session = _Session(
            loop,
            http,
            {path: URL(f"{self.url}{path}{query}") for path in ("/chat/completions", "/completions", "/models")},
            asyncio.Semaphore(self.concurrency),
            asyncio.Lock(),
            shared_pace(host.netloc, self._key, self.concurrency),
            keeper,
        )
        await anext(keeper)
        return self._session


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
