"""Keys of the API: shown once, stored as digests, found in constant time."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.errors import StoreError
from foretell.serve.accounts import audit
from foretell.serve.accounts.account import COLUMNS, SCOPES, Account, account_of, new_id
from foretell.serve.accounts.secret import digest
from foretell.serve.accounts.tables import keys, users
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

PREFIX = "sk-ft-"
DEFAULT_SCOPES = ("inference", "usage")
MOST = 100  # of one user that can be used
_MINUTE = 60_000
_LONGEST = 512  # letters of a key that is looked for; ours have 49


@dataclass(frozen=True)
class Key:
    """A key as its owner sees it. hint: its last letters. Times in milliseconds, budget in micro-dollars a month."""

    id: str
    user: str
    name: str
    hint: str
    scopes: frozenset[str]
    budget: int | None
    created: int
    expires: int | None
    used: int | None
    revoked: int | None

    def state(self, now: int) -> str:
        """usable, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "usable"


def create(
    db: sa.Connection,
    user: str,
    name: str,
    *,
    now: int,
    scopes: Collection[str] = DEFAULT_SCOPES,
    expires: int | None = None,
    budget: int | None = None,
    actor: str | None = None,
) -> tuple[str, str]:
    """A new key's id, and the key itself, which is nowhere afterwards. actor: who makes it, where not its user.

    Raises RequestError: 404 for no such user, 400 for what cannot be given, 409 where the user has MOST.
    """
    name = " ".join(name.split())
    # The user's row is held, so that of two made at once the second sees the first.
    role = db.scalar(sa.select(users.c.role).where(users.c.id == user).with_for_update())
    if role is None:
        raise refuse(f"There is no user {user}.", 404, code="user_not_found")
    if not name or len(name) > 80 or not name.isprintable():
        raise refuse("A key needs a name of 1 to 80 letters.", 400, param="name", code="invalid_name")
    if excess := set(scopes) - set(SCOPES[role]):
        allowed = ", ".join(SCOPES[role])
        text = f"A key of a {role} cannot have the scope {min(excess)!r}; allowed are {allowed}."
        raise refuse(text, 400, param="scopes", code="invalid_scope")
    if not scopes:
        raise refuse("A key needs a scope, such as inference.", 400, param="scopes", code="invalid_scope")
    if expires is not None and expires <= now:
        raise refuse("The key would have expired already.", 400, param="expires", code="invalid_expiry")
    if budget is not None and budget < 0:
        raise refuse("A budget cannot be negative.", 400, param="budget", code="invalid_budget")
    usable = (keys.c.user == user) & keys.c.revoked.is_(None) & (keys.c.expires.is_(None) | (keys.c.expires > now))
    if (db.scalar(sa.select(sa.func.count()).where(usable)) or 0) >= MOST:
        raise refuse(f"There are {MOST} keys already. Revoke one first.", 409, code="too_many_keys")
    id, secret = new_id("key"), PREFIX + secrets.token_urlsafe(32)
    granted = " ".join(sorted(scopes))
    row = {
        "id": id, "user": user, "name": name, "digest": digest(db, "key", secret), "hint": secret[-4:],
        "scopes": granted, "budget": budget, "created": now, "expires": expires,
    }  # fmt: skip
    db.execute(sa.insert(keys).values(**row))
    audit.append(db, actor or user, "key.create", id, {"user": user, "scopes": granted}, now=now)
    return id, secret


def find(store: Store, secret: str) -> Account | None:
    """The account that a key belongs to; None for one that is unknown, expired or revoked.

    Constant-time: what is looked up is a digest under the server's secret, so that the time it takes tells nothing of
    how much of a guess was right. That it was used is written at most once a minute.
    Raises StoreError.
    """
    now = store.clock()
    if len(secret) > _LONGEST:
        return None
    with store.read() as db:
        sought = digest(db, "key", secret)
        row = db.execute(
            sa.select(*COLUMNS, keys.c.id, keys.c.digest, keys.c.scopes, keys.c.budget, keys.c.expires, keys.c.used)
            .join(users, users.c.id == keys.c.user)
            .where(keys.c.digest == sought, keys.c.revoked.is_(None))
        ).first()
    if row is None or not hmac.compare_digest(row.digest, sought) or (row.expires is not None and row.expires <= now):
        return None
    if row.used is None or now - row.used >= _MINUTE:
        _note_use(store, row.id, now)
    return account_of(row, now, key=row.id, scopes=row.scopes.split(), key_budget=row.budget)


def of_user(db: sa.Connection, user: str | None = None) -> list[Key]:
    """A user's keys, or all, the newest first."""
    query = sa.select(keys).order_by(keys.c.created.desc(), keys.c.id)
    return [_key(row) for row in db.execute(query if user is None else query.where(keys.c.user == user))]


def revoke(db: sa.Connection, key: str, *, now: int, user: str | None = None, actor: str | None = None) -> None:
    """End a key for ever; one that is ended stays so. user: only where it is theirs.

    Raises RequestError 404 for a key that is not there, or not theirs, alike.
    """
    mine = keys.c.id == key if user is None else (keys.c.id == key) & (keys.c.user == user)
    row = db.execute(sa.select(keys.c.user, keys.c.revoked).where(mine).with_for_update()).first()
    if row is None:
        raise refuse(f"There is no key {key}.", 404, code="key_not_found")
    if row.revoked is None:
        db.execute(sa.update(keys).where(keys.c.id == key).values(revoked=now))
        audit.append(db, actor or row.user, "key.revoke", key, {"user": row.user}, now=now)


def _note_use(store: Store, key: str, now: int) -> None:
    stale = keys.c.used.is_(None) | (keys.c.used <= now - _MINUTE)
    try:
        with store.write() as db:
            db.execute(sa.update(keys).where(keys.c.id == key, stale).values(used=now))
    except StoreError:
        pass  # a key is good also where nothing can be written just now


def _key(row: sa.Row[*tuple[Any, ...]]) -> Key:
    return Key(
        row.id, row.user, row.name, row.hint, frozenset(row.scopes.split()), row.budget, row.created, row.expires,
        row.used, row.revoked,
    )  # fmt: skip
