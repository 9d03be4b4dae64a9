"""Users: who they are, what they may do, and how they stand."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.errors import RequestError
from foretell.serve.accounts import audit, passwords, slowing
from foretell.serve.accounts.account import DEFAULT_TIER, ROLES, STATUSES, Role, Status, new_id, status_of
from foretell.serve.accounts.secret import mark
from foretell.serve.accounts.tables import users
from foretell.serve.refusals import refuse
from foretell.serve.store import Store, insert_once

_TIER = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MOST = 10**15  # micro-dollars


@dataclass(frozen=True)
class Person:
    """A user as admins see them. status: as it is now. budget: micro-dollars a month. can_log_in: has a password."""

    id: str
    email: str
    role: Role
    tier: str
    status: Status
    status_until: int | None
    images: bool | None
    budget: int | None
    created: int
    can_log_in: bool


def clean_email(email: str) -> str:
    """An e-mail address in the one way it is stored. Raises RequestError 400 for what is none."""
    cleaned = unicodedata.normalize("NFKC", email.strip()).casefold()
    name, _, host = cleaned.rpartition("@")
    plain = cleaned.isprintable() and not re.search(r"[\s<>()\[\],;:\"\\]", cleaned)
    if not name or "@" in name or not host or not plain or len(cleaned) > 254 or host[0] in ".-" or ".." in host:
        raise refuse("That is no e-mail address, such as ada@example.org.", 400, param="email", code="invalid_email")
    return cleaned


def add(
    db: sa.Connection,
    email: str,
    *,
    now: int,
    actor: str | None = None,
    role: Role = "user",
    tier: str = DEFAULT_TIER,
    password: str | None = None,
    address: str | None = None,
) -> str:
    """A new user's id. password: its hash; None where one is set later by a link. address: that signed up.

    actor: who adds them, where they do not themselves. Raises RequestError: 400 for what cannot be, 409 for an e-mail
    address that is taken.
    """
    _one_of(role, ROLES, "role")
    id = new_id("user")
    row = {
        "id": id, "email": clean_email(email), "password": password, "role": role, "tier": clean_tier(tier),
        "status": "active", "address": None if address is None else mark(db, address), "created": now,
    }  # fmt: skip
    if not insert_once(db, users, **row):
        raise refuse("There is an account with this e-mail address already.", 409, param="email", code="email_taken")
    audit.append(db, actor or id, "user.create", id, {"role": role, "tier": tier}, now=now)
    return id


def sign_up(store: Store, email: str, password: str, address: str, tier: str = DEFAULT_TIER) -> str:
    """A new user's id, where anybody may open an account. Takes as long as a hash; attempts are slowed by address.

    Raises RequestError: 400 for what cannot be, 409 for an e-mail address that is taken, 429 for too many.
    """
    cleaned = clean_email(email)
    passwords.check(password, cleaned)
    with store.read() as db:
        bucket = f"sign-up:{mark(db, address)}"
    slowing.take(store, {bucket: slowing.ADDRESS})
    hash = passwords.hashed(password)
    with store.write() as db:
        return add(db, cleaned, now=store.clock(), tier=tier, password=hash, address=address)


def find(db: sa.Connection, user: str, now: int = 0) -> Person | None:
    """A user by id. now: at which the status is told."""
    row = db.execute(sa.select(users).where(users.c.id == user)).first()
    return None if row is None else _person(row, now)


def named(db: sa.Connection, name: str, now: int = 0) -> Person:
    """A user by e-mail address or id. Raises RequestError 404."""
    wanted = users.c.email == clean_email(name) if "@" in name else users.c.id == name
    row = db.execute(sa.select(users).where(wanted)).first()
    if row is None:
        raise no_user(name)
    return _person(row, now)


def listing(db: sa.Connection, text: str = "", after: str = "", limit: int = 50, now: int = 0) -> list[Person]:
    """Users whose e-mail address or id holds `text`, by e-mail address, from the one after `after`."""
    text = text.replace("\0", "")  # which PostgreSQL does not take
    holds = users.c.email.contains(text.casefold(), autoescape=True) | (users.c.id == text)
    query = sa.select(users).where(users.c.email > after, holds).order_by(users.c.email).limit(limit)
    return [_person(row, now) for row in db.execute(query)]


def set_role(db: sa.Connection, user: str, role: Role, *, now: int, actor: str) -> None:
    """Raises RequestError: 400, 404, or 409 for the last admin."""
    _one_of(role, ROLES, "role")
    if role != "admin":
        _keep_an_admin(db, user, now)
    _change(db, user, "user.role", {"role": role}, now=now, actor=actor)


def set_tier(db: sa.Connection, user: str, tier: str, *, now: int, actor: str) -> None:
    """tier: a name; whoever calls knows which there are. Raises RequestError: 400 or 404."""
    _change(db, user, "user.tier", {"tier": clean_tier(tier)}, now=now, actor=actor)


def set_status(
    db: sa.Connection, user: str, status: Status, *, now: int, actor: str, until: int | None = None, reason: str = ""
) -> None:
    """until: when a suspension ends, None for not by itself. reason: for the log.

    Sessions and keys stay: whoever is kept out may still log in to appeal, and nothing else is answered.
    Raises RequestError: 400, 404, or 409 for the last admin.
    """
    _one_of(status, STATUSES, "status")
    if until is not None and (status != "suspended" or until <= now):
        raise refuse("Only a suspension has an end, and it lies ahead.", 400, param="until", code="invalid_until")
    if status in ("suspended", "banned"):
        _keep_an_admin(db, user, now)
    values = {"status": status, "status_until": until}
    _change(db, user, "user.status", values, now=now, actor=actor, more={"reason": reason[:1000]})


def set_budget(db: sa.Connection, user: str, budget: int | None, *, now: int, actor: str) -> None:
    """budget: micro-dollars a calendar month; None: the tier's. Raises RequestError: 400 or 404."""
    if budget is not None and not 0 <= budget <= _MOST:
        raise refuse(
            "A budget is 0 or more dollars a month, below a billion.", 400, param="budget", code="invalid_budget"
        )
    _change(db, user, "user.budget", {"budget": budget}, now=now, actor=actor)


