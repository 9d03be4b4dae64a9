"""The HTTP client: bodies in every form, connections used again, and proxies, with and without TLS."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from foretell.engine.http import Http, HttpError, Unreachable

BODY = bytes(range(256)) * 2000


def chunked(body: bytes) -> bytes:
    parts = [body[:1], body[1:70_000], body[70_000:]]
    return b"".join(b"%X;note=x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\nTrailer: a\r\n\r\n"


@asynccontextmanager
async def served(answer: bytes, secure: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers every request alike; its port, and the heads it got, b"" for each new connection."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(b"")
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
                if b"close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=secure)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def get(http: Http) -> tuple[int, bytes]:
    async with http.request("/v1/models", None) as response:
        return response.status, b"".join([piece async for piece in response.pieces])


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY), True),
        (b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY), True),
        (b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n" + chunked(gzip.compress(BODY)), True),
        (b"Content-Encoding: deflate\r\nConnection: close\r\n\r\n" + zlib.compress(BODY), False),
        (b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY), False),
    ],
)
def test_a_body_in_any_form_and_the_connection_afterwards(answer: bytes, kept: bool) -> None:
    async def main() -> list[bytes]:
        async with served(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n" + answer) as (port, heads):
            http = Http(f"http://127.0.0.1:{port}/v1", {}, None, 5)
            for _ in range(3):
                assert await get(http) == (200, BODY)
            await http.close()
            return heads

    assert asyncio.run(main()).count(b"") == (1 if kept else 3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told(answer: bytes) -> None:
    async def main() -> None:
        async with served(answer) as (port, _):
            await get(Http(f"http://127.0.0.1:{port}", {}, None, 5))

    with pytest.raises(HttpError):
        asyncio.run(main())


def test_an_answer_left_in_the_middle_is_not_read_by_the_next(tmp_path: Path) -> None:
    async def main() -> int:
        async with served(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)) as (port, heads):
            http = Http(f"http://127.0.0.1:{port}", {}, None, 5)
            async with http.request("/", b"{}") as response:
                await anext(response.pieces)
            assert await get(http) == (200, BODY)
            await http.close()
            return heads.count(b"")

    assert asyncio.run(main()) == 2


def test_a_proxy_that_refuses_is_named() -> None:
    async def main() -> bytes:
        async with served(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as (port, heads):
            with pytest.raises(Unreachable, match="the proxy localhost answered 407"):
                await get(Http("https://api.example/v1", {}, f"http://me:a%20b@localhost:{port}", 5))
            return heads[1]

    head = asyncio.run(main())
    assert head.startswith(b"CONNECT api.example:443 HTTP/1.1\r\n") and b"Basic bWU6YSBi\r\n" in head


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_tls_direct_and_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "cert")
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*asked.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(certificate, key)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        further = await asyncio.open_connection(*place.rsplit(":", 1))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(pipe(reader, further[1]), pipe(further[0], writer), return_exceptions=True)

    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
        async with (
            served(answer, secure) as (port, heads),
            await asyncio.start_server(forward, "127.0.0.1", 0) as proxy,
        ):
            through = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            with pytest.raises(Unreachable, match="certificate"):
                await get(Http(f"https://localhost:{port}", {}, None, 5))
            monkeypatch.setenv("SSL_CERT_FILE", certificate)
            heads.clear()
            for way in (None, through):
                http = Http(f"https://localhost:{port}", {}, way, 5)
                assert [await get(http), await get(http)] == [(200, BODY)] * 2
                await http.close()
            assert heads.count(b"") == 2 and heads[1].startswith(b"GET /v1/models HTTP/1.1\r\nHost: localhost:")

    asyncio.run(main())
