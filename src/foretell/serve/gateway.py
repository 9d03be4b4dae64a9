"""What an account's call goes through: its scopes and standing, its limits, moderation of both sides, and its bill."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from foretell.errors import StoreError
from foretell.generate import Usage
from foretell.safety.moderation import Finding, Moderation
from foretell.safety.strikes import Ladder, Standing
from foretell.safety.window import Held
from foretell.serve.accounts import sessions
from foretell.serve.accounts.account import Account
from foretell.serve.asked import ChatBody, Drawing, EmbeddingBody, StreamOptions
from foretell.serve.calls import json_response
from foretell.serve.limits.limits import Limits, Reservation
from foretell.serve.logs import note
from foretell.serve.metrics import Metrics
from foretell.serve.refusals import refuse
from foretell.serve.reviews.findings import record
from foretell.serve.reviews.overview import overview
from foretell.serve.reviews.retention import Keep, forget
from foretell.serve.reviews.standings import refresh
from foretell.serve.reviews.sweep import sweep
from foretell.serve.reviews.tally import Tally
from foretell.serve.screen import Open, Screen, estimate, texts_of, words_alone
from foretell.serve.sizes import most, size
from foretell.serve.store import Store
from foretell.serve.traffic import DONE, EventStream, event

T = TypeVar("T")
Work = Callable[[Any, Mapping[str, Any]], Awaitable[Response]]
"""A checked body and its JSON → the answer."""

log = logging.getLogger("foretell.serve")

_BEAT_S, _RECOVER_S, _MINUTE_S, _SWEEP_S = 5, 15, 60, 3600
_SHORT = 4_000  # letters that are moderated at once; longer texts on a thread, since others wait


@dataclass(frozen=True)
class Gateway:
    """The parts that stand between an account and the models. moderation None: nothing is moderated."""

    store: Store
    limits: Limits
    moderation: Moderation | None = None
    ladder: Ladder = field(default_factory=Ladder)
    keep: Keep = field(default_factory=Keep)
    metrics: Metrics | None = None
    tally: Tally | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    _late: list[Callable[[], None]] = field(default_factory=list, init=False)

    async def answer(
        self, http: HTTPRequest, asked: Drawing | EmbeddingBody, raw: Mapping[str, Any], work: Work
    ) -> Response:
        """The answer to an account's call. Raises RequestError where a limit or the policy stands against it."""
        if isinstance(asked, EmbeddingBody):
            return await self._count(http, asked, raw, work)
        account: Account = http.state.caller.account
        prompt, images = size(raw, self.limits.tiers.images)
        reservation = await self._stored(
            "reserve", self.limits.reserve, account, asked.model, prompt_tokens=prompt + images,
            max_tokens=most(asked), image_tokens=images, stream=bool(asked.stream),
        )  # fmt: skip
        note(http.scope, user=account.user, key=account.key, model=reservation.model)
        call = _Call(self, account, reservation, http, Usage(prompt + images, 0, images))
        try:
            refused = await self._refused(call, asked, raw)
            if refused is not None:
                await call.release()
                return _with(refused, reservation)
            raw = {**raw, "model": reservation.model}
            again = asked.model_copy(update={"model": reservation.model})
            if asked.stream:  # what was used is told at a stream's end only to who asks for it
                raw["stream_options"] = {**(raw.get("stream_options") or {}), "include_usage": True}
                options = asked.stream_options or StreamOptions()
                again = again.model_copy(update={"stream_options": options.model_copy(update={"include_usage": True})})
            response = await work(again, raw)
        except Exception:
            await call.release()
            raise
        except BaseException:  # who asked has gone, while the model was at work
            await call.settle(call.asked, "broken")
            raise
        screen = self._screen(call, asked)
        if isinstance(response, EventStream):
            return _with(_screened(response, screen, call), reservation)
        try:
            found = screen.whole(json.loads(bytes(response.body)))
        finally:
            await call.settle(estimate(screen, call.asked), "done")
        await call.tell_findings()
        return _with(json_response(found), reservation)

    async def _count(self, http: HTTPRequest, asked: EmbeddingBody, raw: Mapping[str, Any], work: Work) -> Response:
        """The answer to a call that generates nothing: embeddings."""
        account: Account = http.state.caller.account
        prompt, _ = size(raw, self.limits.tiers.images)
        reservation = await self._stored(
            "reserve", self.limits.reserve, account, asked.model, prompt_tokens=prompt, max_tokens=0
        )
        note(http.scope, user=account.user, key=account.key, model=reservation.model)
        call = _Call(self, account, reservation, http, Usage(prompt, 0))
        try:
            raw = {**raw, "model": reservation.model}
            response = await work(asked.model_copy(update={"model": reservation.model}), raw)
        except BaseException:
            await call.release()
            raise
        told = json.loads(bytes(response.body)).get("usage") or {}
        await call.settle(Usage(told.get("prompt_tokens", prompt), 0), "done")
        return _with(response, reservation)

    async def _stored(self, name: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Work on the database, and how long it took."""
        with self.metrics.storing(name) if self.metrics is not None else nullcontext():
            return await self.store.quick(work, *args, **kwargs)

    async def ready(self) -> None:
        """Raises StoreError where the database does not answer."""

        def ask() -> None:
            with self.store.read() as db:
                db.execute(sa.select(1))

        await self.store.run(ask)

    def start(self) -> None:
        """Begin what goes on beside the calls: leases, the bills of processes that died, retention, anomalies."""
        self._tasks.append(asyncio.create_task(self._keep_up()))

    async def close(self) -> None:
        """End that. The store stays open for calls that are on their way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.tally is not None:
            with suppress(StoreError):
                await self.store.run(self.tally.flush, self.store)

    async def _keep_up(self) -> None:
        turn = 0
        while True:
            try:
                await self.store.run(self.limits.beat)
                await self.store.run(self.settle_late)
                if self.tally is not None:
                    await self.store.run(self.tally.flush, self.store)
                if turn % (_MINUTE_S // _BEAT_S) == 0 and self.metrics is not None:
                    seen = await self.store.run(overview, self.store)
                    oldest = seen.time if seen.oldest_waiting is None else seen.oldest_waiting
                    self.metrics.queued(seen.waiting, (seen.time - oldest) / 1000)
                if turn % (_RECOVER_S // _BEAT_S) == 0 and (count := await self.store.run(self.limits.recover)):
                    log.warning("settled %d calls that a process which is gone had left open", count)
                if turn % (_SWEEP_S // _BEAT_S) == 0:
                    await asyncio.to_thread(self._tidy)
            except StoreError as error:
                log.error("%s", error)
            turn += 1
            await asyncio.sleep(_BEAT_S)

    def settle_late(self) -> int:
        """Settle the calls whose end could not be written when it came. Returns how many. Raises StoreError."""
        late, self._late[:] = list(self._late), []
        for i, settle in enumerate(late):
            try:
                settle()
            except StoreError:
                self._late.extend(late[i:])
                raise
        return len(late)

    def _tidy(self) -> None:
        forget(self.store, self.keep)
        sessions.tidy(self.store)
        self.limits.sweep()
        refresh(self.store, self.ladder)
        for anomaly in sweep(self.store):
            log.warning("anomaly %s: %s, seen %.0f", anomaly.kind, anomaly.subject, anomaly.seen)

    async def _refused(self, call: _Call, asked: Drawing, raw: Mapping[str, Any]) -> Response | None:
        """A reply in the policy's words in the model's place, or None. Raises RequestError for what is blocked."""
        if self.moderation is None:
            return None
        texts = [text for text in texts_of(raw) if text]
        with self.metrics.moderating("input") if self.metrics is not None else nullcontext():
            if sum(map(len, texts)) > _SHORT:
                findings = await asyncio.to_thread(self.moderation.check, texts)
            else:
                findings = self.moderation.check(texts)
        worst: Finding | None = None
        struck: Standing | None = None
        for text, finding in zip(texts, findings, strict=True):
            if finding.action != "allow":
                struck = await call.keep("input", text, finding) or struck
                if finding.action in ("refuse", "block") and (worst is None or finding.action == "block"):
                    worst = finding
        if worst is None:
            return None
        words = worst.words or self.moderation.policy.words
        if struck is not None and struck.status != "active":
            words += (
                f" This counts as a strike: the account is {struck.status} now, and further ones have consequences."
            )
        if worst.action == "block":
            raise refuse(words, 400, code="content_policy_violation")
        return words_alone(asked, words)

    def _screen(self, call: _Call, asked: Drawing) -> Screen:
        options = asked.stream_options
        tell = not asked.stream or (options is not None and bool(options.include_usage))
        hold: Callable[[], Any] = Open
        if self.moderation is not None:
            moderation = self.moderation

            def hold() -> _Holder:
                holder = _Holder(Held(moderation))
                call.holders.append(holder)
                return holder

        def check(text: str) -> str | None:
            if self.moderation is None:
                return None
            (finding,) = self.moderation.check([text])
            if finding.action != "allow":
                call.findings.append((text, finding))
            return (finding.words or self.moderation.policy.words) if finding.action in ("refuse", "block") else None

        other = call.reservation.model if call.reservation.model != asked.model else None
        return Screen(isinstance(asked, ChatBody), hold, tell, other, check)


class _Holder:
    """Output that is held back, and what was found in it."""

    def __init__(self, held: Held) -> None:
        self._held, self._text = held, list[str]()

    @property
    def stopped(self) -> str | None:
        return None if self._held.finding is None else self._held.finding.words

    @property
    def finding(self) -> Finding | None:
        """The strictest, also one that stops nothing."""
        found = self._held.finding or self._held.noted
        return None if found is None or found.action == "allow" else found

    @property
    def text(self) -> str:
        return "".join(self._text)

    def push(self, text: str) -> str:
        self._text.append(text)
        return self._held.push(text)

    def finish(self) -> str:
        return self._held.finish()


class _Call:
    """One call's reservation, closed once, and what moderation found in its texts. asked: its prompt, as estimated."""

    def __init__(
        self, gateway: Gateway, account: Account, reservation: Reservation, http: HTTPRequest, asked: Usage
    ) -> None:
        self._gateway, self._account, self._scope = gateway, account, http.scope
        self._request: str = http.state.request_id
        self.reservation, self.asked = reservation, asked
        self.holders: list[_Holder] = []
        self.findings: list[tuple[str, Finding]] = []  # in whole answers
        self._open = True

    def progress(self, pieces: int) -> None:
        self._gateway.limits.progress(self.reservation, pieces)

    def wrote(self, tokens: int, seconds: float) -> None:
        if self._gateway.metrics is not None:
            self._gateway.metrics.wrote(self.reservation.model, tokens, seconds)

    async def settle(self, usage: Usage, status: Any) -> None:
        note(self._scope, usage=usage)
        await self._close(self._gateway.limits.settle, self.reservation, usage, status)

    async def release(self) -> None:
        await self._close(self._gateway.limits.release, self.reservation)

    async def _close(self, work: Callable[..., None], *args: Any) -> None:
        if not self._open:
            return
        self._open = False
        try:
            await self._gateway._stored("settle", work, *args)
        except StoreError as error:  # the answer stands, and its bill is written once that can be
            self._gateway._late.append(partial(work, *args))
            log.error("call %s is not settled yet: %s", self.reservation.id, error)

    async def tell_findings(self) -> None:
        self.findings += [(holder.text, holder.finding) for holder in self.holders if holder.finding is not None]
        self.holders.clear()
        for text, finding in self.findings:
            await self.keep("output", text, finding)
        self.findings.clear()

    async def keep(self, side: Any, text: str, finding: Finding) -> Standing | None:
        """A finding for review, and what a strike for it brought its account to.

        One that cannot be written stops no call: what is refused stays refused.
        """
        gateway = self._gateway
        metrics = gateway.metrics
        if metrics is not None:
            metrics.flagged(side, finding.flagged, finding.action)
        try:
            kept = await gateway.store.quick(
                record, gateway.store, gateway.ladder, text, side=side, categories=finding.flagged,
                scores=finding.scores, action=finding.action, rule=finding.rule, user=self._account.user,
                model=self.reservation.model, request=self._request,
                span=finding.span if side == "input" else None,
            )  # fmt: skip
        except StoreError as error:
            log.error("a finding of request %s was not kept: %s", self._request, error)
            return None
        if metrics is not None and kept.standing is not None:
            metrics.struck(kept.standing.status)
        return kept.standing


def _screened(response: EventStream, screen: Screen, call: _Call) -> EventStream:
    """The stream with what may not be shown held back, and the call settled at its end."""
    whole, began = False, 0.0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal whole, began
        async for piece in response.pieces:
            out = []
            for data in piece.split(b"\n\n"):
                line = data.removeprefix(b"data: ")
                if line == b"[DONE]":
                    whole = True
                    out.append(DONE)
                elif line:
                    found = json.loads(line)
                    shown = [found] if found.get("error") else screen.event(found)
                    out += [event(json.dumps(one, separators=(",", ":")).encode()) for one in shown]
            began = began or time.perf_counter()
            call.progress(screen.pieces)
            if screen.ended:
                yield b"".join([*out, DONE])
                return
            if out:
                yield b"".join(out)

    async def close() -> None:
        try:
            await response.close()
        finally:
            used = estimate(screen, call.asked)
            call.wrote(used.completion_tokens, time.perf_counter() - began if began else 0.0)
            await call.settle(used, "done" if whole or screen.ended else "broken")
            await call.tell_findings()

    return EventStream(pieces(), close)


def _with(response: Response, reservation: Reservation) -> Response:
    (response.more if isinstance(response, EventStream) else response.raw_headers).extend(reservation.headers)
    return response