def set_images(db: sa.Connection, user: str, images: bool | None, *, now: int, actor: str) -> None:
    """images: whether calls may hold them; None: as the tier says. Raises RequestError 404."""
    _change(db, user, "user.images", {"images": images}, now=now, actor=actor)


def has_admin(db: sa.Connection, now: int) -> bool:
    """Whether somebody can log in and administer."""
    return bool(_admins(db, now, hold=False))


def clean_tier(tier: str) -> str:
    if not _TIER.fullmatch(tier):
        text = f"{tier[:60]!r} is no tier's name: up to 40 of a to z, 0 to 9, - and _."
        raise refuse(text, 400, param="tier", code="invalid_tier")
    return tier


def no_user(name: str) -> RequestError:
    return refuse(f"There is no user {name[:254]}.", 404, code="user_not_found")


def _change(
    db: sa.Connection, user: str, action: str, values: dict[str, Any], *, now: int, actor: str,
    more: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    row = db.execute(sa.select(users).where(users.c.id == user).with_for_update()).first()
    if row is None:
        raise no_user(user)
    before = {f"{name}_before": getattr(row, name) for name in values}
    db.execute(sa.update(users).where(users.c.id == user).values(**values))
    audit.append(db, actor, action, user, values | before | (more or {}), now=now)


def _keep_an_admin(db: sa.Connection, user: str, now: int) -> None:
    admins = _admins(db, now, hold=True)
    if admins == [user]:
        text = "This is the only admin who can log in. Make another one first: foretell admin link"
        raise refuse(text, 409, code="last_admin")


def _admins(db: sa.Connection, now: int, *, hold: bool) -> list[str]:
    """Ids of admins who can log in. hold: until the end of the transaction, so that no two end each other's."""
    query = sa.select(users).where(users.c.role == "admin", users.c.password.is_not(None)).order_by(users.c.id)
    rows = db.execute(query.with_for_update() if hold else query)
    return [row.id for row in rows if status_of(row.status, row.status_until, now) in ("active", "warned")]


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        text = f"{value[:40]!r} is no {what}; there are {', '.join(allowed)}."
        raise refuse(text, 400, param=what, code=f"invalid_{what}")


def _person(row: sa.Row[*tuple[Any, ...]], now: int) -> Person:
    return Person(
        row.id, row.email, row.role, row.tier, status_of(row.status, row.status_until, now), row.status_until,
        row.images, row.budget, row.created, row.password is not None,
    )  # fmt: skip
