"""Replies, generated on the server by tasks of their own: they go on when a browser leaves.

A reply takes the way that a call of the API takes, so limits, moderation, bills and figures are the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from foretell.errors import StoreError
from foretell.serve.asked import ChatBody, read
from foretell.serve.calls import Server
from foretell.serve.chat import chat
from foretell.serve.chats import messages
from foretell.serve.chats.context import Context
from foretell.serve.chats.live import Live
from foretell.serve.chats.markdown import clean_text
from foretell.serve.chats.messages import CUT, Written
from foretell.serve.gate import Caller
from foretell.serve.metrics import REPLY
from foretell.serve.refusals import Params, refusal, refuse
from foretell.serve.store import Store
from foretell.serve.traffic import EventStream

log = logging.getLogger("foretell.serve")

_SAVE_S = 1.0
_TRIES = 5  # to write a reply's end
_MOST_LIVE = 8  # replies of one owner at once
_TOO_LONG = ("context_length_exceeded", "above_limit")
_LEFT_OUT = "The beginning of this conversation is longer than the model can read, and was left out."
_FILTERED = "The reply was stopped by a content filter."


@dataclass(frozen=True)
class Call:
    """What a reply is to be made of. images: whether the model reads any."""

    id: str
    owner: str
    conversation: str
    caller: Caller
    model: str
    context: Context
    images: bool = True


class _RefusedError(Exception):
    """The policy stands against a reply, and says so in words of its own."""


class Replies:
    """All replies that this process writes."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server, self._store = server, store
        self._live: dict[str, Live] = {}
        self._ends = False

    def get(self, id: str, owner: str) -> Live | None:
        live = self._live.get(id)
        return live if live is not None and live.owner == owner else None

    def written(self, id: str) -> Written | None:
        """What there is of a reply that this process writes; None for another."""
        live = self._live.get(id)
        return None if live is None else live.written()

    def check_room(self, owner: str, more: int) -> None:
        """Raises RequestError where an owner has too many replies on their way, or the server ends."""
        if self._ends or self._server.traffic.draining:
            raise refuse("The server is shutting down. Ask again shortly.", 503, code="shutting_down")
        if sum(live.owner == owner for live in self._live.values()) + more > _MOST_LIVE:
            text = f"{_MOST_LIVE} replies are being written at once, and no more may be. Stop one, or wait."
            raise refuse(text, 429, code="too_many_replies")

    def begin(self, call: Call) -> None:
        live = self._live[call.id] = Live(call.id, call.owner, call.conversation)
        live.task = asyncio.create_task(self._write(live, call))

    def stop(self, live: Live, status: str = "stopped") -> None:
        if live.status == "streaming" and live.task is not None:
            live.status = status
            if live.has_begun:  # a task that is cancelled before would not even note its end
                live.task.cancel()

    def stop_all(self, owner: str, conversation: str) -> None:
        """Before a conversation is removed."""
        for live in list(self._live.values()):
            if (live.owner, live.conversation) == (owner, conversation):
                self.stop(live)

    async def close(self) -> None:
        """Cut every reply, and keep what came."""
        self._ends = True
        left = list(self._live.values())
        for live in left:
            self.stop(live, CUT)
        await asyncio.gather(*(live.task for live in left if live.task is not None), return_exceptions=True)
        await asyncio.gather(*(live.end for live in left if live.end is not None), return_exceptions=True)

    async def _write(self, live: Live, call: Call) -> None:
        began, status, live.has_begun = time.perf_counter(), 200, True
        saving = asyncio.create_task(self._save(live))
        try:
            if live.status == "streaming":
                with self._server.traffic.call():
                    await self._generate(live, call)
                live.status = "done"
        except asyncio.CancelledError:  # `stop` has said how it ends
            live.status = CUT if live.status == "streaming" else live.status
            status = 499
        except _RefusedError as error:
            live.status, live.error, live.code = "refused", str(error), "content_policy_violation"
        except Exception as error:
            refused = refusal(error, Params("messages"))
            if (status := refused.status) == 500 and refused.code == "internal_error":
                log.exception("reply %s failed", live.id)
            blocked = refused.code == "content_policy_violation"
            live.status, live.error, live.code = "refused" if blocked else "failed", str(refused), refused.code
        finally:
            saving.cancel()
        live.growing.text = live.growing.text.rstrip()
        # In a task of its own, since this one may be cancelled just now.
        live.end = asyncio.create_task(self._end(live))
        await asyncio.shield(live.end)
        first = None if live.first is None else live.first - began
        self._server.metrics.answered(REPLY, status, time.perf_counter() - began, first)

    async def _end(self, live: Live) -> None:
        await live.finish()
        for turn in range(_TRIES):
            try:
                await self._store.run(messages.write, self._store, live.id, live.written())
                break
            except StoreError as error:
                log.error("reply %s is not kept yet: %s", live.id, error)
                if turn + 1 < _TRIES and not self._ends:
                    await asyncio.sleep(_SAVE_S)
        live.is_kept = True
        self._live.pop(live.id, None)
        live.tell()

    async def _save(self, live: Live) -> None:
        """Keep what came, now and then: also as a sign that it is still being written."""
        while True:
            await asyncio.sleep(_SAVE_S)
            try:
                if not await self._store.run(
                    messages.write, self._store, live.id, Written(live.growing.text, None, live.tokens)
                ):
                    self.stop(live)
            except StoreError as error:
                log.error("reply %s is not saved: %s", live.id, error)

    async def _generate(self, live: Live, call: Call) -> None:
        """Read the reply of a model. Where the conversation is too long for it, of less and less of it."""
        last = len(call.context.turns)
        while True:
            try:
                response = await self._answer(call, call.context.body(call.model, last, call.images))
                break
            except Exception as error:
                if refusal(error).code not in _TOO_LONG or last <= 1:
                    raise
                last //= 2
        if last < len(call.context.turns):
            live.error, live.code = _LEFT_OUT, "beginning_left_out"
        if isinstance(response, EventStream):
            await self._read(live, response)
        else:
            _take(live, json.loads(bytes(response.body)))
        if live.refusal:
            raise _RefusedError(live.refusal)

    def _answer(self, call: Call, raw: dict[str, Any]) -> Awaitable[Response]:
        server = self._server
        asked = read(ChatBody, raw)
        http = HTTPRequest(_scope(call.caller))

        def work(asked: Any, raw: Any) -> Awaitable[Any]:
            return server.upstream.answer(server, asked, raw) if server.upstream else chat(server, http, asked, raw)

        if server.gateway is None or call.caller.account is None:
            return work(asked, raw)
        return server.gateway.answer(http, asked, raw, work)

    async def _read(self, live: Live, response: EventStream) -> None:
        try:
            async for piece in response.pieces:
                for data in piece.split(b"\n\n"):
                    line = data.removeprefix(b"data: ")
                    if line and line != b"[DONE]":
                        _take(live, json.loads(line))
        finally:
            await response.close()


