"""Parts of the gateway's benchmark: what limits cost a call, a usage page over many rows, a race for the last place."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import sqlalchemy as sa

from foretell.generate import Usage
from foretell.serve.accounts.account import Account
from foretell.serve.limits.limits import Limits, Reservation
from foretell.serve.limits.prices import Price
from foretell.serve.limits.tables import days, events
from foretell.serve.limits.tiers import Cap, Tier, Tiers
from foretell.serve.limits.usage import EVERYONE, usage
from foretell.serve.limits.windows import DAY, day_of
from foretell.serve.store import Store

_AT_ONCE = 20_000
_PRICE = Price(prompt=30.0, completion=60.0)


def account(number: int = 0) -> Account:
    return Account(
        f"user_{number}", f"key_{number}", "user", "t", "active", frozenset({"inference"}), None, None, 10**12
    )  # fmt: skip


def tiers(**limits: Any) -> Tiers:
    return Tiers(prices={"*": _PRICE}, tiers={"t": Tier(**limits)})


def every_limit() -> Tiers:
    """A tier in which a call takes each kind of limit there is, and never too much."""
    return tiers(
        requests_per_minute=10**6, tokens_per_minute=10**9, streams=10**6, caps=(Cap(messages=10**6, every="3h"),),
        budget=1e8, total_budget=1e9,
    )  # fmt: skip


def call_seconds(store: Store, calls: int, users: int = 20, limits: Limits | None = None) -> dict[str, list[float]]:
    """Seconds of each `reserve` and each `settle`, one after another, of calls by several users in turn."""
    limits = limits or Limits(store, every_limit())
    limits.beat()
    found: dict[str, list[float]] = {"reserve": [], "settle": []}
    for number in range(calls):
        begun = time.perf_counter()
        held = limits.reserve(account(number % users), "m", prompt_tokens=500, max_tokens=500, stream=True)
        taken = time.perf_counter()
        limits.settle(held, Usage(480, 200))
        found["reserve"].append(taken - begun)
        found["settle"].append(time.perf_counter() - taken)
    return found


def fill(store: Store, count: int, *, users: int = 1000, span_days: int = 30, seed: int = 0) -> int:
    """Rows of usage spread over users, their two keys, two models and days, with the sums of each day.

    Returns the last row's time, in milliseconds.
    """
    until = store.clock()
    sums: dict[tuple[str, int, str, str], list[int]] = {}
    batch: list[dict[str, Any]] = []
    with store.write() as db:
        for row in _rows(count, users, until - span_days * DAY, until, random.Random(seed)):
            batch.append(row)
            for user, key in ((row["user"], row["key"]), (EVERYONE, "")):
                of = sums.setdefault((user, day_of(row["time"]), key, row["model"]), [0] * 4)
                for place, more in enumerate((1, row["prompt_tokens"], row["completion_tokens"], row["micros"])):
                    of[place] += more
            if len(batch) == _AT_ONCE:
                db.execute(sa.insert(events), batch)
                batch = []
        if batch:
            db.execute(sa.insert(events), batch)
        kept = [
            dict(zip(("user", "day", "key", "model"), of, strict=True))
            | {"calls": n, "prompt_tokens": prompt, "completion_tokens": completion, "micros": micros}
            | {"image_tokens": 0, "cached_tokens": 0, "charged": micros}
            for of, (n, prompt, completion, micros) in sums.items()
        ]
        for first in range(0, len(kept), _AT_ONCE):
            db.execute(sa.insert(days), kept[first : first + _AT_ONCE])
    return until


def _rows(count: int, users: int, since: int, until: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    for number in range(count):
        user = draw.randrange(users)
        used = Usage(draw.randrange(2000), draw.randrange(500))
        yield {
            "id": f"res_{draw.getrandbits(96):024x}", "time": since + (until - since) * number // count,
            "user": f"user_{user}", "key": f"key_{user}_{draw.randrange(2)}", "tier": "t",
            "model": draw.choice(("large", "small")), "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens, "image_tokens": 0, "cached_tokens": 0,
            "micros": _PRICE.cost(used), "free": 0, "status": "done",
        }  # fmt: skip


def page_seconds(store: Store, until: int, user: str, span_days: int = 30) -> float:
    """Seconds of reading one usage page. user: EVERYONE for the administrator's."""
    begun = time.perf_counter()
    found = usage(store, user, since=until - span_days * DAY, until=until)
    assert found.total.calls
    return time.perf_counter() - begun


def race(place: str, *, processes: int = 4, calls: int = 200) -> int:
    """How many of so many calls at once, over several server processes, get the one place that is left.

    place: a database in which the tables are.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier, ends, started = spawn.Barrier(processes), [], []
    for _ in range(processes):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_racer, args=(place, calls // processes, barrier, theirs))
        process.start()
        ends.append(ours)
        started.append(process)
    found = sum(end.recv() for end in ends)
    for process in started:
        process.join()
    return found


def _racer(place: str, calls: int, barrier: Barrier, ending: Connection) -> None:
    store = Store(place)
    limits = Limits(store, tiers(caps=(Cap(messages=1, every="3h"),)))
    limits.beat()

    async def ask() -> list[Reservation | BaseException]:
        one = partial(limits.reserve, account(), "m", prompt_tokens=1, max_tokens=1, image_tokens=0, stream=False)
        return await asyncio.gather(*(store.run(one) for _ in range(calls)), return_exceptions=True)

    barrier.wait()
    ending.send(sum(isinstance(each, Reservation) for each in asyncio.run(ask())))
    store.close()
