"""Calls on their way: how many wait, whose callers have gone, and what of a stream is ready to be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from foretell.errors import OverloadedError

T = TypeVar("T")


class ClientGone(Exception):
    """Whoever asked has hung up; nobody reads an answer."""


class Traffic:
    """Counts of one server. waiting: calls of which nothing was answered yet, at most max_waiting at once."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.waiting = self.active = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """While an answer is on its way."""
        self.active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.active -= 1
            if not self.active:
                self._idle.set()

    @contextmanager
    def queue(self) -> Iterator[None]:
        """While nothing of an answer is there. Raises OverloadedError where too many wait already."""
        if self.waiting >= self.max_waiting:
            raise OverloadedError(
                f"{self.waiting} calls wait already, and no more may. Ask again after the seconds of retry-after."
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def idle(self) -> None:
        """Until no answer is on its way."""
        await self._idle.wait()

    def counts(self) -> Mapping[str, int]:
        return {"active": self.active, "waiting": self.waiting}


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The outcome of work, which is cancelled when the client hangs up. For after the body was read.

    Raises ClientGone.
    """

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.create_task(hung_up())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def together(items: AsyncIterator[T]) -> AsyncGenerator[list[T], None]:
    """What comes, in lists of all that is ready: a slow reader gets few long lists. Closing it closes `items`."""
    ready, came = asyncio.Event(), list[T]()

    async def pump() -> None:
        try:
            async for item in items:
                came.append(item)
                ready.set()
        finally:
            ready.set()

    task = asyncio.create_task(pump())
    try:
        while True:
            await ready.wait()
            ready.clear()
            if came:
                taken, came[:] = came[:], []
                yield taken
            elif task.done():
                task.result()
                return
            if task.done():
                ready.set()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if hasattr(items, "aclose"):
            await items.aclose()


class Peeked(AsyncIterator[T]):
    """An iterator whose first item was taken already."""

    def __init__(self, first: T, rest: AsyncGenerator[T, None]) -> None:
        self._first, self._rest = [first], rest

    async def __anext__(self) -> T:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


class EventStream(Response):
    """A response of server-sent events. Ends with the client, or with its pieces.

    pieces: whole events, ready to be sent, the failure of a stream included. close: what to do at the end, also where
    nothing was sent.
    """

    def __init__(self, pieces: AsyncIterator[bytes], close: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.pieces, self.close = pieces, close
        self.more: list[tuple[bytes, bytes]] = []  # headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx would hold pieces back
            *self.more,
        ]

        async def stream() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await unless_gone(receive, stream())
        finally:
            await self.close()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


DONE = event(b"[DONE]")
