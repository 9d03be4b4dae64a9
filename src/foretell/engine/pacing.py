"""How fast a server is asked: calls in flight, waits between attempts, and what it tells of its own limits."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from random import Random
from weakref import WeakKeyDictionary

_FIRST, _LONGEST = 0.5, 60.0  # seconds, of the waits between attempts
_HOLD = 300.0  # a server that says it is closed for longer is asked anyway, and its refusal tells the user
_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


class Pace:
    """Calls in flight at once, which find their own number: additive increase, multiplicative decrease.

    most: never more than this. One event loop's; not for threads.
    Source: Chiu and Jain, Analysis of the Increase and Decrease Algorithms for Congestion Avoidance (1989).
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_until = self._cut_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> float:
        """Wait for a place, first come first served; returns the loop's time at which it was given."""
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        self._waiting.append(place)
        self._admit()
        if not place.done():
            try:
                await place
            except asyncio.CancelledError:
                if not place.cancelled():  # it was given in the same moment: pass it on
                    self.in_flight -= 1
                    self._admit()
                raise
        return loop.time()

    def leave(self, entered: float, *, answered: bool = False, crowded: bool = False) -> None:
        """Give the place back. answered: the server did its work; crowded: it had too much of it.

        Calls that were in flight when the number was cut say nothing about the new number, so they do not cut again.
        """
        self.in_flight -= 1
        if crowded and entered >= self._cut_at:
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = asyncio.get_running_loop().time()
        elif answered:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._admit()

    def hold(self, seconds: float) -> None:
        """Let nobody in for a while."""
        if seconds <= _HOLD:
            self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    def _admit(self) -> None:
        loop = asyncio.get_running_loop()
        if self._waiting and loop.time() < self._held_until:
            if self._timer is None:
                self._timer = loop.call_at(self._held_until, self._resume)
            return
        while self._waiting and self.in_flight < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def _resume(self) -> None:
        self._timer = None
        self._admit()


_PACES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Pace]] = WeakKeyDictionary()


def shared_pace(host: str, secret: str, most: int) -> Pace:
    """The running loop's one Pace for a host and key: a model and its grader share the limits of their account."""
    pace = _PACES.setdefault(asyncio.get_running_loop(), {}).setdefault((host, secret), Pace(most))
    if most > pace.most:
        pace.limit += most - pace.most
        pace.most = most
    return pace


def backoff(attempt: int, random: Random) -> float:
    """Seconds before the next attempt, the first being 0: exponential, with full jitter.

    Source: Brooker, Exponential Backoff and Jitter (AWS Architecture Blog, 2015).
    """
    return random.uniform(0, min(_LONGEST, _FIRST * 2.0 ** min(attempt, 10)))


def told_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a refusal asks to wait (retry-after-ms, Retry-After as a number or date); None where it does not.

    now: seconds since the epoch.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if (text := headers.get(name)) is not None and re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", text):
            return float(text) * unit
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def spent_wait(headers: Mapping[str, str]) -> float:
    """Seconds until a rate limit, of which nothing remains, is reset (x-ratelimit-remaining-*, -reset-*); else 0."""
    waits = [0.0]
    for kind in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0":
            reset = headers.get(f"x-ratelimit-reset-{kind}", "").strip()
            if re.fullmatch(f"({_SPAN.pattern})+", reset):
                waits.append(sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(reset)))
    return max(waits)
