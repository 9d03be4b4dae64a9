"""How fast a server is asked."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from random import Random

import pytest

from foretell.engine.pacing import Pace, backoff, shared_pace, spent_wait, told_wait
from mock_endpoint import run

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
    ],
)
def test_told_wait(headers, seconds):
    assert told_wait(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [
        *[("0", "1s", 1), ("0", "6m0s", 360), ("0", "20ms", 0.02), ("0", "1h2m3.5s", 3723.5), ("0", "2", 2)],
        *[("0", "?", 0), ("1", "1s", 0), ("", "1s", 0), ("0", "", 0)],
    ],
)
def test_spent_wait(remaining, reset, seconds):
    for kind in ("requests", "tokens"):
        headers = {f"x-ratelimit-remaining-{kind}": remaining, f"x-ratelimit-reset-{kind}": reset}
        assert spent_wait(headers) == pytest.approx(seconds)
    assert spent_wait({**headers, "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9h"}) == 32400


def test_backoff_is_full_jitter_up_to_a_minute():
    random = Random(1)
    for attempt, most in ((0, 0.5), (1, 1), (3, 4), (7, 60), (5000, 60)):
        drawn = [backoff(attempt, random) for _ in range(4000)]
        assert min(drawn) >= 0 and max(drawn) <= most
        assert sum(drawn) / len(drawn) == pytest.approx(most / 2, rel=0.05)


def test_calls_wait_their_turn_and_never_pass_the_limit():
    async def main():
        pace, order, most = Pace(3), [], 0

        async def call(i):
            nonlocal most
            entered = await pace.enter()
            most = max(most, pace.in_flight)
            order.append((i, entered))
            await asyncio.sleep(1)
            pace.leave(entered, answered=True)

        await asyncio.gather(*(call(i) for i in range(10)))
        return most, order, pace

    most, order, pace = run(main())
    assert most == 3 and pace.in_flight == 0
    assert order == [(i, i // 3) for i in range(10)]


def test_the_limit_halves_once_a_round_and_grows_by_one_a_round():
    async def main():
        pace = Pace(16)
        entered = [await pace.enter() for _ in range(16)]
        await asyncio.sleep(1)
        for at in entered:
            pace.leave(at, crowded=True)
        assert pace.limit == 8  # sixteen refusals of one round say one thing
        for _ in range(8):
            pace.leave(await pace.enter(), answered=True)
        assert pace.limit == pytest.approx(9, abs=0.1)
        for _ in range(20):
            await asyncio.sleep(1)
            pace.leave(await pace.enter(), crowded=True)
        assert pace.limit == 1
        pace.leave(await pace.enter())  # a refusal of another kind changes nothing
        assert pace.limit == 1
        for _ in range(1000):
            pace.leave(await pace.enter(), answered=True)
        assert pace.limit == 16

    run(main())


def test_nobody_enters_while_held():
    async def main():
        pace = Pace(2)
        pace.hold(5)
        waiting = asyncio.gather(*(pace.enter() for _ in range(2)))
        await asyncio.sleep(3)
        pace.hold(1)  # not shorter
        pace.hold(9)
        pace.hold(100_000)  # a server shut for a day is asked, and says so
        assert await waiting == [12, 12]

    run(main())


def test_cancelled_calls_leave_no_place_behind():
    async def main():
        pace = Pace(1)
        entered = await pace.enter()
        waiting = [asyncio.create_task(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        await asyncio.sleep(0)
        pace.leave(entered)
        waiting[1].cancel()  # in the moment that it gets its place
        await waiting[2]
        pace.leave(0)
        assert pace.in_flight == 0
        await pace.enter()

    run(main())


def test_one_host_and_key_share_their_pace():
    async def main():
        first = shared_pace("a", "k", 4)
        assert shared_pace("a", "k", 8) is first and first.most == 8
        assert shared_pace("a", "k", 2).most == 8
        assert shared_pace("b", "k", 4) is not first and shared_pace("a", "other", 4) is not first
        return first

    assert run(main()) is not run(main())
