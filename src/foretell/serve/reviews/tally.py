"""Counts of all servers together by minute, in the database: the admin page's figures, also after a restart."""

from __future__ import annotations

import threading
from collections import Counter

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from foretell.serve.reviews.tables import tallies
from foretell.serve.store import Store


class Tally:
    """Counts of one server that are not written yet. A server that dies loses those of the seconds since `flush`; what
    is to be exact is in the usage events."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> None:
        """name: one of a closed set, such as requests or caps:tokens; never what a caller made up."""
        if count:
            with self._lock:
                self._counts[name] += count

    def flush(self, store: Store) -> None:
        """Write what was counted, for a call every few seconds. Raises StoreError, and then keeps it for the next."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with store.write() as db:
                minute = store.clock() // 60_000
                kind = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
                # In one order, so that servers which flush at once do not wait on each other in a circle.
                rows = [{"minute": minute, "name": name, "count": counts[name]} for name in sorted(counts)]
                new = kind(tallies)
                sums = {"count": tallies.c.count + new.excluded.count}
                db.execute(new.on_conflict_do_update(index_elements=["minute", "name"], set_=sums), rows)
        except BaseException:
            with self._lock:
                self._counts.update(counts)
            raise


def sums(db: sa.Connection, since: int, late: int) -> dict[str, tuple[int, int]]:
    """What was counted by name in the minutes since one time, and since a later one; both in milliseconds."""
    lately = sa.func.sum(sa.case((tallies.c.minute > late // 60_000, tallies.c.count), else_=0))
    query = sa.select(tallies.c.name, sa.func.sum(tallies.c.count), lately).group_by(tallies.c.name)
    rows = db.execute(query.where(tallies.c.minute > since // 60_000))
    return {name: (int(count), int(recent)) for name, count, recent in rows}
