"""Limits of one account: what fits, what is given back, what is told, at the edges of every window."""

from __future__ import annotations

from typing import Any

import pytest
from limitskit import account, reserve, rows, tiers_of, told
from storekit import DAY, HOUR, MINUTE, SECOND, FakeClock

from foretell.errors import RequestError
from foretell.generate import Usage
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tables import events, marks, meters, reservations
from foretell.serve.store import Store

USED = Usage(10, 5)


def refused(limits: Limits, *args: Any, **values: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        reserve(limits, *args, **values)
    return caught.value


def test_requests_fill_a_bucket_that_drains_evenly(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"requests_per_minute": 3}))
    first = [told(reserve(limits)) for _ in range(3)]
    assert [found["remaining-requests"] for found in first] == ["2", "1", "0"]
    assert [found["reset-requests"] for found in first] == ["20s", "40s", "1m0s"]
    assert first[0]["limit-requests"] == "3" and "limit-tokens" not in first[0]
    error = refused(limits)
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert told(error) == {
        "limit-requests": "3", "remaining-requests": "0", "reset-requests": "1m0s", "retry-after": "20",
    }  # fmt: skip
    assert str(error) == (
        "The tier t has 3 requests a minute; all are used. Ask again in 20s, at 2026-11-20 12:00:20 UTC."
    )
    clock.now += 20 * SECOND - 1
    assert told(refused(limits))["retry-after"] == "1"
    clock.now += 1
    assert told(reserve(limits))["remaining-requests"] == "0"
    clock.now += 10 * MINUTE
    assert told(reserve(limits))["reset-requests"] == "20s"


def test_tokens_are_reserved_by_the_most_and_settled_to_what_was_used(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"tokens_per_minute": 100}))
    held = reserve(limits, prompt_tokens=30, max_tokens=60)
    assert told(held) == {"limit-tokens": "100", "remaining-tokens": "10", "reset-tokens": "54s"}
    error = refused(limits, prompt_tokens=10, max_tokens=1)
    assert "100 tokens a minute. 10 are left, and this call may need 11. Ask for fewer with max_tokens" in str(error)
    assert told(error)["retry-after"] == "1"  # 600 ms, rounded up
    limits.settle(held, Usage(30, 5))
    assert told(reserve(limits, prompt_tokens=0, max_tokens=65))["remaining-tokens"] == "0"
    clock.advance(6)
    assert told(refused(limits, prompt_tokens=11, max_tokens=0))["remaining-tokens"] == "10"
    # An upstream that counts more than was reserved leaves a debt.
    held = reserve(limits, prompt_tokens=10, max_tokens=0)
    limits.settle(held, Usage(30, 0))
    assert told(refused(limits, prompt_tokens=1, max_tokens=0))["reset-tokens"] == "1m12s"


def test_what_no_limit_allows_is_refused_for_good(store: Store) -> None:
    limits = Limits(store, tiers_of({"tokens_per_minute": 100, "budget": 0.0001}))
    error = refused(limits, prompt_tokens=60, max_tokens=41)
    assert (error.status, error.param, error.code, error.headers) == (400, "max_tokens", "above_limit", ())
    assert "may need 101 tokens" in str(error) and "has 100 a minute" in str(error)
    error = refused(limits, prompt_tokens=1, max_tokens=51)
    assert error.status == 400 and "may cost $0.000103" in str(error) and "$0.0001 a month" in str(error)
    assert rows(store, meters) == []


def test_streams_count_while_they_are_open(store: Store) -> None:
    limits = Limits(store, tiers_of({"streams": 2}))
    open_ = [reserve(limits, stream=True) for _ in range(2)]
    assert "2 streams at once; all are open" in str(refused(limits, stream=True))
    assert told(refused(limits, stream=True))["retry-after"] == "1"
    reserve(limits)  # no stream
    limits.settle(open_[0], USED)
    limits.settle(open_[0], USED)  # once is enough
    open_.append(reserve(limits, stream=True))
    refused(limits, stream=True)
    limits.release(open_[1])
    limits.release(open_[1])
    reserve(limits, stream=True)
    refused(limits, stream=True)


