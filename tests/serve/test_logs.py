"""Structured logs: what each line tells, and that no key, cookie, prompt or image is ever in one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import servekit
from hypothesis import given
from hypothesis import strategies as st
from servekit import PNG, Stub, make_server, running
from starlette.types import ASGIApp, Receive, Scope, Send

from foretell.generate import Usage
from foretell.serve.app import create_app
from foretell.serve.gate import StaticGate
from foretell.serve.logs import Calls, Json, Line, note, scrub, write_json

KEY = "sk-ft-3kW9vQ7sYtR2mN8xB4cZ1dF6gH0jL5pA"
COOKIE = "foretell_session=Zm9yZXRlbGxzZXNzaW9udG9rZW4xMjM0NTY3ODkwYWJj"
PROMPT = "the tangerine emperor sleeps"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written, with every logger as it was afterwards."""
    loggers = [logging.getLogger(name) for name in ("foretell", "uvicorn", "asyncio", "aiohttp")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    write_json(stream, logging.DEBUG)
    yield stream
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Noted:
    """Stands where the gateway tells what becomes known of a call."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/chat"):
            note(scope, user="user_1", key="key_1")
            note(scope, model="demo", usage=Usage(5, 4))
        await self.app(scope, receive, send)


def test_no_secret_and_no_content_is_ever_logged(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server is called well and badly, whole and in streams, with failures that quote what was asked."""

    def app(server: Any, pages: Any) -> Any:
        made = create_app(server, pages)
        made.add_middleware(Noted)
        made.add_middleware(Calls)
        return made

    def fail(request: Any) -> str:
        said = servekit.last_text(request.prompt)
        if "explode" in said:
            raise ValueError(f"could not answer {said!r} for {KEY}")
        return said

    monkeypatch.setattr(servekit, "create_app", app)
    sent = {"authorization": f"Bearer {KEY}", "cookie": COOKIE}
    image = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": PNG}}]
    with running(make_server({"demo": Stub(fail)}, gate=StaticGate(KEY))) as live:
        client = httpx.Client(base_url=live.url, headers=sent, timeout=30)

        def chat(content: Any, **fields: Any) -> int:
            body = {"model": "demo", "messages": [{"role": "user", "content": content}], **fields}
            return client.post("/v1/chat/completions", json=body).status_code

        statuses = [
            chat(PROMPT), chat(PROMPT, stream=True), chat(image), chat(f"{PROMPT} break", stream=True),
            chat(f"{PROMPT} explode"), chat(PROMPT, temperature=-1),
            chat([{"type": "image_url", "image_url": {"url": "x"}}]),
            client.post("/v1/completions", json={"model": PROMPT, "prompt": PROMPT}).status_code,
            client.post("/v1/chat/completions", content=f'{{"{PROMPT}'.encode()).status_code,
            client.get(f"/{PROMPT}?key={KEY}").status_code,
            client.get("/v1/models", headers={"x-request-id": KEY}).status_code,
            client.get("/v1/models", headers={"authorization": f"Bearer {KEY}x"}).status_code,
        ]  # fmt: skip
        client.close()
    logging.getLogger("foretell.serve").error("upstream answered %s: %s", 500, f"cannot read {PROMPT}")
    logging.getLogger("foretell.serve").warning("%s", ValueError(PROMPT))
    logging.getLogger("uvicorn.error").error(f"Set-Cookie: {COOKIE} with {KEY} and {PNG}")
    assert statuses == [200, 200, 200, 200, 500, 400, 400, 404, 400, 404, 200, 401]
    written = lines.getvalue()
    told = read(lines)
    calls = [line for line in told if "route" in line]
    assert [line["status"] for line in calls] == statuses
    for secret in (KEY, KEY[6:], COOKIE, COOKIE[20:], "tangerine", "emperor", PNG[30:60], "base64"):
        assert secret not in written, secret
    assert any(line.get("error") == "ValueError" and line["at"] for line in told), "where it failed is told"
    assert any(line.get("event") == "upstream answered 500: …" for line in told)
    first, streamed = calls[:2]
    assert (
        first["route"] == "/v1/chat/completions" and first["method"] == "POST" and first["request"].startswith("req_")
    )
    assert (first["user"], first["key"], first["model"]) == ("user_1", "key_1", "demo")
    assert (first["prompt_tokens"], first["completion_tokens"]) == (5, 4) and first["ms"] > 0
    assert "first_ms" not in first and 0 < streamed["first_ms"] <= streamed["ms"]
    assert calls[9]["route"] == "none" and "user" not in calls[9]
    assert [line["level"] for line in calls if line["status"] >= 500] == ["error"]


def test_every_line_is_one_line_of_json_with_a_time(lines: io.StringIO) -> None:
    log = logging.getLogger("foretell.serve")
    log.info("two\nlines %d %s", 3, "model-1")
    log.warning("done with %(what)s", {"what": "http://127.0.0.1:8000"})
    found = read(lines)
    assert [line["event"] for line in found] == ["two lines 3 model-1", "done with http://127.0.0.1:8000"]
    assert all(line["time"].endswith("+00:00") and line["logger"] == "foretell.serve" for line in found)
    damaged = logging.LogRecord("foretell", logging.INFO, "", 1, "damaged %d", ("text",), None)
    assert json.loads(Json().format(damaged))["event"] == "damaged %d"
    record = logging.LogRecord("foretell", logging.INFO, "", 1, "call", None, None)
    record.call = Line("req_1", "GET", "/health", 200, 1.5)
    assert json.loads(Json(lambda: 0.0).format(record)) == {
        "time": "1970-01-01T00:00:00.000+00:00", "level": "info", "request": "req_1", "method": "GET",
        "route": "/health", "status": 200, "ms": 1.5,
    }  # fmt: skip


@given(st.text(max_size=30), st.binary(min_size=30, max_size=60), st.text(max_size=30))
def test_scrub_leaves_no_key(before: str, secret: bytes, after: str) -> None:
    key = f"sk-ft-{secret.hex()}"
    assert secret.hex() not in scrub(f"{before} {key} {after}")
    assert secret.hex() not in scrub(f"{before} postgresql://me:{secret.hex()}@host/{after}")
    assert len(scrub(before * 100)) <= 500
