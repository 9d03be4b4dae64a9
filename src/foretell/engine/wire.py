"""One server over HTTP: where it is, attempts and the waits between them, and what went wrong in words."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass

from foretell.engine.openai_form import FormError, read_json, refusal_of
from foretell.engine.pacing import Pace, backoff, shared_pace, spent_wait, told_wait
from foretell.errors import EndpointError, GenerationError, MissingExtraError
from foretell.measure.machine import is_loopback

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

T = TypeVar("T")

_CONNECT_S = 30.0
_BODY = 256_000_000  # bytes of one reply
_ALWAYS, _HASTE = 1_000_000, 2  # attempts worth making after the first: at what may pass, at what is likely to stay
_SECRET = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "stream_options": ""}  # of parameters that some servers refuse


@dataclass(eq=False)
class Trouble(Exception):
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


class Wire:
    """Calls to the paths of one base URL, with a key; parameters as `Endpoint`'s.

    Raises GenerationError for a URL that is none, and for a key or header that HTTP cannot carry.
    """

    def __init__(
        self,
        url: str,
        key: str,
        headers: Mapping[str, str],
        timeout_s: float,
        retries: int,
        concurrency: int,
        random: Random | None,
    ) -> None:
        try:
            parts = urlsplit(url)
            ok = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.username
        except ValueError:
            ok = False
        if not ok:
            raise GenerationError(
                f"{url.rpartition('@')[2]} is no base URL of an endpoint. Expected one such as "
                "http://localhost:8000/v1, with the key in api_key or OPENAI_API_KEY."
            )
        if concurrency < 1 or retries < 0 or not timeout_s > 0:
            raise GenerationError(
                f"concurrency is {concurrency}, retries {retries}, timeout_s {timeout_s}; allowed are at least 1, 0 or "
                "more, and more than 0."
            )
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._headers |= {"Content-Type": "application/json", **headers}
        for name, value in self._headers.items():
            if not f"{name}{value}".isascii() or not f"{name}{value}".isprintable():
                raise GenerationError(f"The header {name} holds characters that none can. Copy the key again.")
        path = re.sub(r"/(chat/)?completions$", "", parts.path.rstrip("/")) or "/v1"
        self.url = f"{parts.scheme}://{parts.netloc}{path}"
        self._query, self._key = parts.query, key
        self.timeout_s, self.retries, self.concurrency = timeout_s, retries, concurrency
        told = [*(v for k, v in self._headers.items() if _SECRET.search(k)), *(v for _, v in parse_qsl(parts.query))]
        # A short one ("EMPTY", for a local server) is no secret, and might well be part of an answer.
        self._secrets = [secret for secret in (key, *told) if len(secret) >= 16]
        self._random = random or Random()
        self._mended: dict[str, str] = {}
        self._answered = False
        self._only: str | None = None
        self._session: _Session | None = None

    async def models(self) -> list[str]:
        """The names of the models that the server offers."""
        return await self.call("/models", None, self._names)

    async def only_model(self) -> str:
        """The server's one model, asked for once. Raises EndpointError where it has another number of them."""
        session = await self._opened()
        async with session.naming:
            if self._only is None:
                names = await self.models()
                if len(names) != 1:
                    found = f"{len(names) or 'no'} models{': ' if names else ''}{', '.join(names[:20])}"
                    raise EndpointError(f"{self.url} offers {found}. Say which one to ask.", lasting=True)
                self._only = names[0]
            return self._only

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.http.close()

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[ClientResponse], Awaitable[T]],
        repeatable: Callable[[], bool] = lambda: True,
    ) -> T:
        """Ask until there is an answer, or no more hope of one. body: None for a GET."""
        session = await self._opened()
        async with session.gate:
            attempt, ends, failed = 0, math.inf, Trouble(EndpointError(f"{self.url} was not asked."))
            while True:
                entered = await session.pace.enter()
                ends = min(ends, entered + 2 * self.timeout_s)
                answered = crowded = False
                try:
                    if entered >= ends:  # it was held too long
                        raise failed
                    found = await self._attempt(session, path, body, read, ends - entered)
                    answered = self._answered = True
                    return found
                except Trouble as trouble:
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
        raise await self._in_full(session, failed, attempt, late)

    async def _in_full(self, session: _Session, failed: Trouble, attempt: int, late: bool) -> EndpointError:
        """The error of the last attempt, with all that helps."""
        error = failed.error
        if failed.unknown:
            with suppress(Trouble):
                names = await self._attempt(session, "/models", None, self._names, _CONNECT_S)
                shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
                error.args = (f"{error} It offers: {shown or 'none'}.",)
        if attempt:
            error.args = (f"{error} It was asked {attempt + 1} times.",)
        if late and failed.wait:
            error.args = (f"{error} It asks to wait {failed.wait:.0f} s; a call ends after {2 * self.timeout_s:g} s.",)
        return error

    async def _attempt(
        self,
        session: _Session,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[ClientResponse], Awaitable[T]],
        left: float,
    ) -> T:
        """Ask once. Raises Trouble, whatever happens."""
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
                if response.status >= 300:
                    raise self._refusal(response.status, await self._read(response), response.headers, path, sent)
                is_page = "text/html" in response.headers.get("content-type", "")
                return await read(response)
        except Trouble:
            raise
        except FormError as error:
            advice = (
                "Check the URL: it ends in /v1 as a rule." if is_page else "Ask again, or look at the server's log."
            )
            text = self._clean(f"{self.url}{path} {error}. {advice}")
            trouble = Trouble(EndpointError(text, 200, lasting=is_page), 0 if is_page else _HASTE)
        except TimeoutError:
            text = f"{self.url} did not answer within {seconds:g} s. Check that it runs, or raise timeout_s."
            trouble = Trouble(EndpointError(text), _ALWAYS, crowded=True)
        except aiohttp.ClientSSLError as error:
            text = f"{self.url} has no connection that can be trusted ({error}). Check the URL and the certificate."
            trouble = Trouble(EndpointError(self._clean(text), lasting=True))
        except aiohttp.ClientConnectorError as error:
            text = f"{self.url} cannot be reached ({error}). Check the URL, and that the server runs."
            trouble = Trouble(EndpointError(self._clean(text)), _ALWAYS if self._answered else _HASTE)
        except (aiohttp.ClientError, OSError) as error:
            text = f"{self.url} hung up ({error or type(error).__name__}). Check the URL, or look at the server's log."
            trouble = Trouble(EndpointError(self._clean(text)), _ALWAYS)
        raise trouble

    def _refusal(
        self, status: int, body: bytes, headers: Mapping[str, str], path: str, sent: Mapping[str, Any] | None
    ) -> Trouble:
        """What a status of failure means, and what to do."""
        said, code, param = refusal_of(body)
        told = f"{self.url} answered {status}: {said or 'nothing more'}"
        told = told if told.endswith((".", "!", "?", "…")) else f"{told}."

        def final(advice: str, lasting: bool = False, unknown: bool = False) -> Trouble:
            return Trouble(EndpointError(f"{told} {advice}".strip(), status, lasting), unknown=unknown)

        if 300 <= status < 400:
            place = self._clean(headers.get("location", "another place").partition("?")[0])
            text = f"{self.url}{path} redirects to {place}. Give the base URL that it redirects to."
            return Trouble(EndpointError(text, status, lasting=True))
        for name, other in _OTHER_NAMES.items():
            if status in (400, 422) and name in (sent or {}) and name in said and other in said:
                self._mended[name] = other
                return Trouble(EndpointError(told, status), mended=True)
        if status == 402 or code in _NO_CREDIT:
            return final("The account has no credit left: add some, or use another key.", lasting=True)
        passing = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
        if passing or (passing is None and (status in (408, 409, 429) or status >= 500)):
            wait, crowded = told_wait(headers, time.time()) or 0.0, status in (429, 503, 529)
            return Trouble(EndpointError(f"{told} Try later.", status), _ALWAYS, wait, crowded)
        if status == 401:
            return final("Set the right key in OPENAI_API_KEY or api_key.", lasting=True)
        if code == "model_not_found" or (status == 404 and "model" in said.lower()):
            return final(f"The model asked for was {(sent or {}).get('model')!r}.", lasting=True, unknown=True)
        if status in (404, 405):
            return final(
                f"It has no {path}: the base URL ends in /v1 as a rule; chat=True asks for chat.", lasting=True
            )
        return final(f"Change or leave out {param}." if param else "")

    async def _names(self, response: ClientResponse) -> list[str]:
        data = (await self.object_of(response)).get("data")
        if not isinstance(data, list) or not all(isinstance(entry, dict) and "id" in entry for entry in data):
            raise FormError("told its models in an unknown form")
        return [str(entry["id"]) for entry in data]

    async def object_of(self, response: ClientResponse) -> dict[str, Any]:
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
        direct = is_loopback(host.hostname or "") or proxy_bypass(host.netloc)
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
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
