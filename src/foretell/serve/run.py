"""The process: a socket, signals, and an end that lets streams finish."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from foretell.errors import GenerationError
from foretell.serve.calls import Server

_IDLE_S = 75  # longer than proxies and clients keep a connection, so that they end it and lose no call
_LEFT_S = 1  # for connections to close once their answers are cut or done


class Process(uvicorn.Server):
    """At the first SIGTERM or SIGINT new calls get 503, and those under way have drain_seconds to finish; then, or at a
    second signal, they are told that they will not. Raises GenerationError for an address that cannot be had.

    started: called once with the URL, when the socket is open. behind_proxy: callers' addresses are those that a proxy
    on this machine tells.
    """

    def __init__(
        self,
        app: ASGIApp,
        server: Server,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        drain_seconds: float = 30.0,
        started: Callable[[str], None] = lambda url: None,
        behind_proxy: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=behind_proxy,  # else a caller could say that it calls from elsewhere
                lifespan="off",
                ws="none",
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_LEFT_S,
                h11_max_incomplete_event_size=2 * server.limits.body.header_bytes,
            )
        )
        self.server, self.drain_seconds, self._told = server, drain_seconds, started
        self._socket = listen(host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run([*(sockets or ()), self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.server.start()
        gc.collect()
        gc.freeze()  # what was loaded stays: to look through it again and again would hold up calls
        host, port = self._socket.getsockname()[:2]
        self._told(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self.server.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self._hurry.is_set():
            self.should_exit = self.force_exit = True
        elif self.server.traffic.draining:
            self._loop.call_soon_threadsafe(self._hurry.set)
        else:
            self.server.traffic.draining = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        async def drain() -> None:
            idle, hurry = (asyncio.ensure_future(wait) for wait in (self.server.traffic.idle(), self._hurry.wait()))
            await asyncio.wait((idle, hurry), timeout=self.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not idle.done():
                await self.server.close()  # who still waits gets an error
                await asyncio.wait((idle,), timeout=_LEFT_S)
            idle.cancel()
            hurry.cancel()
            self.should_exit = True

        self._draining = asyncio.create_task(drain())


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises GenerationError for an address that cannot be had."""
    try:
        # With its protocol told, since asyncio sends without delay only where it is: else a reply of two pieces waits
        # 40 ms between them.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)[0]
        family, kind, protocol, _, address = found
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        return listener
    except OSError as error:
        raise GenerationError(
            f"Nothing can be served at {host}, port {port} ({error.strerror or error}). Give another --host or --port, "
            "or end what holds this one."
        ) from error
