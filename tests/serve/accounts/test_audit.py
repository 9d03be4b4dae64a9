"""The audit log: whatever is changed in it is found, and what may be removed leaves it checkable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import DAY, FakeClock, at_once

from foretell.serve.accounts import audit
from foretell.serve.accounts.audit import START, Verdict, verify
from foretell.serve.accounts.tables import audit as table
from foretell.serve.accounts.tables import audit_ends
from foretell.serve.store import Store

COLUMNS = [column.name for column in table.columns]


def fill(store: Store, clock: FakeClock, count: int = 8) -> None:
    """A row a day."""
    for number in range(count):
        with store.write() as db:
            audit.append(db, f"user_{number % 3}", "key.create", f"key_{number}", {"n": number, "ü": "é"}, now=clock())
        clock.advance(86_400)


def test_the_chain_is_what_the_page_says(store: Store, clock: FakeClock) -> None:
    """Each hash worked out again from its definition, by other code."""
    fill(store, clock, 3)
    with store.read() as db:
        rows = db.execute(sa.select(table).order_by(table.c.seq)).fetchall()
    previous = START
    for row in rows:
        details = hashlib.sha256((row.salt + row.details).encode()).hexdigest()
        text = json.dumps(
            [previous, row.seq, row.time, row.actor, row.action, row.subject, details], separators=(",", ":")
        )
        assert hashlib.sha256(text.encode()).hexdigest() == row.hash
        previous = row.hash
    assert verify(store) == Verdict(None, 3, 0, 3, previous)


def test_an_empty_log_is_intact(store: Store) -> None:
    assert verify(store) == Verdict(None, 0, 0, 0, START)


class Undone(Exception):
    pass


def fault_after(store: Store, *statements: Any, hash: str | None = None) -> str | None:
    """What is found wrong once these were done, which is then undone."""
    found: list[str | None] = []
    with pytest.raises(Undone), store.write() as db:
        for statement in statements:
            db.execute(statement)
        found.append(audit.check(db, hash).fault)
        raise Undone
    return found[0]


def other(value: Any, by: int) -> Any:
    """Another value of the same kind."""
    if value is None:
        return "x" * 32
    if isinstance(value, int):
        return value + by
    return value[: by % len(value)] + ("0" if value[by % len(value)] != "0" else "1") + value[by % len(value) + 1 :]


def test_whatever_is_changed_is_found(store: Store, clock: FakeClock) -> None:
    """Any field of any row, any rows removed, any order, any row put in; with some redacted and some expired."""
    fill(store, clock)
    with store.write() as db:
        audit.redact(db, "shell", now=clock(), subject="user_1")
        audit.expire(db, "shell", clock() - 6 * DAY, now=clock())
    assert verify(store).fault is None
    with store.read() as db:
        rows = {row.seq: row._asdict() for row in db.execute(sa.select(table))}
        ends = db.execute(sa.select(audit_ends)).one()._asdict()
    numbers = sorted(rows)
    assert numbers == list(range(3, 11))
    number = st.sampled_from(numbers)

    def put(row: dict[str, Any]) -> Any:
        return sa.insert(table).values(**row)

    @settings(max_examples=80)
    @given(number, st.sampled_from(COLUMNS), st.integers(1, 63))
    def changed(seq: int, column: str, by: int) -> None:
        value = other(rows[seq][column], by if column != "seq" else by + 100)
        assert fault_after(store, sa.update(table).where(table.c.seq == seq).values({column: value}))

    @settings(max_examples=30)
    @given(st.sets(number, min_size=1))
    def removed(gone: set[int]) -> None:
        assert fault_after(store, sa.delete(table).where(table.c.seq.in_(gone)))

    @settings(max_examples=30)
    @given(st.permutations(numbers).filter(lambda order: order != numbers))
    def reordered(order: list[int]) -> None:
        moved = [put({**rows[old], "seq": new}) for new, old in zip(numbers, order, strict=True)]
        assert fault_after(store, sa.delete(table), *moved)

    @settings(max_examples=30)
    @given(number, st.integers(-5, 20).filter(lambda seq: seq not in numbers))
    def added(copied: int, seq: int) -> None:
        assert fault_after(store, put({**rows[copied], "seq": seq}))

    @settings(max_examples=15)
    @given(st.sampled_from(["before", "before_hash", "last", "last_hash"]), st.integers(1, 63))
    def end_changed(column: str, by: int) -> None:
        assert fault_after(store, sa.update(audit_ends).values({column: other(ends[column], by)}))

    for check in (changed, removed, reordered, added, end_changed):
        check()
    assert verify(store).fault is None


def test_details_removed_in_silence_are_found(store: Store, clock: FakeClock) -> None:
    fill(store, clock)
    blank = sa.update(table).where(table.c.seq == 4).values(details=None, salt=None)
    assert fault_after(store, blank) == "the details of row 4 were removed, and the log does not say so"


def test_a_front_removed_in_silence_is_found(store: Store, clock: FakeClock) -> None:
    """Also where whoever does it moves the log's beginning with it."""
    fill(store, clock)
    with store.read() as db:
        hash = db.scalar(sa.select(table.c.hash).where(table.c.seq == 4))
    moved = sa.update(audit_ends).values(before=4, before_hash=hash)
    found = fault_after(store, sa.delete(table).where(table.c.seq <= 4), moved)
    assert found == "rows up to 4 were removed, and the log does not say so"