def _scope(caller: Caller) -> dict[str, Any]:
    """Of a call that no browser waits for."""
    state = {"caller": caller, "request_id": f"req_{uuid.uuid4().hex}"}
    return {"type": "http", "method": "POST", "path": REPLY, "headers": [], "query_string": b"", "state": state}


def _take(live: Live, found: Mapping[str, Any]) -> None:
    """One event of a stream, or a whole answer. Raises RequestError for a failure, and what the policy says."""
    if error := found.get("error"):
        raise refuse(str(error.get("message")), 500, code=error.get("code"))
    for choice in found.get("choices") or ():
        said = choice.get("delta") or choice.get("message") or {}
        # Line ends may come in halves.
        text, refused = clean_text((said.get("content") or "").replace("\r", "")), said.get("refusal")
        if choice.get("finish_reason") == "content_filter":
            # What may be shown comes first, and the policy's words behind it.
            shown, _, words = text.rpartition("\n\n")
            if shown:
                live.push(shown)
            raise _RefusedError(refused or words or _FILTERED)
        live.refusal += clean_text(refused or "")
        if text:
            live.push(text)
    usage = found.get("usage") or {}
    if type(usage.get("completion_tokens")) is int:
        live.tokens = usage["completion_tokens"]
    if isinstance(found.get("model"), str):
        live.model = found["model"][:256]
