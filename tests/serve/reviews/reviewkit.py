"""What tests of reviews share: flagged texts, and who looks at them."""

from __future__ import annotations

from itertools import count
from typing import Any

import sqlalchemy as sa

from foretell.safety.strikes import Ladder
from foretell.serve.accounts.tables import users
from foretell.serve.reviews.findings import Recorded, record
from foretell.serve.reviews.tables import findings
from foretell.serve.store import Store

LADDER = Ladder()


_TURNS = count()


def flag(store: Store, user: str | None, action: str = "block", text: str | None = None, **fields: Any) -> Recorded:
    """A finding; of a text of its own unless one is given, since the same one strikes once."""
    text = f"something bad {next(_TURNS)}" if text is None else text
    values = {"side": "input", "categories": ["hate"], "scores": {"hate": 0.9, "violence": 0.1}, **fields}
    return record(store, LADDER, text, user=user, action=action, **values)


def take(store: Store, reviewer: str, id: str) -> None:
    """As `claim`, but of a case that is named."""
    with store.write() as db:
        values = {"claimed_by": reviewer, "claimed_until": store.clock() + 900_000}
        assert (
            db.execute(sa.update(findings).where(findings.c.id == id, findings.c.open).values(**values)).rowcount == 1
        )


def status(store: Store, user: str) -> tuple[str, int | None]:
    with store.read() as db:
        row = db.execute(sa.select(users.c.status, users.c.status_until).where(users.c.id == user)).one()
    return row.status, row.status_until


def set_by_hand(store: Store, user: str, status: str, until: int | None = None) -> None:
    with store.write() as db:
        db.execute(sa.update(users).where(users.c.id == user).values(status=status, status_until=until))
