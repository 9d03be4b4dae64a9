"""Structured logs: a line of JSON for each call and each event.

A line can hold no key, cookie, prompt or image by what it is made of: of a call only the fields of `Line` are written;
of an event the words of the code that tells it, and what it tells of only where that is a number or one word; of a
failure its kind and where it happened, never what it says.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretell.generate import Usage

log = logging.getLogger("foretell.calls")
_STATE = "log"  # of a request's state
_LONGEST = 500  # letters of an event's words
_WORD = re.compile(r"[\w.:/\[\]-]{1,128}", re.ASCII)
_SECRETS = (
    re.compile(r"\b(?:sk|key|Bearer|Basic)[-_ ][\w.~+/=-]{8,}", re.I),
    re.compile(r"(?:set-)?cookie:?\s*\S.*", re.I),
    re.compile(r"data:[\w/+.-]*;base64,[\w+/=%-]*", re.I),
    re.compile(r"(?<=://)[^\s/@]+@"),  # the password of a URL
    re.compile(r"[\w+/=-]{40,}"),  # what no word is: tokens, digests, base64
)


@dataclass(frozen=True)
class Line:
    """What is told of a call. route: as the application names it, never the path that was asked for. user, key, model:
    ids and a served model's name. ms: to the end of the answer. first_ms: to the first piece of a stream."""

    request: str
    method: str
    route: str
    status: int
    ms: float
    first_ms: float | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def note(scope: Scope, *, user: str | None = None, key: str | None = None, model: str | None = None,
         usage: Usage | None = None) -> None:  # fmt: skip
    """Tell what becomes known of a call while it is answered; the last word counts. key: its id. Never give a model's
    name as the caller wrote it, but that of the model which was found."""
    known = scope.setdefault("state", {}).setdefault(_STATE, {})
    told = {"user": user, "key": key, "model": model}
    if usage is not None:
        told |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}  # type: ignore[dict-item]
    known.update({name: value for name, value in told.items() if value is not None})


class Calls:
    """ASGI middleware, outermost: logs each call when its answer has ended, however it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, request, first = time.perf_counter(), 0, "", None

        async def told(message: Message) -> None:
            nonlocal status, request, first
            if message["type"] == "http.response.start":
                status = message["status"]
                request = dict(message.get("headers", ())).get(b"x-request-id", b"").decode("latin-1")
            elif first is None and message.get("more_body"):
                first = round((time.perf_counter() - began) * 1000, 1)
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            line = Line(
                scrub(request), scope["method"][:8], getattr(scope.get("route"), "path", "none"), status or 499,
                round((time.perf_counter() - began) * 1000, 1), first, **scope.get("state", {}).get(_STATE, {}),
            )  # fmt: skip
            level = logging.ERROR if line.status >= 500 else logging.INFO
            log.log(level, "call", extra={"call": line})


class Json(logging.Formatter):
    """One line of JSON a record. now: seconds since 1970; a record's own time where it is None."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        super().__init__()
        self._now = now

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(self._now() if self._now else record.created, UTC)
        told: dict[str, Any] = {"time": at.isoformat(timespec="milliseconds"), "level": record.levelname.lower()}
        call = getattr(record, "call", None)
        if isinstance(call, Line):
            told |= {name: value for name, value in asdict(call).items() if value is not None}
            return json.dumps(told, separators=(",", ":"))
        told |= {"logger": record.name, "event": _event(record)}
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = type(record.exc_info[1]).__name__
            frames = traceback.extract_tb(record.exc_info[2])
            told["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        return json.dumps(told, separators=(",", ":"))


def _event(record: logging.LogRecord) -> str:
    args = record.args or ()
    try:
        if isinstance(args, tuple):
            return scrub(str(record.msg) % tuple(map(_argument, args)) if args else str(record.msg))
        return scrub(str(record.msg) % {name: _argument(value) for name, value in args.items()})
    except (TypeError, ValueError, KeyError):
        return scrub(str(record.msg))


def _argument(value: object) -> object:
    """What may be told of a value: texts, which may be a caller's, are not."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else "…"
    return type(value).__name__


def scrub(text: str) -> str:
    """Without what looks like a key, a cookie, an image or a password, in one line of at most 500 letters."""
    for secret in _SECRETS:
        text = secret.sub("…", text[: 20 * _LONGEST])
    return " ".join(text.split())[:_LONGEST]


def write_json(stream: IO[str] = sys.stderr, level: int = logging.INFO) -> logging.Handler:
    """Have what this server, and all that it stands on, logs written as JSON lines. Returns the handler."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json())
    for name in ("foretell", "uvicorn", "asyncio", "aiohttp"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    return handler