def test_a_rolling_window_is_exact(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"caps": [{"messages": 3, "every": "3h"}]}))
    begun = clock.now
    assert told(reserve(limits)) == {"limit-requests": "3", "remaining-requests": "2", "reset-requests": "3h0m0s"}
    clock.advance(3600)
    reserve(limits)
    clock.advance(3600)
    assert told(reserve(limits))["remaining-requests"] == "0"
    error = refused(limits)
    assert told(error)["retry-after"] == "3600" and told(error)["reset-requests"] == "3h0m0s"
    assert str(error) == (
        "The tier t has 3 messages every 3 hours; all are used. Ask again in 1h0m0s, at 2026-11-20 15:00:00 UTC."
    )
    clock.now = begun + 3 * HOUR - 1
    assert told(refused(limits))["retry-after"] == "1"
    clock.now = begun + 3 * HOUR  # the first has just left
    assert told(reserve(limits))["remaining-requests"] == "0"
    refused(limits)
    clock.now = begun + 4 * HOUR
    reserve(limits)
    refused(limits)
    assert len(rows(store, marks)) == 3  # what has left the window is not kept


def test_no_window_ever_holds_more_than_its_cap(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"caps": [{"messages": 4, "every": "10s"}]}))
    taken = []
    for _ in range(120):
        clock.now += 700
        try:
            limits.settle(reserve(limits), USED)
        except RequestError as error:
            wait = int(told(error)["retry-after"])
            inside = [time for time in taken if time > clock.now - 10_000]
            assert len(inside) == 4 and wait == -(-(inside[0] + 10_000 - clock.now) // 1000)
        else:
            taken.append(clock.now)
            assert sum(time > clock.now - 10_000 for time in taken) <= 4
    assert len(taken) > 30


def test_a_released_message_leaves_its_window(store: Store) -> None:
    limits = Limits(store, tiers_of({"caps": [{"messages": 1, "every": "3h"}], "requests_per_minute": 2}))
    limits.release(reserve(limits))
    assert rows(store, marks) == rows(store, reservations) == rows(store, events) == []
    reserve(limits)  # the request itself counts: failing calls wear the server, too
    assert told(refused(limits))["remaining-requests"] == "0"


def test_caps_hold_for_their_models_together(store: Store) -> None:
    caps = [{"messages": 2, "every": "1h", "models": ["large", "larger"]}, {"messages": 4, "every": "1d"}]
    limits = Limits(store, tiers_of({"caps": caps}))
    reserve(limits, model="large")
    reserve(limits, model="larger")
    assert "2 messages every hour with larger" in str(refused(limits, model="larger"))
    for _ in range(2):
        reserve(limits, model="small")
    # The day's holds longer than the hour's, and is named.
    assert "4 messages every day; all are used. Ask again in 24h0m0s" in str(refused(limits, model="large"))


def test_nothing_is_taken_where_one_limit_refuses(store: Store) -> None:
    tier = {"requests_per_minute": 100, "caps": [{"messages": 9, "every": "1h"}, {"messages": 1, "every": "2h"}]}
    limits = Limits(store, tiers_of(tier))
    reserve(limits)
    before = rows(store, meters), rows(store, marks), rows(store, reservations)
    refused(limits)
    refused(limits, account(key="key_9", key_budget=10), prompt_tokens=5, max_tokens=5)
    assert (rows(store, meters), rows(store, marks), rows(store, reservations)) == before


def test_a_cap_follows_load_between_floor_and_ceiling(store: Store, clock: FakeClock) -> None:
    busy = 0.0
    cap = {"messages": 10, "every": "3h", "floor": 2}
    limits = Limits(store, tiers_of({"caps": [cap]}), load=lambda: busy)
    for left in (9, 8, 7, 6, 5):
        assert told(reserve(limits))["remaining-requests"] == str(left)
    busy = 7.0  # which is told as the most there is
    clock.advance(30)
    limits.beat()
    assert limits.load == 0.5 and told(reserve(limits))["limit-requests"] == "6"
    # Five are in the window; under full load two would be too many.
    for _ in range(4):
        clock.advance(60)
        limits.beat()
    assert limits.load == 1.0
    error = refused(limits)
    assert "has 2 messages every 3 hours" in str(error) and told(error)["remaining-requests"] == "0"
    # One fits again once five of the six have left: four came at once, and the last of them first of all.
    assert told(error)["retry-after"] == str(3 * 3600 - 270)
    busy = 0.0
    for _ in range(20):
        clock.advance(30)
        limits.beat()
    assert told(reserve(limits))["limit-requests"] == "10"


def test_free_messages_end_with_the_day(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"free_per_day": {"messages": 2}}))
    assert told(reserve(limits)) == {"limit-requests": "2", "remaining-requests": "1", "reset-requests": "12h0m0s"}
    limits.release(reserve(limits))
    limits.settle(reserve(limits), USED)
    error = refused(limits)
    assert (error.code, told(error)["retry-after"]) == ("insufficient_quota", "43200")
    assert str(error) == (
        "The tier t has 2 free messages a day (UTC); all are used. Ask again in 12h0m0s, at 2026-11-21 00:00:00 UTC."
    )
    clock.now += DAY // 2 - 1
    refused(limits)
    clock.now += 1
    reserve(limits)
    assert [event["free"] for event in rows(store, events)] == [1]


