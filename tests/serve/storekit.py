"""What tests of the database share: a clock that stands still, and a store with its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import TypeVar

import sqlalchemy as sa

from foretell.serve.accounts.account import new_id
from foretell.serve.accounts.secret import make_secret
from foretell.serve.accounts.tables import users
from foretell.serve.store import Store, metadata

T = TypeVar("T")
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


class FakeClock:
    """Milliseconds since 1970, moved by hand; it begins at noon of 20 November 2026, a Friday."""

    def __init__(self, now: int = 1_795_176_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


@contextmanager
def empty_store(place: str, clock: Callable[[], int]) -> Iterator[Store]:
    """A store with the tables of every module that is loaded; they are there already where it was `cleared`."""
    if "://" not in place:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(_with_tables(frozenset(metadata.tables)))
    store = Store(place, clock)
    try:
        with store.write() as db:
            if not sa.inspect(db).get_table_names():
                metadata.create_all(db)
            make_secret(db)
        yield store
    finally:
        store.close()


@cache
def _with_tables(names: frozenset[str]) -> bytes:
    """A database of SQLite with empty tables: made once, since that takes longer than most tests."""
    with TemporaryDirectory() as folder:
        store = Store(f"{folder}/empty.db")
        with store.write() as db:
            metadata.create_all(db)
        with store.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        return Path(folder, "empty.db").read_bytes()


def cleared(url: str) -> bool:
    """Empty the tables of a PostgreSQL that has those of `empty_store`, as that costs less than making them; whether it
    has these and no others."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        if {name for (name,) in found} != set(metadata.tables):
            return False
        connection.execute(";".join(f'DELETE FROM "{table.name}"' for table in reversed(metadata.sorted_tables)))
        return True


def add_user(store: Store, email: str = "ada@example.org", **values: object) -> str:
    """The id of a user put there directly, for tests of what comes after."""
    row = {"id": new_id("user"), "email": email, "role": "user", "tier": "free", "status": "active"}
    row |= {"created": store.clock(), **values}
    with store.write() as db:
        db.execute(users.insert().values(**row))
    return str(row["id"])


def at_once(count: int, work: Callable[[int], T]) -> list[T | Exception]:
    """What `work(0)`, `work(1)` … gave or raised on threads of their own, begun together."""
    barrier = Barrier(count)

    def begin(number: int) -> T | Exception:
        barrier.wait()
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))
