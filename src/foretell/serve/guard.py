"""What stands before an application: limits on headers, bodies and the time that they take, held while they arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from foretell.errors import RequestError
from foretell.serve.body import BodyLimits, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def envelope(error: RequestError) -> dict[str, dict[str, str | None]]:
    """An error as OpenAI's API tells it."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}


def guarded(app: App, limits: BodyLimits = BodyLimits(), larger: Mapping[str, int] | None = None) -> App:
    """An ASGI application that is asked only within limits. larger: bytes of a body, by path, where more are taken.

    Headers are checked before it is called (431), a declared length too (413). The body is measured as the application
    reads it: past its bytes (413) or its time (408), `receive` raises RequestError. Where the application lets that
    pass, it is answered here, and the connection closed.
    """

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        begun = False
        most = (larger or {}).get(scope.get("path", ""))
        own = limits if most is None else replace(limits, body_bytes=most)

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            _check_headers(scope, own)
            await app(scope, _measured(receive, own), watched)
        except RequestError as error:
            if begun:
                raise
            await _answer(error, send)

    return call


def _check_headers(scope: Scope, limits: BodyLimits) -> None:
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    size += len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if len(headers) > limits.headers or size > limits.header_bytes:
        raise RequestError(
            f"The request has {len(headers)} headers of {size:,} bytes with its address; at most {limits.headers} of "
            f"{limits.header_bytes:,} bytes are read.",
            431,
            code="headers_too_large",
        )
    for name, value in headers:
        if name == b"content-length" and not (value.isdigit() and len(value) < 20 and int(value) <= limits.body_bytes):
            raise too_large(limits.body_bytes)


def _measured(receive: Receive, limits: BodyLimits) -> Receive:
    size, ends, complete = 0, 0.0, False

    async def measured() -> Message:
        nonlocal size, ends, complete
        if complete:  # what still comes is the end of the connection, which may take as long as it likes
            return await receive()
        ends = ends or asyncio.get_running_loop().time() + limits.body_s
        try:
            async with asyncio.timeout_at(ends):
                message = await receive()
        except TimeoutError as error:
            raise RequestError(
                f"The request's body did not arrive within {limits.body_s:g} s. Send it again.",
                408,
                code="request_timeout",
            ) from error
        size += len(message.get("body", b""))
        if size > limits.body_bytes:
            raise too_large(limits.body_bytes)
        complete = not message.get("more_body", False)
        return message

    return measured


async def _answer(error: RequestError, send: Send) -> None:
    body = json.dumps(envelope(error)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
