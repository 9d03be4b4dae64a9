"""The tables of accounts. Times are milliseconds since 1970 UTC, money is in micro-dollars; no token is held itself."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.serve.store import metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),  # as accounts.people.clean_email writes it
    sa.Column("password", sa.Text),  # argon2's own form; none before it is first set
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("tier", sa.String(40), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("status_until", sa.BigInteger),  # end of a suspension; none: until lifted
    sa.Column("images", sa.Boolean),  # none: as the tier says
    sa.Column("budget", sa.BigInteger),  # a calendar month; none: the tier's
    sa.Column("address", sa.String(32)),  # mark of the network address that signed up, by accounts.secret.mark
    sa.Column("created", sa.BigInteger, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("user", sa.String(40), sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("hint", sa.String(8), nullable=False),  # its last letters, for its owner to know it by
    sa.Column("scopes", sa.String(200), nullable=False),  # split by spaces, sorted
    sa.Column("budget", sa.BigInteger),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("used", sa.BigInteger),  # to the minute
    sa.Column("revoked", sa.BigInteger),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("user", sa.String(40), sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("address", sa.String(32)),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),  # to the minute
    sa.Column("expires", sa.BigInteger, nullable=False),
)

links = sa.Table(
    "links",  # what may be done once by whoever holds a token
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(40), nullable=False, index=True),  # of a user or of the waitlist; "" for none
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
)

waitlist = sa.Table(
    "waitlist",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("note", sa.String(1000), nullable=False),
    sa.Column("tier", sa.String(40)),  # given with the invitation
    sa.Column("joined", sa.BigInteger, nullable=False, index=True),
    sa.Column("invited", sa.BigInteger),
    sa.Column("accepted", sa.BigInteger),
    sa.Column("user", sa.String(40), sa.ForeignKey("users.id")),
)

attempts = sa.Table(
    "attempts",  # wrong passwords and the like, by whom or by what they were tried
    metadata,
    sa.Column("bucket", sa.String(64), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False, index=True),
    sa.Column("until", sa.BigInteger, nullable=False),  # refused before
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.BigInteger, nullable=False, index=True),
    sa.Column("actor", sa.String(80), nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("subject", sa.String(160), nullable=False, index=True),
    sa.Column("details", sa.Text),  # canonical JSON; none once redacted
    sa.Column("salt", sa.String(32)),  # goes with the details: without it their digest cannot be guessed at
    sa.Column("details_digest", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),  # of this row and the hash before it
)

audit_ends = sa.Table(
    "audit_ends",  # one row, from which the log goes on: a log cut off at either end does not fit it
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("before", sa.BigInteger, nullable=False),  # the last row that retention removed
    sa.Column("before_hash", sa.String(64), nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("last_hash", sa.String(64), nullable=False),
)
