"""Any sequence of calls is let through, refused and told as a plain model of the limits says."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limitskit import account, reserve, rows, tiers_of, told
from storekit import FakeClock

from foretell.errors import RequestError
from foretell.generate import Usage
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tables import days, events, meters
from foretell.serve.store import Store

RPM, TPM, CAP, WINDOW, BUDGET, STREAMS = 6, 200, 4, 30_000, 1500, 2
TIER = {
    "requests_per_minute": RPM, "tokens_per_minute": TPM, "caps": [{"messages": CAP, "every": "30s"}],
    "budget": BUDGET / 1e6, "streams": STREAMS,
}  # fmt: skip
USERS = count()


class Model:
    """All of it in fractions and lists."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.requests = self.tokens = Fraction(0)
        self.times: list[int] = []
        self.spent = self.held = self.streams = 0

    def advance(self, ms: int) -> None:
        self.now += ms
        self.requests = max(Fraction(0), self.requests - Fraction(RPM * ms, 60_000))
        self.tokens = max(Fraction(0), self.tokens - Fraction(TPM * ms, 60_000))
        self.times = [time for time in self.times if self.now < time + WINDOW]

    def take(self, prompt: int, most: int) -> bool:
        cost = prompt + 2 * most
        fits = self.requests + 1 <= RPM and self.tokens + prompt + most <= TPM and len(self.times) < CAP
        if not (fits and self.spent + self.held + cost <= BUDGET and self.streams < STREAMS):
            return False
        self.requests, self.tokens, self.held = self.requests + 1, self.tokens + prompt + most, self.held + cost
        self.streams += 1
        self.times.append(self.now)
        return True

    def settle(self, prompt: int, most: int, used: int) -> None:
        self.tokens = max(Fraction(0), self.tokens - most + used)
        self.held -= prompt + 2 * most
        self.spent += prompt + 2 * used
        self.streams -= 1

    def release(self, prompt: int, most: int, time: int) -> None:
        self.tokens = max(Fraction(0), self.tokens - prompt - most)
        self.held -= prompt + 2 * most
        self.streams -= 1
        if time in self.times:
            self.times.remove(time)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 60), st.integers(1, 120)),
        st.tuples(st.just("settle"), st.integers(0, 3), st.integers(0, 150)),
        st.tuples(st.just("release"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 299, 300, 9_999, 10_000, 29_999, 30_000, 61_000]), st.just(0)),
    ),
    min_size=5,
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_limits_do_as_the_model_says(store: Store, clock: FakeClock, taken: list[tuple[str, int, int]]) -> None:
    who = account(f"user_{next(USERS)}", None)
    limits, model = Limits(store, tiers_of(TIER)), Model(clock.now)
    open_ = []
    for step, first, second in taken:
        if step == "wait":
            clock.now += first
            model.advance(first)
        elif step == "ask":
            fits = model.take(first, second)
            try:
                held = reserve(limits, who, prompt_tokens=first, max_tokens=second, stream=True)
            except RequestError as error:
                assert not fits
                assert error.status == 429
            else:
                assert fits
                open_.append((held, first, second, clock.now))
                headers = told(held)
                left = min(math.floor(RPM - model.requests), CAP - len(model.times))
                assert headers["remaining-requests"] == str(left)
                assert headers["remaining-tokens"] == str(math.floor(TPM - model.tokens))
        elif first < len(open_):
            held, prompt, most, time = open_.pop(first)
            if step == "settle":
                limits.settle(held, Usage(prompt, second))
                model.settle(prompt, most, second)
            else:
                limits.release(held)
                model.release(prompt, most, time)
    for row in rows(store, meters):
        if row["subject"] == who.user:
            assert (row["spent"], row["held"], row["streams"]) == (model.spent, model.held, model.streams)
    found = [row["charged"] for row in rows(store, days) if row["user"] == who.user]
    assert sum(found) == model.spent == sum(row["micros"] for row in rows(store, events) if row["user"] == who.user)
