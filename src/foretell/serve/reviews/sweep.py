"""The sweep for anomalies: once an hour or so, over the usage and findings of the last one that is complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from foretell.safety.anomalies import Alarm, Kind, Watch, bursts, crowds, rises
from foretell.serve.accounts import audit
from foretell.serve.accounts.account import new_id
from foretell.serve.accounts.tables import sessions, users
from foretell.serve.limits.tables import events
from foretell.serve.reviews.tables import anomalies, findings
from foretell.serve.store import Store, insert_once

_HOUR = 3_600_000


@dataclass(frozen=True)
class Anomaly:
    """subject: a user, a category, or the mark of an address (accounts.secret.mark). began: first millisecond of what
    is odd, an hour of a burst or rise and a day of an address. seen, expected: how many. chance: of so many in clean
    traffic. closed_by None: nobody has looked at it."""

    id: str
    time: int
    kind: Kind
    subject: str
    began: int
    seen: float
    expected: float
    chance: float
    closed_by: str | None = None
    closed_at: int | None = None


def sweep(store: Store, watch: Watch = Watch(), known: Collection[str] = ()) -> list[Anomaly]:
    """Look at the last complete hour, and return what is odd and was not known yet.

    known: marks of addresses from which many accounts are to be expected. Reads `watch.hours` of usage, so not for an
    event loop or the store's own threads; several servers may sweep, and each anomaly is kept once. Nothing is done to
    an account: a reviewer looks at it. Raises StoreError.
    """
    hour = store.clock() // _HOUR - 1
    with store.read() as db:
        calls = _calls(db, hour - watch.hours, hour)
        found = [(alarm, hour * _HOUR) for alarm in bursts(calls, hour, watch)]
        day = (hour + 1) // 24 * 24
        found += [(alarm, day * _HOUR) for alarm in crowds(_addresses(db, (hour - 23) * _HOUR), known, watch)]
        now, past = _categories(db, (hour - watch.hours) * _HOUR, hour * _HOUR)
        totals = sum((Counter(counts) for counts in calls.values()), Counter[int]())
        before = totals.total() - totals[hour]
        found += [(alarm, hour * _HOUR) for alarm in rises(now, past, totals[hour], before, watch)]
    return [anomaly for alarm, began in found if (anomaly := _keep(store, alarm, began)) is not None]


def anomalies_of(store: Store, *, open: bool | None = True, limit: int = 100) -> list[Anomaly]:
    """The latest first. open: those that nobody has looked at; None: all."""
    query = sa.select(anomalies).order_by(anomalies.c.time.desc(), anomalies.c.chance).limit(limit)
    if open is not None:
        query = query.where(anomalies.c.closed_by.is_(None) if open else anomalies.c.closed_by.is_not(None))
    with store.read() as db:
        return [Anomaly(**row) for row in db.execute(query).mappings()]


def close(store: Store, reviewer: str, id: str) -> bool:
    """It was looked at. False: by another, or there is none of that id."""
    with store.write() as db:
        now = store.clock()
        fresh = (anomalies.c.id == id) & anomalies.c.closed_by.is_(None)
        values = {"closed_by": reviewer, "closed_at": now}
        if not db.execute(sa.update(anomalies).where(fresh).values(**values)).rowcount:
            return False
        audit.append(db, reviewer, "anomaly.close", id, now=now)
        return True


def _calls(db: sa.Connection, first: int, last: int) -> dict[str, dict[int, int]]:
    """Calls by user and hour, in the hours from `first` to `last`."""
    hour = (events.c.time // _HOUR).label("hour")
    query = (
        sa.select(events.c.user, hour, sa.func.count())
        .where(events.c.time >= first * _HOUR, events.c.time < (last + 1) * _HOUR)
        .group_by(events.c.user, hour)
    )
    found: dict[str, dict[int, int]] = {}
    for user, at, count in db.execute(query):
        found.setdefault(user, {})[at] = count
    return found


def _addresses(db: sa.Connection, since: int) -> list[tuple[str, str]]:
    """Addresses and users that signed up or were logged in from them."""
    new = sa.select(users.c.address, users.c.id).where(users.c.created >= since, users.c.address.is_not(None))
    seen = sa.select(sessions.c.address, sessions.c.user).where(
        sessions.c.used >= since, sessions.c.address.is_not(None)
    )
    return [(address, user) for address, user in db.execute(sa.union(new, seen))]


def _categories(db: sa.Connection, since: int, turn: int) -> tuple[Counter[str], Counter[str]]:
    """Findings by category in the hour from `turn` on, and from `since` until then."""
    now, past = Counter[str](), Counter[str]()
    query = sa.select(findings.c.time, findings.c.categories)
    for time, categories in db.execute(query.where(findings.c.time >= since, findings.c.time < turn + _HOUR)):
        (now if time >= turn else past).update(categories)
    return now, past


def _keep(store: Store, alarm: Alarm, began: int) -> Anomaly | None:
    with store.write() as db:
        anomaly = Anomaly(
            new_id("odd"), store.clock(), alarm.kind, alarm.subject, began, alarm.seen, alarm.expected, alarm.chance
        )
        row = {name: getattr(anomaly, name) for name in anomalies.c.keys()}  # noqa: SIM118 (columns by name)
        return anomaly if insert_once(db, anomalies, **row) else None
