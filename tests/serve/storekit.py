"""What tests of the database share: a clock that stands still, and a store with its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

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
    """A store with the tables of every module that is loaded."""
    store = Store(place, clock)
    try:
        with store.write() as db:
            metadata.create_all(db)
            make_secret(db)
        yield store
    finally:
        store.close()


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
