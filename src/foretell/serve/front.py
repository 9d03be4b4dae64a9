"""What stands before every route: who calls, how much may come in, an id, the counts, and failures in one form."""

from __future__ import annotations

import asyncio
import re
import time
import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretell.errors import RequestError
from foretell.serve.calls import Limits, Server, log
from foretell.serve.gate import Caller
from foretell.serve.refusals import envelope, refusal, refuse, retry_after
from foretell.serve.traffic import ClientGone

_OPEN = ("/health", "/ready", "/openapi.json")  # for probes and readers, without a key
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_BODY_S = 60.0  # for a body to come in


class Front:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, first = time.perf_counter(), 0, None
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        request_id = asked.get(b"x-request-id", "")
        if not _ID.fullmatch(request_id):
            request_id = f"req_{uuid.uuid4().hex}"
        extra = [(b"x-request-id", request_id.encode())]

        async def told(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            elif first is None and message.get("more_body"):
                first = time.perf_counter() - began
            await send(message)

        try:
            caller = await self._admit(scope, asked)
            extra += caller.headers
            scope.setdefault("state", {})["caller"] = caller
            with self.server.traffic.call():
                await self.app(scope, receive, told)
        except ClientGone:
            status = 499
        except Exception as error:
            if status:
                raise
            if (refused := refusal(error)).status == 500:
                log.exception("request %s failed", request_id)
            await refusal_response(refused)(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.server.metrics.answered(route, status, time.perf_counter() - began, first)

    async def _admit(self, scope: Scope, asked: dict[bytes, str]) -> Caller:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.server.limits.header_bytes:
            raise refuse(f"The headers are longer than {self.server.limits.header_bytes} bytes.", 400)
        if scope["path"] in _OPEN:
            return Caller()
        scheme, _, key = asked.get(b"authorization", "").partition(" ")
        caller = await self.server.gate.admit(
            key.strip() or None if scheme.lower() == "bearer" else None, scope["path"]
        )
        if self.server.traffic.draining and scope["path"].startswith("/v1/"):
            raise refuse("The server is shutting down. Ask again, and another will answer.", 503, code="shutting_down")
        return caller


def refusal_response(error: RequestError) -> Response:
    response = Response(envelope(error), error.status, media_type="application/json")
    response.raw_headers += retry_after(error)
    return response


async def read_body(request: Request, limits: Limits) -> bytes:
    """A body of JSON. Raises RequestError for another kind, and for a longer one than is allowed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refuse(f"Expected a body of type application/json; found {kind[:80] or 'none'}.", 400)
    pieces, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for piece in request.stream():
                size += len(piece)
                if size <= limits.body_bytes:  # what is too much is read, so that the answer can be, and dropped
                    pieces.append(piece)
                elif size > 4 * limits.body_bytes:
                    break
    except TimeoutError:
        raise refuse(f"The body did not come within {_BODY_S:g} s.", 400) from None
    if size > limits.body_bytes:
        raise refuse(f"The body is longer than the {limits.body_bytes} bytes allowed.", 413, code="body_too_large")
    return b"".join(pieces)
