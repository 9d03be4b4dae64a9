"""The process: a socket, signals, and an end that lets streams finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from foretell.serve.calls import Server

_LEFT_S = 1  # for connections to close once their answers are cut or done


class Process(uvicorn.Server):
    """At the first SIGTERM or SIGINT new calls get 503, and those under way have drain_seconds to finish; a second
    signal ends it at once.

    started: called once with the URL, when the socket is open.
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
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_LEFT_S,
                h11_max_incomplete_event_size=2 * server.limits.body.header_bytes,
            )
        )
        self.server, self.drain_seconds, self._told = server, drain_seconds, started
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._told(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().shutdown(sockets)  # type: ignore[arg-type]
        await self.server.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.server.traffic.draining:
            self.should_exit = self.force_exit = True
        else:
            self.server.traffic.draining = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        async def drain() -> None:
            try:
                async with asyncio.timeout(self.drain_seconds):
                    await self.server.traffic.idle()
            except TimeoutError:
                pass
            self.should_exit = True

        self._draining = asyncio.create_task(drain())