def test_past_the_free_messages_a_budget_pays(store: Store) -> None:
    limits = Limits(store, tiers_of({"free_per_day": {"messages": 1}, "requests_per_minute": 9}))
    payer = account(user_budget=100)
    held = reserve(limits, payer, prompt_tokens=1_000_000)  # free, whatever it costs
    paid = reserve(limits, payer, prompt_tokens=60, max_tokens=20)
    assert told(held)["remaining-requests"] == "8" and told(paid)["remaining-requests"] == "7"  # not that none is free
    error = refused(limits, payer, prompt_tokens=1, max_tokens=0)
    assert "budget is $0.0001 a month (UTC). Of it $0.00 is left" in str(error)
    limits.settle(held, Usage(1_000_000, 9))
    assert rows(store, meters)[0]["spent"] == 0 and rows(store, meters)[0]["held"] == 100


@pytest.mark.parametrize("whose", ["user", "key", "tier"])
def test_budgets_hold_what_may_be_spent_and_count_what_was(store: Store, clock: FakeClock, whose: str) -> None:
    tier = {"total_budget": 0.0001} if whose == "tier" else {}
    limits = Limits(store, tiers_of(tier))
    who = account(**({f"{whose}_budget": 100} if whose != "tier" else {}))
    held = reserve(limits, who, prompt_tokens=20, max_tokens=40)
    reason = {"user": "account's", "key": "key's", "tier": "tier's"}[whose]
    error = refused(limits, who, prompt_tokens=1, max_tokens=0)
    assert (error.status, error.code) == (429, "insufficient_quota") and f"The {reason} budget" in str(error)
    assert "at 2026-12-01 00:00:00 UTC" in str(error) and told(error)["retry-after"] == str(10 * 86_400 + 43_200)
    limits.settle(held, Usage(20, 10))
    limits.release(reserve(limits, who, prompt_tokens=60, max_tokens=0))
    limits.settle(reserve(limits, who, prompt_tokens=58, max_tokens=0), Usage(58, 0))
    refused(limits, who, prompt_tokens=3, max_tokens=0)
    last = reserve(limits, who, prompt_tokens=2, max_tokens=0)
    other = account("user_2", "key_2") if whose == "tier" else account(key="key_2") if whose == "key" else None
    if whose == "key":
        reserve(limits, other, prompt_tokens=50)
    elif whose == "tier":
        refused(limits, other, prompt_tokens=1)
    # What is open at a month's end is paid from the next, in which it ends.
    clock.now += 10 * DAY + DAY // 2 - 1
    refused(limits, who, prompt_tokens=1, max_tokens=0)
    clock.now += 1
    reserve(limits, who, prompt_tokens=98, max_tokens=0)
    refused(limits, who, prompt_tokens=1, max_tokens=0)
    limits.settle(last, Usage(1, 0))
    reserve(limits, who, prompt_tokens=1, max_tokens=0)


def test_a_budget_of_nothing_allows_what_costs_nothing(store: Store) -> None:
    limits = Limits(store, tiers_of({"budget": 0}))
    assert refused(limits).code == "insufficient_quota"
    reserve(limits, model="small")


def test_the_fallback_answers_where_a_cap_is_reached(store: Store) -> None:
    tier = {"caps": [{"messages": 1, "every": "3h", "models": ["large"]}], "fallback": "small", "streams": 2}
    reached: list[str] = []
    limits = Limits(store, tiers_of(tier), reached=reached.append)
    assert reserve(limits, stream=True).model == "large"
    assert reserve(limits, stream=True).model == "small"
    assert "streams" in str(refused(limits, stream=True)) and reached == ["streams"]  # as it is with every model
    assert {row["model"] for row in rows(store, reservations)} == {"large", "small"}
    strict = Limits(store, tiers_of({**tier, "caps": [*tier["caps"], {"messages": 1, "every": "1d"}]}))  # type: ignore[misc]
    other = account("user_2")
    reserve(strict, other)
    assert "1 message every day; all" in str(refused(strict, other))


