"""Limits: taken before a call is answered, settled once it is known what it used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.errors import StoreError
from foretell.generate import Usage
from foretell.serve.accounts.account import Account, new_id
from foretell.serve.limits import leases
from foretell.serve.limits.ask import Ask, tier_subject
from foretell.serve.limits.metering import Status, record, recorded
from foretell.serve.limits.standing import Full, Standing, headers
from foretell.serve.limits.statements import statements
from foretell.serve.limits.tables import marks, meters, processes, reservations
from foretell.serve.limits.tiers import Tier, Tiers
from foretell.serve.limits.windows import MINUTE, month_of
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

LEASE_MS = 15_000
_SMOOTH_MS = 60_000  # over which load is averaged, so that caps do not flicker
_TRIES = 5


@dataclass(frozen=True)
class Reservation:
    """What was taken for one call. model: which answers, maybe the tier's fallback. headers: told with the answer."""

    id: str
    account: Account
    model: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _UnfitError(Exception):
    """A transaction in which not all limits could be taken is undone."""


class Limits:
    """The limits of all accounts in one database, for one server process.

    load: how busy this process is, 0 to 1, which adaptive caps follow. reached: told of each refusal, by
    `standing.KINDS`. Every method may be called from any thread; all but `progress` wait for the database and raise
    StoreError where it does not answer.
    """

    def __init__(
        self,
        store: Store,
        tiers: Tiers,
        *,
        load: Callable[[], float] = lambda: 0.0,
        reached: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self.store, self.tiers = store, tiers
        self.process = new_id("proc")
        self.load = 0.0  # of all servers together, smoothed
        self._ask_load, self._reached = load, reached
        self._own_load, self._last_beat = 0.0, 0
        self._do = statements(store.is_sqlite)
        self._place = leases.own_place()
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()

    def images_allowed(self, account: Account) -> bool:
        """Whether the account may send images: its own setting, else its tier's."""
        return self._tier(account).images if account.images is None else account.images

    def reserve(
        self,
        account: Account,
        model: str,
        *,
        prompt_tokens: int,
        max_tokens: int,
        image_tokens: int = 0,
        stream: bool = False,
    ) -> Reservation:
        """Take all that a call may use, of all limits together or of none.

        image_tokens: of the prompt's. max_tokens: the most that it may write, all its replies together.
        Raises RequestError: 429 with headers that tell when to ask again, 400 for more than a limit allows at all, 403
        for images where there are none to be sent.
        """
        ask = self._ask(account, prompt_tokens, max_tokens, image_tokens, stream)
        if not self._last_beat:
            self.beat()
        try:
            return self._take(ask(model))
        except Full as full:
            first = full
        fallback = self._tier(account).fallback
        if first.may_fall_back and fallback is not None:
            with suppress(Full):
                return self._take(ask(fallback))
        self._reached(first.binding.kind)
        raise first.error()

    def check(
        self,
        account: Account,
        model: str,
        *,
        prompt_tokens: int,
        max_tokens: int,
        image_tokens: int = 0,
        stream: bool = False,
    ) -> None:
        """Raise what `reserve` would raise now, and take nothing."""
        ask = self._ask(account, prompt_tokens, max_tokens, image_tokens, stream)
        full = self._full(ask(model))
        fallback = self._tier(account).fallback
        if full is None or (full.may_fall_back and fallback is not None and self._full(ask(fallback)) is None):
            return
        self._reached(full.binding.kind)
        raise full.error()

    def _ask(
        self, account: Account, prompt_tokens: int, max_tokens: int, image_tokens: int, stream: bool
    ) -> Callable[[str], Ask]:
        """A call as it is asked of a model. Raises RequestError, 403, for images where there are none to be sent."""
        tier = self._tier(account)
        if image_tokens and not self.images_allowed(account):
            raise refuse("Images are not part of this account's tier. Send text alone.", 403, code="images_not_allowed")

        def ask(model: str) -> Ask:
            return Ask.of(
                account, tier, self.tiers.price(model), model, prompt_tokens=prompt_tokens, max_tokens=max_tokens,
                image_tokens=image_tokens, stream=stream,
            )  # fmt: skip

        return ask

    def _full(self, ask: Ask) -> Full | None:
        """Why a call does not fit in; None where it does."""
        now = self.store.clock()
        standings = self._standings(ask, asking=True)
        if all(standing.is_met for standing in standings):
            return None
        return Full(standings, ask.account.tier, ask.model, ask.tier.fallback not in (None, ask.model), now)

    def settle(self, reservation: Reservation, usage: Usage, status: Status = "done") -> None:
        """Count what a call used, and give back what it did not. Once: a second time nothing is done."""
        with self._lock:
            self._written.pop(reservation.id, None)
        self._settle(reservation.id, usage, status)

    def release(self, reservation: Reservation) -> None:
        """Give all back but the request itself, since nothing was generated."""
        with self._lock:
            self._written.pop(reservation.id, None)
        with self.store.write() as db:
            row = db.execute(self._do.close, {"which": reservation.id}).first()
            if row is None:
                return
            tokens = -(row.prompt_tokens + row.max_tokens)
            self._give(db, row, self.store.clock(), tokens=tokens, spent=0, quota=row.free)
            db.execute(self._do.unmark, {"whose": row.user, "which": row.id})

    def progress(self, reservation: Reservation, completion_tokens: int) -> None:
        """Note how much a stream has written so far; the next `beat` stores it. Costs nothing worth telling."""
        with self._lock:
            self._written[reservation.id] = completion_tokens

    def beat(self) -> None:
        """Renew this process's lease, store what streams have written, and hear how busy all servers are."""
        with self._lock:
            written, self._written = self._written, {}
        try:
            self._renew(written)
        except BaseException:
            with self._lock:
                self._written = written | self._written
            raise

    def _renew(self, written: dict[str, int]) -> None:
        with self.store.write() as db:
            now = self.store.clock()
            passed = min(max(now - self._last_beat, 0), _SMOOTH_MS) if self._last_beat else _SMOOTH_MS
            seen = min(max(self._ask_load(), 0.0), 1.0)
            self._own_load += (seen - self._own_load) * passed / _SMOOTH_MS
            row = {"id": self.process, "place": self._place, "beat": now, "load": self._own_load}
            db.execute(self._do.beat, row)
            if written:
                db.execute(self._do.note, [{"which": id, "count": count} for id, count in written.items()])
            alive = processes.c.beat.between(now - LEASE_MS, now + LEASE_MS)
            self.load = db.execute(sa.select(sa.func.avg(processes.c.load)).where(alive)).scalar_one() or 0.0
        self._last_beat = now

    def recover(self) -> int:
        """Settle what processes left open that are no more, by what they had noted. Returns how many calls.

        One is gone whose lease has run out, or whose end can be seen on this machine.
        """
        now = self.store.clock()
        with self.store.read() as db:
            known = db.execute(sa.select(processes)).all()
            dead = [row.id for row in known if abs(now - row.beat) >= LEASE_MS or leases.is_gone(row.place)]
            dead = [id for id in dead if id != self.process]
            alive = [self.process, *(row.id for row in known if row.id not in dead)]
            left = db.execute(sa.select(reservations).where(reservations.c.process.not_in(alive))).all()
        count = 0
        for row in left:
            usage = Usage(row.prompt_tokens, row.written, row.image_tokens)
            count += self._settle(row.id, usage, "recovered")
        if dead:
            with self.store.write() as db:
                for row in known:
                    if row.id in dead:  # and has not renewed its lease since
                        ended = sa.and_(processes.c.id == row.id, processes.c.beat == row.beat)
                        db.execute(sa.delete(processes).where(ended))
        return count

    def sweep(self) -> int:
        """Remove messages that have left every window there is, of users who do not come back. Returns how many."""
        windows = [cap.window for tier in self.tiers.tiers.values() for cap in tier.caps]
        with self.store.write() as db:
            edge = self.store.clock() - max(windows, default=0)
            return db.execute(sa.delete(marks).where(marks.c.time <= edge)).rowcount

    def standings(self, account: Account, model: str = "*") -> list[Standing]:
        """Where an account stands with each of its limits, for a page. model: caps and the quota are those that hold
        for it; "*": all."""
        tier = self._tier(account)
        return self._standings(Ask.of(account, tier, self.tiers.price(model), model), asking=False)

    def _tier(self, account: Account) -> Tier:
        tier = self.tiers.tiers.get(account.tier)
        if tier is None:
            text = f"The account's tier {account.tier} is not known to this server. Ask whoever runs it."
            raise refuse(text, 403, code="unknown_tier")
        return tier

    def _take(self, ask: Ask) -> Reservation:
        for _ in range(_TRIES):
            with suppress(_UnfitError):
                return self._try(ask)
            if (full := self._full(ask)) is not None:
                raise full
            # Another call has given back what was missing, between the two looks: there is room now.
        raise StoreError("The limits changed faster than they could be read.")

    def _try(self, ask: Ask) -> Reservation:
        if not ask.fits_in_a_minute:
            raise _UnfitError
        id, held = new_id("res"), {}
        with self.store.write() as db:
            now = self.store.clock()
            row, free = self._take_own(db, ask, now)
            for subject, budget in () if free or not ask.money else ask.shared:
                taken = db.execute(self._do.take, ask.of_shared(subject, budget, now)).first()
                if taken is None or ask.money > budget:
                    raise _UnfitError
                held[subject] = ask.money
            caps = self._mark(db, ask, id, now)
            account = ask.account
            values = {
                "id": id, "process": self.process, "user": account.user, "key": account.key, "tier": account.tier,
                "model": ask.model, "prompt_tokens": ask.prompt_tokens, "max_tokens": ask.max_tokens,
                "image_tokens": ask.image_tokens, "streams": int(ask.stream), "free": int(free), "day": row.day,
                "held": 0 if free else ask.money, "key_held": held.get(account.key or "", 0),
                "tier_held": held.get(tier_subject(account.tier), 0), "time": now, "written": 0,
            }  # fmt: skip
            db.execute(self._do.open, values)
        standings = ask.standings(dict(row._mapping), {}, {}, self.load, now, asking=False)
        told = [standing for standing in standings if standing.kind in ("requests", "tokens", "quota")] + caps
        return Reservation(id, account, ask.model, headers(told))

    def _take_own(self, db: sa.Connection, ask: Ask, now: int) -> tuple[sa.Row[Any], bool]:
        """The user's meter, and whether the message is free."""
        for free in ask.ways:
            if free or ask.budget is None or ask.money <= ask.budget:
                row = db.execute(self._do.take, ask.of_user(now, free)).first()
                if row is not None:
                    return row, free
        raise _UnfitError

    def _mark(self, db: sa.Connection, ask: Ask, id: str, now: int) -> list[Standing]:
        """A message in the window of every cap."""
        found = []
        for cap in ask.caps:
            values = {"whose": ask.account.user, "which": cap.id, "edge": now - cap.window}
            db.execute(self._do.forget, values)
            limit = cap.at(self.load)
            used = db.execute(self._do.mark, values | {"now": now, "reserved": id, "most": limit}).scalar()
            if used is None:
                raise _UnfitError
            found.append(Standing("cap", limit, limit - used - 1, cap.window, cap.span, cap.models))
        return found

    def _standings(self, ask: Ask, asking: bool) -> list[Standing]:
        subjects = [ask.account.user, *(subject for subject, _ in ask.shared)]
        with self.store.read() as db:
            now = self.store.clock()
            found = db.execute(sa.select(meters).where(meters.c.subject.in_(subjects)))
            rows = {row.subject: dict(row._mapping) for row in found}
            times = {}
            for cap in ask.caps:
                of = sa.select(marks.c.time).where(marks.c.user == ask.account.user, marks.c.cap == cap.id)
                times[cap.id] = list(db.scalars(of.where(marks.c.time > now - cap.window).order_by(marks.c.time)))
        return ask.standings(rows.get(ask.account.user), rows, times, self.load, now, asking)

    def _settle(self, id: str, usage: Usage, status: Status) -> bool:
        """Whether this was what settled it."""
        with self.store.write() as db:
            now = self.store.clock()
            row = db.execute(self._do.close, {"which": id}).first()
            if row is None:
                return status != "recovered" and self._correct(db, id, usage, status, now)
            usage = self.tiers.images.settled(usage, row.image_tokens)
            cost = self.tiers.price(row.model).cost(usage)
            more = usage.prompt_tokens + usage.completion_tokens - row.prompt_tokens - row.max_tokens
            self._give(db, row, now, tokens=more, spent=0 if row.free else cost)
            record(db, self._do, row, usage, cost, status, now)
        return True

    def _correct(self, db: sa.Connection, id: str, usage: Usage, status: Status, now: int) -> bool:
        """Where another process took this one for dead while it only stood still, what it knows better counts."""
        before = recorded(db, id)
        if before is None or before.status != "recovered":
            return False
        usage = self.tiers.images.settled(usage, before.image_tokens)
        cost = self.tiers.price(before.model).cost(usage)
        more = usage.prompt_tokens + usage.completion_tokens - before.prompt_tokens - before.completion_tokens
        self._give(db, before, now, tokens=more, spent=0 if before.free else cost - before.micros, held=False)
        record(db, self._do, before, usage, cost, status, now, before=before)
        return True

    def _give(
        self,
        db: sa.Connection,
        row: sa.Row[Any],
        now: int,
        *,
        tokens: int,
        spent: int,
        quota: int = 0,
        held: bool = True,
    ) -> None:
        """Change the meters of a call: what it took beyond its reservation, and what is no longer held for it."""
        tier = self.tiers.tiers.get(row.tier)
        rate = tier.tokens_per_minute if tier else None
        own = {
            "whose": row.user, "now": now, "this_month": month_of(now), "tokens_rate": rate or 0,
            "tokens_more": tokens * MINUTE if rate else 0, "streams_less": row.streams if held else 0,
            "quota_less": quota, "free_day": row.day if held else 0, "spent_more": spent,
            "held_less": row.held if held else 0,
        }  # fmt: skip
        none = {"tokens_rate": 0, "tokens_more": 0, "streams_less": 0, "quota_less": 0}
        changes = [own]
        for subject, amount in ((row.key, "key_held"), (tier_subject(row.tier), "tier_held")):
            less = getattr(row, amount) if held else 0
            if subject is not None and (spent or less):
                changes.append(own | none | {"whose": subject, "held_less": less})
        db.execute(self._do.give, changes)
