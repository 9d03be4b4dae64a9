"""The tables of limits and usage. Times are milliseconds since 1970 UTC, money is in micro-dollars."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.serve.store import metadata


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _text(name: str, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=primary_key, nullable=False)


meters = sa.Table(
    "limit_meters",  # where each user, key and tier stands
    metadata,
    _text("subject", True),  # an id of a user or key, or tier:NAME
    _number("requests"),  # levels of buckets, as limits.windows has them
    _number("requests_at"),
    _number("tokens"),
    _number("tokens_at"),
    _number("streams"),
    _number("day"),  # as windows.day_of: of the free messages
    _number("messages"),
    _number("month"),  # as windows.month_of: of what was spent
    _number("spent"),
    _number("held"),  # by calls that have not ended
)

marks = sa.Table(
    "limit_marks",  # one for each message in the window of a cap
    metadata,
    _text("user", True),
    _text("cap", True),
    sa.Column("time", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("reservation", True),
    _number("used"),  # in its window before it
    sqlite_with_rowid=False,
)

reservations = sa.Table(
    "limit_reservations",  # calls that have not ended
    metadata,
    _text("id", True),
    sa.Column("process", sa.Text, nullable=False, index=True),
    _text("user"),
    sa.Column("key", sa.Text),
    _text("tier"),
    _text("model"),
    _number("prompt_tokens"),
    _number("max_tokens"),
    _number("image_tokens"),
    _number("streams"),
    _number("free"),  # whether a free message was taken
    _number("day"),
    _number("held"),
    _number("key_held"),
    _number("tier_held"),
    _number("time"),
    _number("written"),  # completion tokens noted so far
)

processes = sa.Table(
    "limit_processes",  # servers, each with a lease that it renews
    metadata,
    _text("id", True),
    _text("place"),  # which process that is, as limits.leases tells it; "" where that cannot be told
    _number("beat"),
    sa.Column("load", sa.Float, nullable=False),
)

events = sa.Table(
    "usage_events",  # one for each call that ended
    metadata,
    _text("id", True),  # that of its reservation
    _number("time"),
    _text("user"),
    sa.Column("key", sa.Text),
    _text("tier"),
    _text("model"),
    _number("prompt_tokens"),
    _number("completion_tokens"),
    _number("image_tokens"),
    _number("cached_tokens"),
    _number("micros"),
    _number("free"),
    _text("status"),
    sa.Index("usage_events_by_user", "user", "time"),
    sa.Index("usage_events_by_time", "time"),
)

days = sa.Table(
    "usage_days",  # sums of events; those of all users together stand under the user ""
    metadata,
    _text("user", True),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("key", True),  # "" for the chat page
    _text("model", True),
    _number("calls"),
    _number("prompt_tokens"),
    _number("completion_tokens"),
    _number("image_tokens"),
    _number("cached_tokens"),
    _number("micros"),
    _number("charged"),  # of them what was not free
    sqlite_with_rowid=False,
)
