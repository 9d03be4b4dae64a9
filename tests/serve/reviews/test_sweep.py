"""The sweep over stored usage, and the figures at a glance."""

from collections.abc import Mapping

import numpy as np
import pytest
import sqlalchemy as sa
from reviewkit import LADDER, flag, status, take
from storekit import DAY, HOUR, MINUTE, FakeClock, add_user, at_once

from foretell.errors import StoreError
from foretell.safety.anomalies import Watch
from foretell.serve.accounts import audit
from foretell.serve.accounts.account import new_id
from foretell.serve.accounts.secret import mark
from foretell.serve.accounts.tables import keys, sessions
from foretell.serve.limits.tables import events
from foretell.serve.reviews.appeals import appeal
from foretell.serve.reviews.desk import uphold
from foretell.serve.reviews.overview import overview
from foretell.serve.reviews.standings import strikes_of
from foretell.serve.reviews.sweep import anomalies_of, close, sweep
from foretell.serve.reviews.tally import Tally
from foretell.serve.store import Store

SMALL = Watch(hours=6, burst_calls=10)


def used(store: Store, calls: Mapping[str, list[int]]) -> None:
    """Events of users: how many in each hour, the last one complete, the ones before it before."""
    rows = []
    last = store.clock() // HOUR - 1
    zero = {column.name: 0 for column in events.c if isinstance(column.type, sa.BigInteger)}
    for user, counts in calls.items():
        for back, count in enumerate(reversed(counts)):
            for i in range(count):
                at = (last - back) * HOUR + i * 1000
                row = {
                    **zero,
                    "id": new_id("res"),
                    "time": at,
                    "user": user,
                    "tier": "free",
                    "model": "m",
                    "status": "done",
                }
                rows.append(row)
    with store.write() as db:
        db.execute(sa.insert(events), rows)


def test_a_burst_a_crowd_and_a_rise_are_found_once(store: Store, clock: FakeClock) -> None:
    rng = np.random.default_rng(0)
    usual = {f"user_{i}": rng.poisson(8, 7).tolist() for i in range(8)}
    used(store, {**usual, "user_bot": [8, 7, 9, 8, 8, 7, 70]})
    with store.write() as db:
        marks = {address: mark(db, address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")}
    for i in range(11):
        farm = "192.0.2.1" if i < 8 else f"192.0.2.{i - 6}"
        user = add_user(store, f"u{i}@example.org", address=marks[farm])
        with store.write() as db:
            values = {"digest": str(i), "user": user, "address": marks[farm], "created": clock.now, "used": clock.now}
            db.execute(sa.insert(sessions).values(**values, expires=clock.now + DAY))
    for _ in range(6):
        flag(store, None, "flag", categories=["self-harm"])
    flag(store, None, "flag", categories=["hate"])
    clock.advance(3600)  # the flagged hour is complete now
    used(store, {"user_bot": [0], "user_0": [5]})
    found = {anomaly.kind: anomaly for anomaly in sweep(store, SMALL)}
    assert found["address"].subject == marks["192.0.2.1"] and found["address"].seen == 8
    assert found["category"].subject == "self-harm" and found["category"].seen == 6
    assert found["category"].began == clock.now // HOUR * HOUR - HOUR and found["category"].chance < 0.001
    clock.advance(-3600)
    (burst,) = sweep(store, SMALL)
    assert (burst.kind, burst.subject, burst.seen) == ("burst", "user_bot", 70) and 7 < burst.expected < 9
    assert sweep(store, SMALL) == [], "each is told once"
    assert {anomaly.id for anomaly in anomalies_of(store)} == {burst.id, *(anomaly.id for anomaly in found.values())}
    outcomes = at_once(3, lambda i: close(store, f"rev{i}", burst.id))
    assert sorted(map(bool, outcomes)) == [False, False, True] and not close(store, "rev", "odd_none")
    assert burst.id not in {anomaly.id for anomaly in anomalies_of(store)}
    assert [anomaly.id for anomaly in anomalies_of(store, open=False)] == [burst.id] and len(
        anomalies_of(store, open=None)
    ) == 3
    with store.read() as db:
        assert len(audit.events(db, action="anomaly.close")) == 1


def test_a_known_address_and_clean_traffic_raise_nothing(store: Store, clock: FakeClock) -> None:
    rng = np.random.default_rng(1)
    used(store, {f"user_{i}": rng.poisson(8, 7).tolist() for i in range(8)})
    school = "0" * 32
    for i in range(12):
        add_user(store, f"u{i}@example.org", address=school if i < 9 else str(i) * 16)
    assert sweep(store, SMALL, known={school}) == []
    assert [anomaly.kind for anomaly in sweep(store, SMALL)] == ["address"]


def test_figures_at_a_glance(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    tally, other = Tally(), Tally()
    tally.add("requests", 50)
    tally.flush(store)
    clock.advance(2 * 3600)
    for name, count in {
        "requests": 7,
        "errors": 1,
        "refused": 2,
        "prompt": 30,
        "completion": 9,
        "caps:tokens": 2,
    }.items():
        tally.add(name, count)
    other.add("requests", 3)
    tally.flush(store), other.flush(store), tally.flush(store)
    other.add("requests", 1)
    other.flush(store)
    for action in ("block", "flag"):
        flag(store, user, action, categories=["hate", "violence"])
    appeal(store, user, strikes_of(store, user)[0].id, "a note")
    with store.write() as db:
        row = {"id": "key_1", "user": user, "name": "k", "digest": "d", "hint": "h", "scopes": "", "created": 0}
        db.execute(sa.insert(keys).values(**row, used=clock.now - 2 * HOUR))
    found = overview(store)
    assert found.time == clock.now
    assert (found.hour.requests, found.day.requests) == (11, 61)
    assert (found.hour.errors, found.hour.refused) == (1, 2)
    assert (found.hour.prompt_tokens, found.hour.completion_tokens) == (30, 9)
    assert found.hour.caps == {"tokens": 2} and found.hour.findings == {"hate": 2, "violence": 2}
    assert found.hour.strikes == {"warned": 1} and found.accounts == {"warned": 1}
    assert (found.hour.active_users, found.day.active_users) == (0, 1)
    assert (found.waiting, found.oldest_waiting, found.open_appeals, found.open_anomalies) == (2, clock.now, 1, 0)
    clock.advance(25 * 3600)
    later = overview(store)
    assert later.day.requests == later.day.active_users == 0 and later.day.findings == {} and later.waiting == 2


def test_servers_that_count_at_once_lose_nothing(store: Store) -> None:
    def count(i: int) -> None:
        tally = Tally()
        for _ in range(5):
            tally.add("requests", 2), tally.add("errors")
            tally.flush(store)

    assert at_once(6, count) == [None] * 6
    assert overview(store).hour.requests == 60 and overview(store).hour.errors == 30


def test_what_could_not_be_written_is_written_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    tally.add("requests", 4)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write", broken)
        with pytest.raises(StoreError):
            tally.flush(store)
    tally.add("requests")
    tally.flush(store)
    assert overview(store).hour.requests == 5


def broken() -> object:
    raise StoreError("gone")


def test_a_decision_shows_in_the_figures(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    id = flag(store, user, "refuse").id
    take(store, "rev", id)
    uphold(store, LADDER, "rev", id)
    clock.advance(MINUTE / 1000)
    found = overview(store)
    assert found.waiting == 0 and found.hour.strikes == {"warned": 1} and status(store, user)[0] == "warned"
