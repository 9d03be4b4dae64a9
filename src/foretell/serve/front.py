"""What stands before every route: who calls, an id, the counts, and failures in one form."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretell.errors import RequestError
from foretell.serve.body import BodyLimits, parse_json
from foretell.serve.calls import Server, log
from foretell.serve.gate import Caller
from foretell.serve.refusals import headers_of, refusal, refuse, written
from foretell.serve.traffic import ClientGone

_OPEN = ("/health", "/ready", "/openapi.json")  # for probes and readers, without a key
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_SHORT = 100_000  # bytes of JSON that are read at once; longer ones on a thread, since others wait


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
            scope.setdefault("state", {}).update(caller=caller, request_id=request_id)
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
    response = Response(written(error), error.status, media_type="application/json")
    response.raw_headers += headers_of(error)
    return response


async def read_json(request: Request, limits: BodyLimits) -> dict[str, Any]:
    """The object of a body of JSON. Raises RequestError, for another kind of body too: a page of another site may send
    those without asking its reader's browser first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refuse(f"Expected a body of type application/json; found {kind[:80] or 'none'}.", 400)
    body = await request.body()
    if len(body) < _SHORT:
        return parse_json(body, limits)
    return await asyncio.to_thread(parse_json, body, limits)
