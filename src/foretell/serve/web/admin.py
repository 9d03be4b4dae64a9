"""The admin's overview: what is asked and refused now, how many people, what waits for a reviewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from foretell.pages import Html, cards, compact, duration, el, join, number, table
from foretell.serve.accounts.account import STATUSES
from foretell.serve.accounts.tables import keys, users, waitlist
from foretell.serve.reviews.overview import Figures, overview
from foretell.serve.web.shell import panel, shell
from foretell.serve.web.site import Page, Reply, Visit

_DAY = 86_400_000
_CAPS = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "streams": "streams at once",
    "cap": "messages in a window",
    "quota": "free messages a day",
    "budget": "budget of an account",
    "key_budget": "budget of a key",
    "tier_budget": "budget of a tier",
}


def _overview(visit: Visit) -> Reply:
    store = visit.site.store
    found = overview(store)
    with store.read() as db:
        new = _count(db, users, users.c.created >= found.time - 7 * _DAY)
        live = keys.c.revoked.is_(None) & (keys.c.expires.is_(None) | (keys.c.expires > found.time))
        usable = _count(db, keys, live)
        used = _count(db, keys, live & (keys.c.used >= found.time - _DAY))
        asking = _count(db, waitlist, waitlist.c.invited.is_(None))
    told = [f"{number(found.accounts[one])} {one}" for one in STATUSES[1:] if found.accounts.get(one)]
    people = [
        ("Accounts", _link("/admin/users", sum(found.accounts.values())), ", ".join(told) or "all in good standing"),
        ("New", number(new), "in the last 7 days"),
        ("On the waitlist", _link("/admin/waitlist", asking), "not invited yet"),
        ("Keys", number(usable), f"{number(used)} used in the last 24 hours"),
    ]
    oldest = found.oldest_waiting
    longest = "none waits" if oldest is None else f"the oldest for {duration((found.time - oldest) / 1000)}"
    safety = [
        ("Cases", _link("/review", found.waiting), longest),
        ("Appeals", number(found.open_appeals), "not answered yet"),
        ("Anomalies", _link("/anomalies", found.open_anomalies), "not looked at yet"),
    ]
    running = list(visit.site.glance())
    rows = list(_rows(found.hour, found.day))
    return shell(
        visit,
        "Overview",
        panel("Traffic", table(("", "last hour", "last 24 hours"), rows, align="lrr")),
        panel("People", cards(people)),
        panel("Waiting for a reviewer", cards(safety)),
        panel("This server", cards(running), note=join(["Since it started; more at ", el("code", "/metrics"), "."]))
        if running
        else "",
        lead="All servers on this database together.",
    )


def _rows(hour: Figures, day: Figures) -> Iterator[tuple[object, object, object]]:
    yield "Calls answered", hour.requests, day.requests
    yield "of them refused", hour.refused, day.refused
    yield "of them failed", hour.errors, day.errors
    yield "Tokens read", compact(hour.prompt_tokens), compact(day.prompt_tokens)
    yield "Tokens written", compact(hour.completion_tokens), compact(day.completion_tokens)
    yield "People active", hour.active_users, day.active_users
    yield from _each("Limit reached", _CAPS, hour.caps, day.caps)
    yield from _each("Flagged", {}, hour.findings, day.findings)
    yield from _each("Struck", {}, hour.strikes, day.strikes)


def _each(
    what: str, names: Mapping[str, str], hour: Mapping[str, int], day: Mapping[str, int]
) -> Iterator[tuple[object, object, object]]:
    """A row for each kind that occurred, the most frequent first."""
    for name in sorted(day, key=lambda name: (-day[name], name)):
        yield f"{what}: {names.get(name, name)}", hour.get(name, 0), day[name]


def _link(path: str, count: int) -> Html:
    return el("a", number(count), href=path)


def _count(db: sa.Connection, table: sa.Table, chosen: sa.ColumnElement[bool]) -> int:
    return db.scalar(sa.select(sa.func.count()).select_from(table).where(chosen)) or 0


PAGES = (Page("/admin", "admin", _overview),)
