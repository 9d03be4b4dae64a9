"""The admin page's figures at a glance, of all servers together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from foretell.serve.accounts.tables import keys, sessions, users
from foretell.serve.reviews.tables import anomalies, appeals, findings, strikes
from foretell.serve.reviews.tally import sums
from foretell.serve.store import Store

_HOUR, _DAY = 3_600_000, 86_400_000


@dataclass(frozen=True)
class Figures:
    """Of one span. requests: answered calls of the API; refused: those of them with a status of 4xx; errors: of 5xx.
    active_users: who used a key or a page. caps: refusals by the limit that was reached. findings: what moderation
    flagged, by category. strikes: by the step that an account came to."""

    requests: int
    refused: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    active_users: int
    caps: Mapping[str, int]
    findings: Mapping[str, int]
    strikes: Mapping[str, int]


@dataclass(frozen=True)
class Overview:
    """hour, day: the last 60 minutes and 24 hours. waiting: cases that a reviewer is to decide; oldest_waiting: since
    when the oldest does, in milliseconds since 1970. accounts: how many there are, by status."""

    time: int
    hour: Figures
    day: Figures
    waiting: int
    oldest_waiting: int | None
    open_appeals: int
    open_anomalies: int
    accounts: Mapping[str, int]


def overview(store: Store) -> Overview:
    """Raises StoreError. Reads counts that are kept by the minute, and no usage events: it takes milliseconds however
    much was used."""
    with store.read() as db:
        now = store.clock()

        counted, active = sums(db, now - _DAY, now - _HOUR), _active(db, now - _DAY, now - _HOUR)

        def figures(span: int, at: int) -> Figures:
            count = {name: both[at] for name, both in sorted(counted.items()) if both[at]}
            return Figures(
                requests=count.get("requests", 0),
                refused=count.get("refused", 0),
                errors=count.get("errors", 0),
                prompt_tokens=count.get("prompt", 0),
                completion_tokens=count.get("completion", 0),
                active_users=active[at],
                caps={name[5:]: value for name, value in count.items() if name.startswith("caps:")},
                findings=_flagged(db, now - span),
                strikes=_given(db, now - span),
            )

        count = sa.func.count()
        oldest = sa.select(count, sa.func.min(findings.c.time)).where(findings.c.open)
        waiting, since = db.execute(oldest).one()
        return Overview(
            time=now,
            hour=figures(_HOUR, 1),
            day=figures(_DAY, 0),
            waiting=waiting,
            oldest_waiting=since,
            open_appeals=db.scalar(sa.select(count).where(appeals.c.verdict.is_(None))) or 0,
            open_anomalies=db.scalar(sa.select(count).where(anomalies.c.closed_by.is_(None))) or 0,
            accounts={status: n for status, n in db.execute(sa.select(users.c.status, count).group_by(users.c.status))},
        )


def _flagged(db: sa.Connection, since: int) -> Counter[str]:
    alike = sa.cast(findings.c.categories, sa.Text)  # PostgreSQL cannot tell whether two JSON are equal
    query = sa.select(alike, sa.func.count()).where(findings.c.time > since).group_by(alike)
    found = Counter[str]()
    for names, count in db.execute(query):
        for name in json.loads(names):
            found[name] += count
    return found


def _given(db: sa.Connection, since: int) -> dict[str, int]:
    query = sa.select(strikes.c.step, sa.func.count()).where(strikes.c.time > since).group_by(strikes.c.step)
    return {step: count for step, count in db.execute(query)}


def _active(db: sa.Connection, since: int, late: int) -> tuple[int, int]:
    """Users of whom a key or a session was used, noted to the minute: since one time, and since a later one."""
    used = (sa.select(table.c.user, table.c.used).where(table.c.used > since) for table in (keys, sessions))
    each = sa.union_all(*used).subquery()
    last = sa.select(sa.func.max(each.c.used).label("used")).group_by(each.c.user).subquery()
    lately = sa.func.sum(sa.case((last.c.used > late, 1), else_=0))
    total, recent = db.execute(sa.select(sa.func.count(), lately).select_from(last)).one()
    return total, recent or 0