def test_a_hash_kept_elsewhere_shows_a_log_written_anew(store: Store, clock: FakeClock) -> None:
    fill(store, clock)
    kept = verify(store).last_hash
    with store.write() as db:
        audit.append(db, "shell", "user.role", "user_1", now=clock())
    assert verify(store, kept).fault is None and verify(store, START).fault is None
    with store.write() as db:
        db.execute(sa.delete(table))
        db.execute(sa.delete(audit_ends))
    fill(store, clock)
    assert verify(store).fault is None
    assert verify(store, kept).fault == "no row has the hash that was given"


def test_redaction_removes_what_was_told_and_keeps_the_chain(store: Store, clock: FakeClock) -> None:
    fill(store, clock)
    with store.write() as db:
        assert audit.redact(db, "shell", now=clock(), subject="user_1") == 3
        assert audit.redact(db, "shell", now=clock(), subject="user_1") == 0
        assert audit.redact(db, "shell", now=clock(), before=clock() - 6 * DAY) == 1
        assert audit.redact(db, "shell", now=clock(), before=clock() + 1) == 4, "what tells of redactions stays"
    last = verify(store)
    assert (last.fault, last.rows, last.redacted) == (None, 11, 8)
    with store.read() as db:
        assert db.scalars(sa.select(table.c.details).where(table.c.seq <= 8)).all() == [None] * 8
        newest = audit.events(db, limit=1)[0]
        assert newest.details == {"rows": [[3, 4], [6, 7]]} and newest.action == "audit.redact"
    with store.write() as db, pytest.raises(ValueError, match="subject or a time"):
        audit.redact(db, "shell", now=clock())


def test_retention_removes_the_front_and_keeps_the_chain(store: Store, clock: FakeClock) -> None:
    fill(store, clock)
    start = clock()
    kept = verify(store).last_hash
    for keep, gone, rows in ((6, 2, 7), (6, 0, 7), (3, 3, 5), (-1, 5, 1)):
        with store.write() as db:
            assert audit.expire(db, "shell", start - keep * DAY, now=start) == gone
        assert verify(store) == replace(verify(store), fault=None, rows=rows)
    assert verify(store, kept).fault == "no row has the hash that was given", "it is too old to be told"
    with store.write() as db:
        audit.append(db, "shell", "user.role", "user_1", now=start)
    assert verify(store).fault is None


def test_expiry_of_an_empty_log(store: Store) -> None:
    with store.write() as db:
        assert audit.expire(db, "shell", 1, now=2) == 0


def test_many_write_at_once_and_none_is_lost(store: Store, clock: FakeClock) -> None:
    def write(number: int) -> int:
        with store.write() as db:
            return audit.append(db, f"user_{number}", "key.create", "key", now=clock())

    assert sorted(at_once(8, write), key=str) == list(range(1, 9))  # the first of all make the log's ends at once
    assert verify(store).rows == 8 and verify(store).fault is None


def test_what_is_undone_leaves_no_row(store: Store, clock: FakeClock) -> None:
    fill(store, clock, 2)
    with pytest.raises(Undone), store.write() as db:
        audit.append(db, "shell", "user.role", "user_1", now=clock())
        raise Undone
    assert verify(store) == replace(verify(store), fault=None, rows=2)


def test_events_are_found(store: Store, clock: FakeClock) -> None:
    fill(store, clock)
    with store.write() as db:
        audit.append(db, "shell", "user.role", "user_1", {"role": "admin"}, now=clock())
    with store.read() as db:
        assert [e.seq for e in audit.events(db, subject="user_1")] == [9, 8, 5, 2]
        assert [e.seq for e in audit.events(db, action="user")] == [9]
        assert [e.seq for e in audit.events(db, action="_ser")] == []
        assert [e.seq for e in audit.events(db, before=4, limit=2)] == [3, 2]
        assert audit.events(db, limit=1)[0].details == {"role": "admin"}
