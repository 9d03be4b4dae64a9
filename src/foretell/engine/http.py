"""HTTP/1.1 towards one server: connections that stay open, answers in one piece or as a stream, proxies.

Written out because a client for all purposes takes several times as long for a call as everything else an eval does.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import SplitResult, quote, unquote, urlsplit

_LINE, _LINES = 1 << 16, 500  # bytes of a line in an answer's head, and such lines, at most
_PIECE = 1 << 16
_IDLE = 15.0  # seconds after which an open connection is not trusted any more
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpError(OSError):
    """The other side hung up, or what it sent is no HTTP/1.1."""


class Unreachable(HttpError):
    """There is no connection."""


class Untrusted(Unreachable):
    """The server's certificate does not hold."""


@dataclass(frozen=True)
class Response:
    """headers: names in lower case. pieces: the body as it comes, unpacked."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


class Http:
    """Requests to one base URL, each on a connection of its own, which later ones use again.

    headers: of every request. proxy: a URL. connect_s: seconds that a connection may take. For one event loop.
    """

    def __init__(self, url: str, headers: Mapping[str, str], proxy: str | None, connect_s: float) -> None:
        self._url, self._connect_s = urlsplit(url), connect_s
        self._proxy = None if proxy is None else urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        self._host = self._url.netloc.encode("idna").decode()
        own = {"Host": self._host, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        self._secure = self._url.scheme == "https"
        if self._proxy is not None and not self._secure:
            own |= _credentials(self._proxy)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in own.items())
        self._open: list[tuple[float, _Stream]] = []
        self.closed = False

    @asynccontextmanager
    async def request(self, path: str, body: bytes | None) -> AsyncIterator[Response]:
        """Ask, and read the answer within. path: with the query. body: of a POST; None is a GET.

        Raises Unreachable, Untrusted, HttpError and other OSErrors.
        """
        target = quote(path, safe="/?&=%:;,+@!$'()*~")
        if self._proxy is not None and not self._secure:
            target = f"{self._url.scheme}://{self._host}{target}"
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\n{self._head}{length}\r\n"
        reader, writer = stream = self._again() or await self._connect()
        whole = False
        try:
            # Not waited for until it is sent: a server that refuses a long body says so while it comes.
            writer.write(head.encode("ascii") + (body or b""))
            status, version, headers = await _head_of(reader)
            done: list[bool] = []
            yield Response(status, headers, _pieces(reader, status, headers, done))
            stays = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
            whole = stays and done == [True]
        finally:
            if whole and not self.closed:
                self._open.append((time.monotonic(), stream))
            else:
                writer.transport.abort()

    async def close(self) -> None:
        """Close the connections that wait."""
        self.closed = True
        while self._open:
            self._open.pop()[1][1].transport.abort()
        await asyncio.sleep(0)  # in which they go

    def _again(self) -> _Stream | None:
        """The connection that was used last, where it still stands."""
        while self._open:
            since, stream = self._open.pop()
            if not stream[0].at_eof() and not stream[1].is_closing() and time.monotonic() - since < _IDLE:
                return stream
            stream[1].transport.abort()
        return None

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def _connect(self) -> _Stream:
        first = self._proxy or self._url
        try:
            async with asyncio.timeout(self._connect_s):
                reader, writer = await asyncio.open_connection(
                    first.hostname,
                    first.port or (443 if first.scheme == "https" else 80),
                    ssl=self._trust if first.scheme == "https" else None,
                    limit=_LINE,
                    happy_eyeballs_delay=0.25,
                )
                try:
                    if self._proxy is not None and self._secure:
                        await self._tunnel(self._proxy, reader, writer)
                except BaseException:
                    writer.transport.abort()
                    raise
                return reader, writer
        except TimeoutError as error:
            raise Unreachable(f"no connection within {self._connect_s:g} s") from error
        except ssl.SSLError as error:
            raise Untrusted(str(error)) from error
        except OSError as error:
            raise error if isinstance(error, HttpError) else Unreachable(error.strerror or str(error)) from error

    async def _tunnel(self, proxy: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = f"{self._host}{'' if self._url.port else ':443'}"
        lines = {"Host": place, **_credentials(proxy)}
        told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"CONNECT {place} HTTP/1.1\r\n{told}\r\n".encode("ascii"))
        status, _, _ = await _head_of(reader)
        if status != 200:
            raise Unreachable(f"the proxy {proxy.hostname} answered {status}")
        await writer.start_tls(self._trust, server_hostname=self._url.hostname)


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except asyncio.IncompleteReadError as error:
        raise HttpError("it closed the connection") from error
    except (ValueError, asyncio.LimitOverrunError, zlib.error) as error:
        raise HttpError(f"it sent no HTTP/1.1: {error}") from error


async def _head_of(reader: asyncio.StreamReader) -> tuple[int, str, dict[str, str]]:
    """Status, version and headers of the answer; those that only announce it (1xx) are passed over."""
    with _reading():
        while True:
            first = (await reader.readuntil(b"\n")).decode("latin-1").strip()
            version, _, rest = first.partition(" ")
            if not version.startswith("HTTP/1."):
                raise ValueError(f"{first[:60]!r}")
            headers: dict[str, str] = {}
            while line := (await reader.readuntil(b"\n")).decode("latin-1").strip():
                name, colon, value = line.partition(":")
                name, value = name.strip().lower(), value.strip()
                if not colon or len(headers) > _LINES:
                    raise ValueError(f"{line[:60]!r}")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if (status := int(rest[:3])) >= 200:
                return status, version, headers


async def _pieces(
    reader: asyncio.StreamReader, status: int, headers: Mapping[str, str], done: list[bool]
) -> AsyncIterator[bytes]:
    """The body, unpacked. done: gets whether the connection can be used again, at the end."""
    packed = headers.get("content-encoding", "identity").lower()
    if packed not in ("identity", "gzip", "x-gzip", "deflate"):
        raise HttpError(f"its body is packed by {packed[:20]}, which was not asked for")
    unpack = zlib.decompressobj(47) if packed != "identity" else None  # gzip or zlib, as it finds
    with _reading():
        async for piece in _raw(reader, status, headers, done):
            while piece:
                yield unpack.decompress(piece, _PIECE) if unpack else piece
                piece = unpack.unconsumed_tail if unpack else b""


async def _raw(
    reader: asyncio.StreamReader, status: int, headers: Mapping[str, str], done: list[bool]
) -> AsyncIterator[bytes]:
    if status in (204, 304):
        pass
    elif "chunked" in headers.get("transfer-encoding", "").lower():
        while size := _size((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            async for piece in _counted(reader, size):
                yield piece
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif (length := headers.get("content-length")) is not None:
        async for piece in _counted(reader, _size(length.encode(), 10)):
            yield piece
    else:
        while piece := await reader.read(_PIECE):
            yield piece
        done.append(False)
    done.append(True)


async def _counted(reader: asyncio.StreamReader, left: int) -> AsyncIterator[bytes]:
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


def _size(text: bytes, base: int) -> int:
    if not (plain := text.strip()).isalnum():
        raise ValueError(f"a length of {text[:20]!r}")
    return int(plain, base)
