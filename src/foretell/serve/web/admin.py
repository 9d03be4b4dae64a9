"""The admin's overview: how many people, what they used, what waits, and the running server's own figures."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.pages import cards, el, join, number
from foretell.serve.accounts.account import STATUSES
from foretell.serve.accounts.tables import keys, users, waitlist
from foretell.serve.reviews import cases, sweep
from foretell.serve.reviews.tables import appeals, strikes
from foretell.serve.web.shell import panel, shell
from foretell.serve.web.site import Page, Reply, Visit

_DAY = 86_400_000


def _overview(visit: Visit) -> Reply:
    store = visit.site.store
    now = store.clock()
    week = now - 7 * _DAY
    with store.read() as db:
        by_status = dict(db.execute(sa.select(users.c.status, sa.func.count()).group_by(users.c.status)).tuples().all())
        new = _count(db, users, users.c.created >= week)
        live = keys.c.revoked.is_(None) & (keys.c.expires.is_(None) | (keys.c.expires > now))
        usable = _count(db, keys, live)
        used = _count(db, keys, live & (keys.c.used >= now - _DAY))
        asking = _count(db, waitlist, waitlist.c.invited.is_(None))
        struck = _count(db, strikes, strikes.c.time >= week)
        appealed = _count(db, appeals, appeals.c.verdict.is_(None))
    told = [f"{number(by_status[one])} {one}" for one in STATUSES[1:] if by_status.get(one)]
    people = [
        ("Accounts", _link("/admin/users", sum(by_status.values())), ", ".join(told) or "all in good standing"),
        ("New", number(new), "in the last 7 days"),
        ("On the waitlist", _link("/admin/waitlist", asking), "not invited yet"),
        ("Keys", number(usable), f"{number(used)} used in the last 24 hours"),
    ]
    safety = [
        ("Cases", _link("/review", cases.waiting(store)), "wait for a reviewer"),
        ("Appeals", number(appealed), "not answered yet"),
        ("Strikes", number(struck), "given in the last 7 days"),
        ("Anomalies", _link("/anomalies", len(sweep.anomalies_of(store))), "not looked at yet"),
    ]
    running = list(visit.site.glance())
    return shell(
        visit,
        "Overview",
        panel("People", cards(people)),
        panel("Safety", cards(safety)),
        panel(
            "This server",
            cards(running),
            note=join(["Since it started. The same figures, and more, are at ", el("code", "/metrics"), "."]),
        )
        if running
        else "",
    )


def _link(path: str, count: int) -> object:
    return el("a", number(count), href=path)


def _count(db: sa.Connection, table: sa.Table, chosen: sa.ColumnElement[bool]) -> int:
    return db.scalar(sa.select(sa.func.count()).select_from(table).where(chosen)) or 0


PAGES = (Page("/admin", "admin", _overview),)
