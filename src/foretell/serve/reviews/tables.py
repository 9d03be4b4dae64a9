"""Tables of what was flagged and what became of it. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.serve.store import metadata

_ID = sa.String(40)

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("user", _ID),  # None: no account called
    sa.Column("request", sa.String(128)),
    sa.Column("side", sa.String(8), nullable=False),  # input or output
    sa.Column("model", sa.String(256)),
    sa.Column("text", sa.Text),  # None: deleted, since its time was over
    sa.Column("categories", sa.JSON, nullable=False),  # the flagged ones
    sa.Column("scores", sa.JSON, nullable=False),
    sa.Column("action", sa.String(8), nullable=False),
    sa.Column("rule", sa.String(200)),
    sa.Column("open", sa.Boolean, nullable=False),  # a reviewer is to decide
    sa.Column("turn", sa.Integer, nullable=False),  # low ones first, as findings.TURNS has them
    sa.Column("claimed_by", _ID),
    sa.Column("claimed_until", sa.BigInteger),
    sa.Column("verdict", sa.String(12)),  # None: nobody decided yet
    sa.Column("decided_by", _ID),
    sa.Column("decided_at", sa.BigInteger),
    sa.Index("findings_by_time", "time"),
    sa.Index("findings_by_user", "user", "time"),
    sa.Index("findings_in_turn", "open", "turn", "time", "id"),
    sa.Index("findings_by_claim", "claimed_by", "claimed_until"),
)

strikes = sa.Table(
    "strikes",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("user", _ID, nullable=False),
    sa.Column("finding", _ID, sa.ForeignKey("findings.id"), nullable=False, unique=True),  # which strikes once
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("given_by", _ID),  # None: moderation alone
    sa.Column("step", sa.String(12), nullable=False),  # what the account came to by it
    sa.Column("overturned_at", sa.BigInteger),
    sa.Column("overturned_by", _ID),
    sa.Index("strikes_by_user", "user", "time"),
    sa.Index("strikes_by_time", "time"),
)

appeals = sa.Table(
    "appeals",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("strike", _ID, sa.ForeignKey("strikes.id"), nullable=False, unique=True),  # which is appealed once
    sa.Column("user", _ID, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("note", sa.Text),  # None: deleted, since its time was over
    sa.Column("verdict", sa.String(12)),  # None: not answered yet
    sa.Column("answer", sa.Text),
    sa.Column("answered_by", _ID),
    sa.Column("answered_at", sa.BigInteger),
    sa.Index("appeals_by_user", "user", "time"),
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("finding", _ID, sa.ForeignKey("findings.id"), nullable=False),
    sa.Column("reviewer", _ID, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("categories", sa.JSON, nullable=False),  # of OpenAI's schema, each true or false
    sa.Index("labels_by_finding", "finding", "time"),
)

standings = sa.Table(
    "standings",
    metadata,
    sa.Column("user", _ID, primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),  # as strikes last set it in users: what differs was set by hand
    sa.Column("until", sa.BigInteger),
    sa.Column("held", sa.String(16), nullable=False),  # by hand, whatever becomes of strikes
    sa.Column("held_until", sa.BigInteger),
    sa.Column("since", sa.BigInteger, nullable=False),  # strikes up to then count no more: a status was eased by hand
)

anomalies = sa.Table(
    "anomalies",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("subject", sa.String(64), nullable=False),  # a user, an address, a category
    sa.Column("began", sa.BigInteger, nullable=False),  # the hour that is odd
    sa.Column("seen", sa.Float, nullable=False),
    sa.Column("expected", sa.Float, nullable=False),
    sa.Column("chance", sa.Float, nullable=False),
    sa.Column("closed_by", _ID),
    sa.Column("closed_at", sa.BigInteger),
    sa.UniqueConstraint("kind", "subject", "began"),
    sa.Index("anomalies_by_time", "time"),
)

tallies = sa.Table(
    "tallies",  # what the servers counted, for the admin page
    metadata,
    sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),  # since 1970
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
