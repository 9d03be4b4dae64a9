"""How limits count time: buckets that drain evenly, spans such as 3h, and the ends of days and months in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MINUTE = 60_000
DAY = 1_440 * MINUTE
_UNITS = {"s": 1_000, "m": MINUTE, "h": 60 * MINUTE, "d": DAY}
_NAMES = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A bucket's level is what is in it times 60,000, so that a limit of n a minute drains exactly n for each millisecond.


def level_at(level: int, since: int, now: int, rate: int) -> int:
    """What is left of a bucket's level. rate: the limit, a minute. A clock that went back drains nothing."""
    return max(0, level - rate * min(max(now - since, 0), DAY))


def room(level: int, rate: int) -> int:
    """How many whole ones a bucket still takes."""
    return max(0, (rate * MINUTE - level) // MINUTE)


def wait_for(level: int, rate: int, cost: int) -> int:
    """Milliseconds until a bucket takes `cost`, which is not above its limit."""
    return max(0, -((rate * MINUTE - level - cost * MINUTE) // rate))


def drained_in(level: int, rate: int) -> int:
    """Milliseconds until a bucket is empty."""
    return -(-level // rate)


def span_ms(text: str) -> int:
    """Milliseconds of 30s, 20m, 3h or 2d. Raises ValueError."""
    if not re.fullmatch(r"[1-9]\d{0,5}[smhd]", text, re.ASCII):
        raise ValueError(f"{text!r} is no span of time; allowed are such as 30s, 20m, 3h and 7d")
    return int(text[:-1]) * _UNITS[text[-1]]


def span_name(text: str) -> str:
    """Of 3h: 3 hours; of 1h: hour."""
    name = _NAMES[text[-1]]
    return name if text[:-1] == "1" else f"{text[:-1]} {name}s"


def day_of(now: int) -> int:
    """Days since 1970."""
    return now // DAY


def month_of(now: int) -> int:
    """Months since January of year 0."""
    at = moment(now)
    return at.year * 12 + at.month - 1


def day_start(day: int) -> int:
    return day * DAY


def month_start(month: int) -> int:
    at = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return (at - _EPOCH) // timedelta(milliseconds=1)


def moment(now: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=now)


def stamp(now: int) -> str:
    """A time as people are told it, in whole seconds, rounded up: 2026-11-20 12:00:00 UTC."""
    return f"{moment(-(-now // 1000) * 1000):%Y-%m-%d %H:%M:%S} UTC"


def duration(ms: int) -> str:
    """In the form of OpenAI's headers, which is Go's: 20ms, 1.5s, 1m30s, 2h0m5s; 0s for nothing."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, MINUTE)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 1000}.{rest % 1000:03}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
