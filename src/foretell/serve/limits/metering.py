"""What calls have used: an event for each, and sums by day that are kept with it."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa

from foretell.generate import Usage
from foretell.serve.limits.statements import SUMS, Statements
from foretell.serve.limits.tables import events
from foretell.serve.limits.windows import day_of

Status = Literal["done", "broken", "recovered"]
"""broken: ended early, by the caller or a failure. recovered: its server died; counted by what that had noted."""


def record(
    db: sa.Connection,
    do: Statements,
    call: sa.Row[Any],
    usage: Usage,
    cost: int,
    status: Status,
    now: int,
    before: sa.Row[Any] | None = None,
) -> None:
    """An event, and the sums of its day. call: a reservation. before: the event that this one takes the place of."""
    counts = {
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
        "image_tokens": usage.image_tokens, "cached_tokens": usage.cached_tokens, "micros": cost,
    }  # fmt: skip
    if before is None:
        whose = {"user": call.user, "key": call.key, "tier": call.tier, "model": call.model, "free": call.free}
        db.execute(do.event, {"id": call.id, "time": now, "status": status, **whose, **counts})
        sums = {"calls": 1, **counts, "charged": 0 if call.free else cost}
    else:
        now = before.time
        db.execute(sa.update(events).where(events.c.id == before.id).values(status=status, **counts))
        sums = {name: counts[name] - getattr(before, name) for name in SUMS if name in counts} | {"calls": 0}
        sums["charged"] = 0 if call.free else sums["micros"]
    of = {"day": day_of(now), "model": call.model, **sums}
    # Everyone's sum last: many wait for it, so it is held for the shortest time.
    db.execute(do.days, [{"user": call.user, "key": call.key or "", **of}, {"user": "", "key": "", **of}])


def recorded(db: sa.Connection, id: str) -> sa.Row[Any] | None:
    """The event of a call, locked until the transaction ends."""
    return db.execute(sa.select(events).where(events.c.id == id).with_for_update()).first()
