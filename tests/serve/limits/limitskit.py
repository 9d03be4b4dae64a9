"""What tests of limits share: accounts, small tiers files, and calls."""

from __future__ import annotations

import asyncio
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from storekit import FakeClock

from foretell.errors import RequestError
from foretell.generate import Usage
from foretell.serve.accounts.account import Account
from foretell.serve.limits.limits import Limits, Reservation
from foretell.serve.limits.tiers import Tiers
from foretell.serve.store import Store

PRICES = {"*": {"prompt": 1.0, "completion": 2.0}, "small": {"prompt": 0, "completion": 0}}


def tiers_of(tier: dict[str, Any], **others: Any) -> Tiers:
    """A tiers file with one tier, "t". A token costs a micro-dollar, a written one two, one of "small" nothing."""
    return TypeAdapter(Tiers).validate_python({"prices": PRICES, "tiers": {"t": tier}, **others})


def account(user: str = "user_1", key: str | None = "key_1", **values: Any) -> Account:
    given = {"role": "user", "tier": "t", "status": "active", "scopes": frozenset({"inference"}), "images": None}
    return Account(**{"user": user, "key": key, "user_budget": None, "key_budget": None, **given, **values})


def reserve(limits: Limits, who: Account | None = None, model: str = "large", **values: Any) -> Reservation:
    wanted = {"prompt_tokens": 10, "max_tokens": 20, "image_tokens": 0, "stream": False, **values}
    return limits.reserve(who or account(), model, **wanted)


def told(reservation: Any) -> dict[str, str]:
    """Headers, without what they all begin with."""
    return {name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in reservation.headers}


def rows(store: Store, table: sa.Table) -> list[dict[str, Any]]:
    with store.read() as db:
        return [dict(row._mapping) for row in db.execute(sa.select(table))]


ONE_LEFT: dict[str, dict[str, Any]] = {  # tiers in which one call fits, of 10 + 20 tokens and 50 micro-dollars at most
    "requests": {"requests_per_minute": 1},
    "tokens": {"tokens_per_minute": 59},
    "streams": {"streams": 1},
    "cap": {"caps": [{"messages": 1, "every": "3h"}]},
    "quota": {"free_per_day": {"messages": 1}},
    "budget": {"budget": 0.000099},
    "tier_budget": {"total_budget": 0.000099},
    "key_budget": {},
}


def race(place: str, calls: int, barrier: Barrier, ending: Connection) -> None:
    """One server process: for each tier of ONE_LEFT so many calls at once, together with the other processes.

    Then calls that all fit, settled or given back. Sends how many were let through, by tier, and what was used.
    """
    store, through, refusals = Store(place, FakeClock()), {}, set()

    async def ask(limits: Limits, who: Account) -> list[Reservation | BaseException]:
        one = partial(reserve, limits, who, stream=True)
        return await asyncio.gather(*(store.run(one) for _ in range(calls)), return_exceptions=True)

    for kind, tier in ONE_LEFT.items():
        limits = Limits(store, tiers_of(tier))
        limits.beat()
        barrier.wait()
        who = account(f"user_{kind}", f"key_{kind}", key_budget=99 if kind == "key_budget" else None)
        found = asyncio.run(ask(limits, who))
        through[kind] = sum(isinstance(each, Reservation) for each in found)
        errors = [each for each in found if not isinstance(each, Reservation)]
        refusals |= {(kind, each.status if isinstance(each, RequestError) else repr(each)) for each in errors}
    limits, used = Limits(store, tiers_of({"tokens_per_minute": 10**6, "streams": 1000, "budget": 1.0})), 0
    barrier.wait()
    for count in range(12):
        held = reserve(limits, account("user_all"), stream=True)
        if count % 3:
            limits.settle(held, Usage(10, count))
            used += 10 + count
        else:
            limits.release(held)
    store.close()
    ending.send((through, refusals, used))


def stand_in_mid_stream(place: str, begun: Connection) -> None:
    """A server process that has written 7 tokens of a reply, and does nothing more."""
    limits = Limits(Store(place, FakeClock()), tiers_of({"streams": 1, "tokens_per_minute": 1000, "budget": 1.0}))
    held = reserve(limits, stream=True, prompt_tokens=100, max_tokens=500)
    limits.progress(held, 3)
    limits.progress(held, 7)
    limits.beat()
    begun.send(held.id)
    begun.recv()
