"""Strikes of accounts, and the status that they bring an account to and lift again.

A status that somebody sets by hand holds beside them: strikes may make it more severe, and their being overturned or
running out does not ease it. One that is eased by hand wipes the slate: earlier strikes count no more. Strikes warn an
admin and no more, since the last one who could lift a ban would be locked out by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from foretell.safety.strikes import DAY, STATUSES, Ladder, Standing, Status, Strike, standing
from foretell.serve.accounts import audit, people
from foretell.serve.accounts.account import new_id, status_of
from foretell.serve.accounts.tables import users
from foretell.serve.reviews.cases import Given, given_of
from foretell.serve.reviews.tables import standings, strikes
from foretell.serve.store import Store, insert_once

_SERVER = "server"  # who acts in the audit log where no person does


@dataclass(frozen=True)
class _Held:
    """status, until: as strikes last left them. held, held_until: set by hand. since: earlier strikes do not count.
    mildly: strikes may warn and no more."""

    status: Status = "active"
    until: int | None = None
    held: Status = "active"
    held_until: int | None = None
    since: int = 0
    mildly: bool = False


def strikes_of(store: Store, user: str) -> list[Given]:
    """The strikes of an account, the latest first, with those that are overturned."""
    with store.read() as db:
        query = sa.select(strikes).where(strikes.c.user == user).order_by(strikes.c.time.desc(), strikes.c.id)
        return [given_of(row) for row in db.execute(query).mappings()]


def strike(
    db: sa.Connection,
    ladder: Ladder,
    user: str,
    finding: str,
    categories: Iterable[str],
    *,
    now: int,
    given_by: str | None = None,
) -> Standing | None:
    """Strike an account for a finding, and bring it to the status that follows. given_by None: moderation alone.

    None, with nothing done, where the finding struck already, or there is no such account: of calls that come at once
    one changes the status.
    """
    held = _hold(db, user, now)
    if held is None or db.scalar(sa.select(strikes.c.id).where(strikes.c.finding == finding)) is not None:
        return None
    if not (weight := ladder.weight(categories)):
        return None
    past = _history(db, user, held.since)
    now = max([now, *(s.time for s in past)])  # servers' clocks differ
    after = _eased(held, standing([*past, Strike(now, weight)], ladder, now))
    id = new_id("strike")
    given = {"id": id, "user": user, "finding": finding, "time": now, "weight": weight, "given_by": given_by}
    if not insert_once(db, strikes, **given, step=after.status):
        return None
    details = {"strike": id, "finding": finding, "weight": weight, "strikes": after.strikes, "status": after.status}
    audit.append(db, given_by or _SERVER, "strike.give", user, {**details, "until": after.until}, now=now)
    _set(db, user, held, after, given_by or _SERVER, now)
    return after


def overturn_strike(db: sa.Connection, ladder: Ladder, id: str, by: str, *, now: int) -> Standing | None:
    """Take a strike back, and lift what it led to where neither another strike nor a hand holds it. None: it was
    taken back already."""
    user = db.scalar(sa.select(strikes.c.user).where(strikes.c.id == id))
    held = _hold(db, user, now) if user is not None else None
    if user is None or held is None:
        return None
    fresh = sa.update(strikes).where(strikes.c.id == id, strikes.c.overturned_at.is_(None))
    if not db.execute(fresh.values(overturned_at=now, overturned_by=by)).rowcount:
        return None
    after = _standing(db, ladder, user, held, now)
    details = {"strike": id, "strikes": after.strikes, "status": after.status}
    audit.append(db, by, "strike.overturn", user, details, now=now)
    _set(db, user, held, after, by, now)
    return after


def refresh(store: Store, ladder: Ladder) -> int:
    """Lift what has run out: suspensions, and warnings whose strikes count no more. How many accounts changed.

    A suspension ends by itself at its time (accounts.account.status_of); this writes it down.
    """
    with store.read() as db:
        now = store.clock()
        counts = strikes.c.overturned_at.is_(None) & (strikes.c.time > now - round(ladder.expires_days * DAY))
        struck = sa.exists().where(strikes.c.user == standings.c.user, counts)
        lapsed = (standings.c.status == "warned") & (standings.c.held != "warned") & ~struck
        over = (standings.c.status == "suspended") & (standings.c.until <= now)
        found = list(db.scalars(sa.select(standings.c.user).where(lapsed | over)))
    changed = 0
    for user in found:
        with store.write() as db:
            now = store.clock()
            if (held := _hold(db, user, now)) is not None:
                after = _standing(db, ladder, user, held, now)
                changed += _set(db, user, held, after, _SERVER, now)
    return changed


def _hold(db: sa.Connection, user: str, now: int) -> _Held | None:
    """Lock an account for this transaction, and see what was set by hand since strikes last set its status."""
    query = sa.select(users.c.status, users.c.status_until, users.c.role).where(users.c.id == user)
    row = db.execute(query.with_for_update()).first()
    if row is None:
        return None
    known, mildly = _known(db, user), row.role == "admin"
    found, left = _rank(row.status, row.status_until, now), _rank(known.status, known.until, now)
    if found == left:
        return replace(known, mildly=mildly)
    since = now - 1 if found < left else known.since
    return _Held(row.status, row.status_until, row.status, row.status_until, since, mildly)


def _known(db: sa.Connection, user: str) -> _Held:
    row = db.execute(sa.select(standings).where(standings.c.user == user)).mappings().first()
    return _Held(**{name: value for name, value in row.items() if name != "user"}) if row else _Held()


def _history(db: sa.Connection, user: str, since: int) -> list[Strike]:
    rows = db.execute(
        sa.select(strikes.c.time, strikes.c.weight, strikes.c.overturned_at)
        .where(strikes.c.user == user, strikes.c.time > since)
    )  # fmt: skip
    return [Strike(row.time, row.weight, row.overturned_at is not None) for row in rows]


def _standing(db: sa.Connection, ladder: Ladder, user: str, held: _Held, now: int) -> Standing:
    history = _history(db, user, held.since)
    return _eased(held, standing(history, ladder, max([now, *(s.time for s in history)])))


def _eased(held: _Held, found: Standing) -> Standing:
    return Standing("warned", None, found.strikes) if held.mildly and found.status in ("suspended", "banned") else found


def _set(db: sa.Connection, user: str, held: _Held, after: Standing, actor: str, now: int) -> bool:
    """The more severe of what is held by hand and what strikes come to. True where the status changed by that."""
    by_hand = _rank(held.held, held.held_until, now) > _rank(after.status, after.until, now)
    status = status_of(held.held, held.held_until, now) if by_hand else after.status
    until = (held.held_until if by_hand else after.until) if status == "suspended" else None
    values: dict[str, Any] = {"status": status, "until": until, "since": held.since}
    values |= {"held": held.held, "held_until": held.held_until}
    if not insert_once(db, standings, user=user, **values):
        db.execute(sa.update(standings).where(standings.c.user == user).values(**values))
    if (status, until) == (held.status, held.until):
        return False
    people.set_status(db, user, status, now=now, actor=actor, until=until, reason="strikes")
    return True


def _rank(status: Status, until: int | None, now: int) -> tuple[int, float]:
    """How severe a status is at a time, and how long it lasts; a suspension without an end outlasts all others."""
    at = status_of(status, until, now)
    ends = float("inf") if until is None else float(until)
    return STATUSES.index(at), ends if at == "suspended" else 0.0