def test_images_are_for_those_who_may_send_them(store: Store) -> None:
    limits = Limits(store, tiers_of({"images": False}))
    error = refused(limits, image_tokens=5)
    assert (error.status, error.code) == (403, "images_not_allowed")
    reserve(limits, account(images=True), image_tokens=5)
    open_ = Limits(store, tiers_of({}))
    reserve(open_, image_tokens=5)
    assert refused(open_, account(images=False), image_tokens=5).status == 403


def test_a_tier_that_is_gone(store: Store) -> None:
    assert refused(Limits(store, tiers_of({})), account(tier="gone")).code == "unknown_tier"


def test_a_clock_that_goes_back_gives_nothing_away(store: Store, clock: FakeClock) -> None:
    tier = {
        "requests_per_minute": 2, "caps": [{"messages": 4, "every": "1h"}], "free_per_day": {"messages": 4},
    }  # fmt: skip
    limits = Limits(store, tiers_of(tier))
    clock.now += DAY // 2  # just past midnight
    for _ in range(2):
        reserve(limits)
    clock.now -= 5 * MINUTE  # yesterday again
    error = refused(limits)
    assert told(error)["remaining-requests"] == "0"
    clock.now += 5 * MINUTE + 30 * SECOND
    assert told(reserve(limits))["remaining-requests"] == "0"
    clock.now -= 2 * MINUTE
    assert "2 requests a minute" in str(refused(limits))
    clock.now += 3 * MINUTE
    reserve(limits)
    clock.now += 3 * MINUTE
    # Four free messages on this day and four in the hour, whatever the clock said between.
    assert "free messages a day" in str(refused(limits))


def test_a_budget_does_not_begin_anew_when_the_clock_goes_back_over_a_months_end(
    store: Store, clock: FakeClock
) -> None:
    limits = Limits(store, tiers_of({"budget": 0.0001}))
    clock.now += 11 * DAY  # December
    limits.settle(reserve(limits, prompt_tokens=90, max_tokens=0), Usage(90, 0))
    clock.now -= 2 * DAY
    refused(limits, prompt_tokens=11, max_tokens=0)
    limits.settle(reserve(limits, prompt_tokens=10, max_tokens=0), Usage(10, 0))
    clock.now += 2 * DAY
    refused(limits, prompt_tokens=1, max_tokens=0)


def test_no_limit_means_none_and_a_limit_that_comes_later_begins_empty(store: Store, clock: FakeClock) -> None:
    free = Limits(store, tiers_of({}))
    for _ in range(50):
        assert told(reserve(free, stream=True, prompt_tokens=10**6)) == {}
    tight = Limits(store, tiers_of({"requests_per_minute": 1, "tokens_per_minute": 30}))
    reserve(tight)
    reserve(free)
    clock.advance(60)
    reserve(tight)


def test_a_sweep_leaves_what_still_counts(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"caps": [{"messages": 9, "every": "1h"}, {"messages": 9, "every": "2h"}]}))
    reserve(limits)
    clock.advance(3600)
    reserve(limits, account("user_2"))
    clock.advance(3600)
    assert limits.sweep() == 2  # of the first user; those of the second are young
    assert {row["user"] for row in rows(store, marks)} == {"user_2"}


def test_standings_for_a_page(store: Store, clock: FakeClock) -> None:
    tier = {
        "requests_per_minute": 60, "tokens_per_minute": 6000, "streams": 2, "caps": [{"messages": 50, "every": "3h"}],
        "budget": 1.0,
    }  # fmt: skip
    limits = Limits(store, tiers_of(tier))
    assert [(found.kind, found.remaining, found.reset) for found in limits.standings(account())] == [
        ("requests", 60, 0), ("tokens", 6000, 0), ("streams", 2, None), ("cap", 50, 0),
        ("budget", 1_000_000, 907_200_000),
    ]  # fmt: skip
    reserve(limits, stream=True, prompt_tokens=100, max_tokens=500)
    clock.advance(0.5)
    assert [(found.kind, found.remaining, found.reset) for found in limits.standings(account(key_budget=10_000))] == [
        ("requests", 59, 500), ("tokens", 5450, 5500), ("streams", 1, None), ("cap", 49, 3 * HOUR - 500),
        ("budget", 998_900, 907_199_500), ("key_budget", 10_000, 907_199_500),
    ]  # fmt: skip
