"""Several servers on one database: one call too many is never let through, and a server's death loses no accounting."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest
import sqlalchemy as sa
from limitskit import ONE_LEFT, account, race, reserve, rows, stand_in_mid_stream, tiers_of
from storekit import FakeClock, at_once

from foretell.errors import RequestError, StoreError
from foretell.generate import Usage
from foretell.serve.limits import leases
from foretell.serve.limits.leases import is_gone, own_place, place_of
from foretell.serve.limits.limits import LEASE_MS, Limits, Reservation
from foretell.serve.limits.tables import days, events, meters, processes, reservations
from foretell.serve.store import Store

SPAWN = multiprocessing.get_context("spawn")
WHOLE = {"streams": 1, "tokens_per_minute": 1000, "budget": 1.0}


def test_of_200_calls_at_once_one_is_let_through(store: Store, place: str) -> None:
    """Four processes with fifty calls each, for each kind of limit."""
    count, calls = 4, 50
    barrier, ends, started = SPAWN.Barrier(count), [], []
    for _ in range(count):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=race, args=(place, calls, barrier, theirs), daemon=True)
        process.start()
        ends.append(ours)
        started.append(process)
    told = [end.recv() for end in ends if end.poll(900)]
    for process in started:
        process.join()
    assert len(told) == count
    for kind in ONE_LEFT:
        assert sum(through[kind] for through, _, _ in told) == 1, kind
    assert set.union(*(refusals for _, refusals, _ in told)) == {(kind, 429) for kind in ONE_LEFT}
    # What came after the race: nothing was lost, counted twice, or left open.
    (meter,) = (row for row in rows(store, meters) if row["subject"] == "user_all")
    (of,) = (row for row in rows(store, days) if row["user"] == "user_all")
    assert of["calls"] == 8 * count and of["prompt_tokens"] + of["completion_tokens"] == sum(used for *_, used in told)
    assert (meter["streams"], meter["held"], meter["spent"]) == (0, 0, of["charged"])
    assert meter["tokens"] == 60_000 * sum(used for *_, used in told)
    assert all(row["user"] != "user_all" for row in rows(store, reservations))


@pytest.mark.parametrize("kind", ["cap", "requests"])
def test_of_many_threads_one_is_let_through(store: Store, kind: str) -> None:
    limits = Limits(store, tiers_of(ONE_LEFT[kind]))
    limits.beat()
    found = at_once(16, lambda _: reserve(limits))
    errors = [each for each in found if not isinstance(each, Reservation)]
    assert len(errors) == 15 and {getattr(each, "status", repr(each)) for each in errors} == {429}


def test_a_server_killed_in_mid_stream_loses_no_accounting(store: Store, place: str, clock: FakeClock) -> None:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=stand_in_mid_stream, args=(place, theirs), daemon=True)
    process.start()
    assert ours.poll(300)
    id = ours.recv()
    limits = Limits(store, tiers_of(WHOLE))
    assert limits.recover() == 0  # it lives
    with pytest.raises(RequestError, match="all are open"):
        reserve(limits, stream=True)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if not own_place():
        clock.now += LEASE_MS
    assert limits.recover() == 1 and limits.recover() == 0
    (event,) = rows(store, events)
    assert (event["id"], event["status"]) == (id, "recovered")
    assert (event["prompt_tokens"], event["completion_tokens"], event["micros"]) == (100, 7, 114)
    (user,) = (row for row in rows(store, meters) if row["subject"] == "user_1")
    assert (user["streams"], user["held"], user["spent"], user["tokens"]) == (0, 0, 114, 107 * 60_000)
    reserve(limits, stream=True)


def test_one_elsewhere_is_dead_when_its_lease_has_run_out(store: Store, clock: FakeClock) -> None:
    far, near = Limits(store, tiers_of(WHOLE)), Limits(store, tiers_of(WHOLE))
    far._place = "another boot, another machine"
    held = reserve(far, stream=True)
    clock.now += LEASE_MS - 1
    near.beat()
    assert near.recover() == 0
    far.beat()
    clock.now += LEASE_MS - 1
    assert near.recover() == 0
    clock.now += 1
    assert near.recover() == 1 and [row["id"] for row in rows(store, processes)] == [near.process]
    far.settle(held, Usage(10, 9))


def test_one_that_only_stood_still_puts_right_what_was_guessed(store: Store, clock: FakeClock) -> None:
    slow, other = Limits(store, tiers_of(WHOLE)), Limits(store, tiers_of(WHOLE))
    slow._place = ""
    held, released = reserve(slow, stream=True, max_tokens=300), reserve(slow)
    slow.progress(held, 5)
    slow.beat()
    clock.now += LEASE_MS
    assert other.recover() == 2
    assert {(row["completion_tokens"], row["status"]) for row in rows(store, events)} == {
        (5, "recovered"), (0, "recovered"),
    }  # fmt: skip
    slow.settle(held, Usage(10, 200), "broken")
    slow.settle(held, Usage(10, 999))
    slow.release(released)
    assert {(row["completion_tokens"], row["status"]) for row in rows(store, events)} == {
        (200, "broken"), (0, "recovered"),
    }  # fmt: skip
    for row in rows(store, days):
        assert (row["calls"], row["completion_tokens"], row["micros"], row["charged"]) == (2, 200, 420, 420)
    (user,) = (row for row in rows(store, meters) if row["subject"] == "user_1")
    assert (user["streams"], user["held"], user["spent"]) == (0, 0, 420)


def test_a_call_of_a_process_that_nothing_is_known_of_is_settled(store: Store) -> None:
    limits = Limits(store, tiers_of(WHOLE))
    reserve(limits)
    with store.write() as db:
        db.execute(sa.update(reservations).values(process="proc_gone"))
    assert limits.recover() == 1


def test_load_is_that_of_all_living_servers(store: Store, clock: FakeClock) -> None:
    idle, busy = Limits(store, tiers_of({})), Limits(store, tiers_of({}), load=lambda: 1.0)
    busy.beat()
    idle.beat()
    assert idle.load == 0.5
    clock.now += LEASE_MS + 1
    idle.beat()
    assert idle.load == 0.0


def test_notes_outlast_a_database_that_does_not_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(store, tiers_of({}))
    held = reserve(limits)
    limits.progress(held, 4)

    def fail(written: Any) -> None:
        raise StoreError("locked")

    with monkeypatch.context() as broken, pytest.raises(StoreError):
        broken.setattr(limits, "_renew", fail)
        limits.beat()
    limits.beat()
    assert [row["written"] for row in rows(store, reservations)] == [4]


def test_places_tell_processes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = own_place()
    if not here:
        pytest.skip("this system does not tell")
    assert here == place_of(os.getpid()) and not is_gone(here)
    boot, space, pid, began = here.split(" ")
    assert is_gone(f"{boot} {space} {pid} {int(began) - 1}")  # its number went to another
    assert not is_gone(f"other {space} {pid} 1") and not is_gone(f"{boot} pid:[1] {pid} 1") and not is_gone("")
    monkeypatch.setattr(leases, "_PROC", leases._PROC / "missing")
    assert own_place() == "" and not is_gone(here)


def test_an_account_without_a_key_is_counted_too(store: Store) -> None:
    limits = Limits(store, tiers_of(WHOLE))
    limits.settle(reserve(limits, account(key=None)), Usage(10, 1))
    assert [row["key"] for row in rows(store, events)] == [None]
    assert [row["subject"] for row in rows(store, meters)] == ["user_1", "tier:t"]
