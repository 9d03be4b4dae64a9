"""What was used, for a page or a table: by day, key and model, read from the sums of days."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.serve.limits.statements import SUMS
from foretell.serve.limits.tables import days, events
from foretell.serve.limits.windows import day_of, moment
from foretell.serve.store import Store

EVERYONE = ""
_AT_ONCE = 1_000  # rows of a table that are read together


@dataclass(frozen=True)
class Sums:
    """micros: by the price table, micro-dollars; charged: of them what was not free. image_, cached_tokens: of the
    prompt's."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    micros: int = 0
    charged: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) + getattr(other, name) for name in SUMS))


@dataclass(frozen=True)
class Usage:
    """A span of days. by_day: those on which anything was used, as days since 1970, ascending. by_key: "" is the chat
    page. by_user: of everyone, those who were charged most. Others are sorted by what was charged."""

    total: Sums
    by_day: dict[int, Sums]
    by_model: dict[str, Sums]
    by_key: dict[str, Sums]
    by_user: dict[str, Sums]


def usage(
    store: Store, user: str = EVERYONE, *, since: int, until: int, key: str | None = None, top: int = 20
) -> Usage:
    """What a user (or everyone) used on the days from that of `since` to that of `until`, both in milliseconds.

    key: of that one only. top: how many users are listed.
    """
    span = sa.and_(days.c.user == user, days.c.day.between(day_of(since), day_of(until)))
    if key is not None:
        span &= days.c.key == key
    by_day: dict[int, Sums] = {}
    by_model: dict[str, Sums] = {}
    by_key: dict[str, Sums] = {}
    columns = [days.c[name] for name in SUMS]
    with store.read() as db:
        for day, of, model, *sums in db.execute(sa.select(days.c.day, days.c.key, days.c.model, *columns).where(span)):
            found = Sums(*sums)
            for table, name in ((by_day, day), (by_model, model), (by_key, of)):
                table[name] = table.get(name, Sums()) + found
        by_user = _most_charged(db, since, until, top) if user == EVERYONE and key is None else {}
    return Usage(
        sum(by_day.values(), Sums()),
        dict(sorted(by_day.items())),
        _sorted(by_model),
        _sorted(by_key) if user != EVERYONE else {},
        by_user,
    )


def _sorted(table: dict[str, Sums]) -> dict[str, Sums]:
    return dict(sorted(table.items(), key=lambda item: (-item[1].charged, -item[1].micros, item[0])))


def _most_charged(db: sa.Connection, since: int, until: int, top: int) -> dict[str, Sums]:
    sums = [sa.cast(sa.func.sum(days.c[name]), sa.BigInteger).label(name) for name in SUMS]
    query = (
        sa.select(days.c.user, *sums)
        .where(days.c.user > EVERYONE, days.c.day.between(day_of(since), day_of(until)))
        .group_by(days.c.user)
        .order_by(sa.desc("charged"), sa.desc("micros"), days.c.user)
        .limit(top)
    )
    return {user: Sums(*found) for user, *found in db.execute(query)}


COLUMNS = (
    "id", "time", "user", "key", "model", "prompt_tokens", "completion_tokens", "image_tokens", "cached_tokens",
    "dollars", "free", "status",
)  # fmt: skip


def export(store: Store, user: str = EVERYONE, *, since: int, until: int, key: str | None = None) -> Iterator[str]:
    """Pieces of a CSV table of calls that ended in [since, until), in order of time; it is never whole in memory.

    Each piece is read by itself, so nothing is held in the database while a slow reader takes them.
    """
    yield _lines([COLUMNS])
    last: tuple[int, str] = (since, "")
    where = [events.c.time < until]
    where += [events.c.user == user] if user != EVERYONE else []
    where += [events.c.key == (key or None)] if key is not None else []
    while True:
        after = sa.tuple_(events.c.time, events.c.id) > sa.tuple_(sa.literal(last[0], sa.BigInteger), last[1])
        query = sa.select(events).where(*where, events.c.time >= last[0], after).order_by(events.c.time, events.c.id)
        with store.read() as db:
            found = db.execute(query.limit(_AT_ONCE)).all()
        if not found:
            return
        last = found[-1].time, found[-1].id
        yield _lines([_written(row) for row in found])


def _written(row: sa.Row[Any]) -> list[str]:
    values = {
        **row._mapping,
        "time": moment(row.time).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "dollars": f"{row.micros // 10**6}.{row.micros % 10**6:06}",
        "key": row.key or "",
    }
    return [_safe(str(values[name])) for name in COLUMNS]


def _safe(text: str) -> str:
    """Nothing that a spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _lines(table: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue()
