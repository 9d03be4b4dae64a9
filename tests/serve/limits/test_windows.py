"""Spans, the ends of days and months, buckets, and how a time is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.engine.pacing import spent_wait
from foretell.serve.limits.windows import (
    DAY,
    MINUTE,
    day_of,
    day_start,
    drained_in,
    duration,
    level_at,
    month_of,
    month_start,
    room,
    span_ms,
    span_name,
    stamp,
    wait_for,
)

TIMES = st.integers(0, 4_000_000_000_000)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"), (1, "1ms"), (20, "20ms"), (999, "999ms"), (1000, "1s"), (8640, "8.64s"), (1001, "1.001s"),
        (60_000, "1m0s"), (90_000, "1m30s"), (360_000, "6m0s"), (3_600_000, "1h0m0s"), (3_661_500, "1h1m1.5s"),
        (90_000_000, "25h0m0s"),
    ],
)  # fmt: skip
def test_durations_have_the_form_of_openais_headers(ms: int, text: str) -> None:
    assert duration(ms) == text


@given(st.integers(1, 10**9))
def test_our_own_client_reads_the_duration_back(ms: int) -> None:
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": duration(ms)}
    assert spent_wait(headers) == pytest.approx(ms / 1000)


def test_spans() -> None:
    assert [span_ms(text) for text in ("30s", "20m", "3h", "7d")] == [30_000, 1_200_000, 10_800_000, 604_800_000]
    assert [span_name(text) for text in ("1h", "3h", "1d")] == ["hour", "3 hours", "day"]
    for wrong in ("", "3", "h", "0h", "-1h", "1.5h", "3 h", "3H", "3h ", "٣h"):
        with pytest.raises(ValueError, match="no span of time"):
            span_ms(wrong)


@given(TIMES)
def test_days_and_months_are_those_of_the_calendar(now: int) -> None:
    at = datetime.fromtimestamp(now / 1000, UTC)
    assert day_start(day_of(now)) <= now < day_start(day_of(now)) + DAY
    start, end = month_start(month_of(now)), month_start(month_of(now) + 1)
    assert start <= now < end
    assert datetime.fromtimestamp(start / 1000, UTC) == datetime(at.year, at.month, 1, tzinfo=UTC)


def test_the_last_millisecond_of_a_february() -> None:
    march = month_start(2028 * 12 + 2)
    assert datetime.fromtimestamp(march / 1000, UTC) == datetime(2028, 3, 1, tzinfo=UTC)
    assert month_of(march - 1) == month_of(march) - 1 == month_of(march - 29 * DAY)
    assert stamp(march - 1) == "2028-03-01 00:00:00 UTC"  # rounded up: then it is over
    assert stamp(march) == "2028-03-01 00:00:00 UTC"


@given(st.integers(1, 10**6), st.integers(0, 10**12), st.integers(0, 10**6))
def test_a_bucket_takes_a_cost_just_when_it_says(rate: int, level: int, cost: int) -> None:
    cost = min(cost, rate)
    wait = wait_for(level, rate, cost)
    fits = [room(level_at(level, 0, now, rate), rate) >= cost for now in (wait, max(wait - 1, 0))]
    if wait < DAY:  # longer than any bucket takes, but for one far in debt
        assert fits == ([True, True] if wait == 0 else [True, False])
        empty = drained_in(level, rate)
        assert level_at(level, 0, empty, rate) == 0 and (empty == 0 or level_at(level, 0, empty - 1, rate) > 0)


def test_a_clock_that_went_back_drains_nothing() -> None:
    assert level_at(5 * MINUTE, 1_000, 0, 10) == 5 * MINUTE
