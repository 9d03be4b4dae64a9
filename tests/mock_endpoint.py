"""A loopback server in the form of OpenAI's API: scripted for tests, fast enough to be benchmarked against.

As a program it answers every call with the last message's text: `python tests/mock_endpoint.py --latency 0.1` prints
its base URL and serves until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """What a client asked, and the loop's time at which it did."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: float = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What it is told. body: bytes, or something JSON can write; pieces: sent as chunks, in place of a body.

    after: seconds to wait first; math.inf never answers. every: seconds between pieces. cut: the connection drops where
    the reply would end; hang: it then stays open, and silent.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] | None = None
    after: float = 0
    every: float = 0
    cut: bool = False
    hang: bool = False

    def head(self) -> bytes:
        """All but the pieces."""
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        kind = "text/event-stream" if self.pieces is not None else "application/json"
        lines = {"content-type": kind, **self.headers}
        if self.pieces is None:
            lines.setdefault("content-length", str(len(body)))
        else:
            lines["transfer-encoding"] = "chunked"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"HTTP/1.1 {self.status} Scripted\r\n{head}\r\n".encode() + body

    def tail(self) -> Iterator[bytes]:
        """The pieces, as chunks."""
        if self.pieces is not None:
            yield from (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in self.pieces)
            if not (self.cut or self.hang):
                yield b"0\r\n\r\n"


Handler = Callable[[Call], Reply]


def chat_body(text: str | None, model: str = "mock", finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A /chat/completions reply in its published form."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def text_body(text: str, model: str = "mock", finish: str = "stop") -> dict[str, Any]:
    """A /completions reply in its published form."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c1", "object": "text_completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def events(*items: Any, done: bool = True) -> list[bytes]:
    """Server-sent events, one a piece; strings as they are, all else as JSON."""
    lines = [item if isinstance(item, str) else f"data: {json.dumps(item)}\n\n" for item in items]
    return [line.encode() for line in [*lines, *(["data: [DONE]\n\n"] if done else [])]]


def deltas(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    """The chunks of a streamed chat reply, the usage that ends it included."""

    def chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "c1", "object": "chat.completion.chunk", "model": "mock", "choices": [choice]}

    usage = {"prompt_tokens": 7, "completion_tokens": len(texts), "total_tokens": 7 + len(texts)}
    last = {"id": "c1", "object": "chat.completion.chunk", "model": "mock", "choices": [], "usage": usage}
    pieces = [chunk({"role": "assistant", "content": ""}, None), *(chunk({"content": t}, None) for t in texts)]
    return [*pieces, chunk({}, finish), last]


def echo(call: Call) -> Reply:
    """Answers with the prompt's own last text, streamed where that is asked; one model, `mock`."""
    if call.path.endswith("/models"):
        return Reply({"object": "list", "data": [{"id": "mock", "object": "model"}]})
    asked = call.json
    if "messages" in asked:
        text = asked["messages"][-1]["content"]
        return Reply(pieces=events(*deltas(*text.split(" ")))) if asked.get("stream") else Reply(chat_body(text))
    return Reply(text_body(asked["prompt"]))


def script(*replies: Reply) -> Handler:
    """Answers calls with these, one after another, and with the last for ever; /models are none of them."""
    left = list(replies)

    def handler(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return echo(call)
        return left.pop(0) if len(left) > 1 else left[0]

    return handler


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as clients of an API use it: bodies with a length, one call after another."""

    def __init__(self, server: MockEndpoint) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.server.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            start, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            stop = end + 4 + int(headers.get("content-length", 0))
            if len(self.buffer) < stop:
                return
            method, path, _ = start.split(" ", 2)
            loop = asyncio.get_running_loop()
            call = Call(method, path, headers, self.buffer[end + 4 : stop], loop.time())
            self.buffer = self.buffer[stop:]
            self.server.enter(call)
            reply = self.server.handler(call)
            after = reply.after or self.server.latency
            if after == float("inf"):
                continue
            if after:
                loop.call_later(after, self.answer, reply)
            else:
                self.answer(reply)

    def answer(self, reply: Reply) -> None:
        self.server.in_flight -= 1
        if reply.every:
            self.transport.write(reply.head())
            self.drip(reply, reply.tail())
        elif not self.transport.is_closing():
            self.transport.write(reply.head() + b"".join(reply.tail()))
            if reply.cut:
                self.transport.close()

    def drip(self, reply: Reply, pieces: Iterator[bytes]) -> None:
        if not self.transport.is_closing() and (piece := next(pieces, None)) is not None:
            self.transport.write(piece)
            asyncio.get_running_loop().call_later(reply.every, self.drip, reply, pieces)


class MockEndpoint:
    """The server's state. calls: what was asked, in order (kept where `keep`); most: calls in flight at once."""

    def __init__(self, handler: Handler = echo, latency: float = 0, keep: bool = True) -> None:
        self.handler, self.latency, self.keep = handler, latency, keep
        self.calls: list[Call] = []
        self.connections: set[asyncio.Transport] = set()
        self.in_flight = self.most = 0
        self.url = ""

    def enter(self, call: Call) -> None:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if self.keep:
            self.calls.append(call)


@asynccontextmanager
async def serve(
    handler: Handler = echo, latency: float = 0, keep: bool = True, tls: SSLContext | None = None
) -> AsyncIterator[MockEndpoint]:
    """A running server; its base URL is `.url`."""
    mock = MockEndpoint(handler, latency, keep)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(mock), "127.0.0.1", 0, backlog=1024, ssl=tls)
    mock.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield mock
    finally:
        server.close()
        for transport in list(mock.connections):
            transport.abort()
        await asyncio.sleep(0)


@contextmanager
def serve_in_thread(handler: Handler = echo) -> Iterator[MockEndpoint]:
    """A running server for callers that do not await."""
    started: list[MockEndpoint] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with serve(handler) as mock:
            started.extend((mock,))
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


class _Impatient(selectors.DefaultSelector):
    """Waits for nothing but what is on its way, and says how long it would have waited."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        ready = super().select(0.002 if timeout is not None else None)  # what the kernel still holds
        if not ready and timeout is not None:
            self.skipped += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything happens, and leaps to the next timer when nothing does."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.skipped


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time: sleeps and time-outs take none, and their lengths are exact."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)


async def _main(latency: float) -> None:
    async with serve(latency=latency, keep=False) as mock:
        print(mock.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    asyncio.run(_main(parser.parse_args().latency))
