"""The statements that take limits and give them back, each atomic by itself, for SQLite and PostgreSQL.

`take` is one conditional upsert of a subject's meter: all limits in it are taken, or no row comes back. It locks that
row until the transaction ends, and every call takes its user's meter first, so that on PostgreSQL the count within
`mark` misses no message of the same user (SQLite has one writer at a time anyway). Statements are built once, since
building one costs more than running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from foretell.serve.limits.tables import days, events, marks, meters, processes, reservations
from foretell.serve.limits.windows import DAY

SUMS = ("calls", "prompt_tokens", "completion_tokens", "image_tokens", "cached_tokens", "micros", "charged")


def _p(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)


def _t(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text)


_ZERO: sa.ColumnElement[int] = sa.literal_column("0", sa.BigInteger)


@dataclass(frozen=True)
class Statements:
    """take: parameters whose, now, this_day, this_month; {requests,tokens}_{rate,cost,most}, the latter two as levels
    of buckets; {streams,quota,money}_{cost,most}. give: whose, now, this_month, tokens_rate, tokens_more (a level,
    negative for what is given back), streams_less, quota_less, free_day, spent_more, held_less.
    """

    take: Any
    give: Any
    mark: Any
    unmark: Any
    forget: Any
    open: Any
    close: Any
    note: Any
    beat: Any
    event: Any
    days: Any


def statements(is_sqlite: bool) -> Statements:
    upsert: Any = sqlite.insert if is_sqlite else postgresql.insert
    return Statements(
        take=_take(upsert, is_sqlite),
        give=_give(upsert, is_sqlite),
        mark=_mark(),
        unmark=sa.delete(marks).where(marks.c.user == _t("whose"), marks.c.reservation == _t("which")),
        forget=sa.delete(marks).where(
            marks.c.user == _t("whose"), marks.c.cap == _t("which"), marks.c.time <= _p("edge")
        ),
        open=sa.insert(reservations),
        close=sa.delete(reservations).where(reservations.c.id == _t("which")).returning(*reservations.c),
        note=sa.update(reservations).where(reservations.c.id == _t("which")).values(written=_p("count")),
        beat=_replace(upsert, processes, "id"),
        event=sa.insert(events),
        days=_add_up(upsert),
    )


def _greatest(is_sqlite: bool, *values: Any) -> sa.ColumnElement[int]:
    return (sa.func.max if is_sqlite else sa.func.greatest)(*values, type_=sa.BigInteger)


def _least(is_sqlite: bool, *values: Any) -> sa.ColumnElement[int]:
    return (sa.func.min if is_sqlite else sa.func.least)(*values, type_=sa.BigInteger)


def _drained(is_sqlite: bool, kind: str) -> sa.ColumnElement[int]:
    """limits.windows.level_at, of a meter's bucket."""
    level, since = meters.c[kind], meters.c[f"{kind}_at"]
    passed = _greatest(is_sqlite, _least(is_sqlite, _p("now") - since, sa.literal_column(str(DAY))), _ZERO)
    return _greatest(is_sqlite, level - _p(f"{kind}_rate") * passed, _ZERO)


def _take(upsert: Any, is_sqlite: bool) -> Any:
    m, now, day, month = meters.c, _p("now"), _p("this_day"), _p("this_month")
    requests = _drained(is_sqlite, "requests") + _p("requests_cost")
    tokens = _drained(is_sqlite, "tokens") + _p("tokens_cost")
    streams = m.streams + _p("streams_cost")
    # Where the clock went back over midnight or a month's end, the later one goes on.
    messages = sa.case((m.day >= day, m.messages), else_=_ZERO) + _p("quota_cost")
    spent = sa.case((m.month >= month, m.spent), else_=_ZERO)
    held = m.held + _p("money_cost")
    first: dict[str, Any] = {
        "subject": _t("whose"), "requests": _p("requests_cost"), "requests_at": now, "tokens": _p("tokens_cost"),
        "tokens_at": now, "streams": _p("streams_cost"), "day": day, "messages": _p("quota_cost"), "month": month,
        "spent": _ZERO, "held": _p("money_cost"),
    }  # fmt: skip
    return (
        upsert(meters)
        .values(first)
        .on_conflict_do_update(
            index_elements=[m.subject],
            set_={
                "requests": requests, "requests_at": _greatest(is_sqlite, m.requests_at, now),
                "tokens": tokens, "tokens_at": _greatest(is_sqlite, m.tokens_at, now),
                "streams": streams, "day": _greatest(is_sqlite, m.day, day), "messages": messages,
                "month": _greatest(is_sqlite, m.month, month), "spent": spent, "held": held,
            },
            where=sa.and_(
                requests <= _p("requests_most"),
                tokens <= _p("tokens_most"),
                streams <= _p("streams_most"),
                messages <= _p("quota_most"),
                spent + held <= _p("money_most"),
            ),
        )
        .returning(*m)
    )  # fmt: skip


def _give(upsert: Any, is_sqlite: bool) -> Any:
    m, now, month = meters.c, _p("now"), _p("this_month")
    first: dict[str, Any] = dict.fromkeys(("requests", "tokens", "streams", "day", "messages", "held"), _ZERO)
    first |= {"subject": _t("whose"), "requests_at": now, "tokens_at": now, "month": month, "spent": _p("spent_more")}
    given = sa.case((m.day == _p("free_day"), m.messages - _p("quota_less")), else_=m.messages)
    return (
        upsert(meters)
        .values(first)
        .on_conflict_do_update(
            index_elements=[m.subject],
            set_={
                "tokens": _greatest(is_sqlite, _drained(is_sqlite, "tokens") + _p("tokens_more"), _ZERO),
                "tokens_at": _greatest(is_sqlite, m.tokens_at, now),
                "streams": _greatest(is_sqlite, m.streams - _p("streams_less"), _ZERO),
                "messages": _greatest(is_sqlite, given, _ZERO),
                "month": _greatest(is_sqlite, m.month, month),
                "spent": sa.case((m.month >= month, m.spent), else_=_ZERO) + _p("spent_more"),
                "held": _greatest(is_sqlite, m.held - _p("held_less"), _ZERO),
            },
        )
    )


def _mark() -> Any:
    """A message in a cap's window, where fewer than `most` are in it."""
    user, cap = _t("whose"), _t("which")
    counted = (
        sa.select(sa.func.count().label("used"))
        .where(marks.c.user == user, marks.c.cap == cap, marks.c.time > _p("edge"))
        .subquery("counted")
    )
    row = sa.select(user, cap, _p("now"), _t("reserved"), counted.c.used).where(counted.c.used < _p("most"))
    return sa.insert(marks).from_select(["user", "cap", "time", "reservation", "used"], row).returning(marks.c.used)


def _replace(upsert: Any, table: sa.Table, key: str) -> Any:
    made = upsert(table)
    rest = {column.name: made.excluded[column.name] for column in table.c if column.name != key}
    return made.on_conflict_do_update(index_elements=[key], set_=rest)


def _add_up(upsert: Any) -> Any:
    made = upsert(days)
    sums = {name: days.c[name] + made.excluded[name] for name in SUMS}
    return made.on_conflict_do_update(index_elements=["user", "day", "key", "model"], set_=sums)
