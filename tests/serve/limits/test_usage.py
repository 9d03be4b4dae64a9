"""What was used: sums that agree with their events, whose they are, and a table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from limitskit import account, reserve, rows, tiers_of
from storekit import DAY, FakeClock

from foretell.generate import Usage
from foretell.serve.limits import usage as module
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.statements import SUMS
from foretell.serve.limits.tables import days, events
from foretell.serve.limits.usage import COLUMNS, Sums, export, usage
from foretell.serve.limits.windows import day_of
from foretell.serve.store import Store


@pytest.fixture
def begun(store: Store, clock: FakeClock) -> Iterator[int]:
    """Three days of two users, one of whom has two keys and the chat page."""
    limits, start = (
        Limits(store, tiers_of({"free_per_day": {"messages": 1, "models": ["large"]}, "budget": 9.0})),
        clock.now,
    )
    for day in range(3):
        for key in ("key_1", "key_2", None):
            for model in ("large", "small"):
                held = reserve(limits, account(key=key), model, image_tokens=4)
                limits.settle(held, Usage(10, 5 + day, 4, 2), "broken" if key is None else "done")
                clock.now += 1
        limits.settle(reserve(limits, account("user_2", "key_3"), "huge"), Usage(1000, 1))
        clock.now += DAY
    yield start


def test_sums_agree_with_their_events(store: Store, begun: int) -> None:
    kept = rows(store, days)
    for row in kept:
        of = [
            event
            for event in rows(store, events)
            if (day_of(event["time"]), event["model"]) == (row["day"], row["model"])
            and (row["user"] == "" or (event["user"], event["key"] or "") == (row["user"], row["key"]))
        ]
        assert row["calls"] == len(of) > 0
        for name in set(SUMS) - {"calls", "charged"}:
            assert row[name] == sum(event[name] for event in of)
        assert row["charged"] == sum(event["micros"] for event in of if not event["free"])
    # One free message a day, of the first key.
    assert sum(row["micros"] - row["charged"] for row in kept if row["user"] == "") == sum((20, 22, 24))


def test_a_page_of_one_user(store: Store, begun: int, clock: FakeClock) -> None:
    found = usage(store, "user_1", since=begun, until=clock.now)
    assert found.total.calls == 18 and found.total.prompt_tokens == 180 and found.total.image_tokens == 72
    assert list(found.by_day) == [day_of(begun) + day for day in range(3)]
    assert [sums.completion_tokens for sums in found.by_day.values()] == [30, 36, 42]
    assert list(found.by_model) == ["large", "small"] and found.by_model["small"].micros == 0
    assert set(found.by_key) == {"", "key_1", "key_2"} and found.by_key["key_1"].calls == 6
    assert found.by_user == {}
    one = usage(store, "user_1", since=begun, until=begun, key="")
    assert one.total.calls == 2 and list(one.by_key) == [""]


def test_a_page_of_everyone(store: Store, begun: int, clock: FakeClock) -> None:
    found = usage(store, since=begun, until=clock.now)
    assert found.total.calls == 21 and found.by_key == {}
    assert list(found.by_model) == ["huge", "large", "small"]
    assert [(user, sums.calls) for user, sums in found.by_user.items()] == [("user_2", 3), ("user_1", 18)]
    assert sum(found.by_user.values(), Sums()) == found.total
    assert list(usage(store, since=begun, until=clock.now, top=1).by_user) == ["user_2"]
    assert usage(store, since=0, until=begun - DAY).total == Sums()
    assert usage(store, "user_3", since=begun, until=clock.now).total == Sums()


def test_a_table_in_pieces(store: Store, begun: int, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    pieces = list(export(store, "user_1", since=begun, until=clock.now))
    assert len(pieces) == 1 + 5 and max(piece.count("\n") for piece in pieces) == 4
    table = list(csv.DictReader(io.StringIO("".join(pieces))))
    assert tuple(table[0]) == COLUMNS and len(table) == 18 == len({row["id"] for row in table})
    assert table[0]["time"] == "2026-11-20T12:00:00.000Z" and {row["user"] for row in table} == {"user_1"}
    assert (table[0]["dollars"], table[0]["free"], table[0]["status"]) == ("0.000020", "1", "done")
    assert [row["time"] for row in table] == sorted(row["time"] for row in table)
    chat = list(csv.DictReader(io.StringIO("".join(export(store, "user_1", since=begun, until=clock.now, key="")))))
    assert len(chat) == 6 and {row["status"] for row in chat} == {"broken"}
    assert len("".join(export(store, since=begun, until=begun + 3)).splitlines()) == 1 + 3


def test_a_table_holds_no_formulas(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({}))
    limits.settle(reserve(limits, model='=HYPERLINK("x")'), Usage(1, 1))
    (row,) = csv.DictReader(io.StringIO("".join(export(store, since=0, until=clock.now + 1))))
    assert row["model"] == '\'=HYPERLINK("x")'


def test_pages_and_reservations_read_by_index(store: Store) -> None:
    if not store.is_sqlite:
        pytest.skip("SQLite tells its plans in few words")
    asked = [
        "SELECT * FROM usage_days WHERE user = 'u' AND day BETWEEN 1 AND 30",
        "SELECT * FROM usage_events WHERE user = 'u' AND time >= 5 ORDER BY time",
        "SELECT * FROM usage_events WHERE time >= 5 ORDER BY time",
        "SELECT count(*) FROM limit_marks WHERE user = 'u' AND cap = 'c' AND time > 5",
        "SELECT * FROM limit_meters WHERE subject IN ('a', 'b')",
    ]
    with store.read() as db:
        for query in asked:
            plan = " ".join(row.detail for row in db.execute(sa.text(f"EXPLAIN QUERY PLAN {query}")))
            assert "SEARCH" in plan and "SCAN" not in plan, plan
