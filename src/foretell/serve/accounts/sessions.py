"""Log-ins: a cookie of random bits, new at each, of which a digest is stored; time, log-out or a new password end it.

A cookie from before a log-in is never the one after it, so that nobody can be led to log in to a session that somebody
else knows. What takes a password takes as long as its hash, and is not for the threads of `Store.run`.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from foretell.errors import RequestError, StoreError
from foretell.serve.accounts import audit, links, passwords, people, slowing
from foretell.serve.accounts.account import COLUMNS, Account, account_of
from foretell.serve.accounts.secret import digest, mark
from foretell.serve.accounts.tables import attempts, sessions, users
from foretell.serve.accounts.tables import links as links_table
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

DAY = 86_400_000
IDLE, LONGEST = 3 * DAY, 30 * DAY
_MINUTE = 60_000


def log_in(store: Store, email: str, password: str, address: str, session: str | None = None) -> str:
    """A new session's cookie. session: the cookie that came with the call, which is ended.

    Raises RequestError: 401, in the same words and after the same work whether the address is unknown or the password
    wrong; SlowedError (429) after too many of either, by account or by network address.
    """
    try:
        cleaned = people.clean_email(email)
    except RequestError:
        cleaned = email[:254]
    with store.read() as db:
        account, address_bucket = f"account:{digest(db, 'email', cleaned)[:32]}", f"address:{mark(db, address)}"
        row = db.execute(sa.select(users.c.id, users.c.password).where(users.c.email == cleaned)).first()
    slowing.take(store, {account: slowing.ACCOUNT, address_bucket: slowing.ADDRESS})
    if not passwords.is_right(row.password if row else None, password) or row is None:
        raise _wrong()
    renewed = passwords.hashed(password) if passwords.is_dated(row.password) else row.password
    now = store.clock()
    with store.write() as db:
        # A password that was changed meanwhile has ended all sessions; this one would be left over.
        held = sa.update(users).where(users.c.id == row.id, users.c.password == row.password)
        if db.execute(held.values(password=renewed)).rowcount != 1:
            raise _wrong()
        slowing.forget(db, account)
        slowing.give_back(db, address_bucket, now)
        if session is not None:
            _end(db, session)
        cookie = _begin(db, row.id, address, now)
        audit.append(db, row.id, "session.begin", row.id, now=now)
        return cookie


def begin(store: Store, user: str, address: str, session: str | None = None) -> str:
    """A new session's cookie for whoever has proven who they are by a link. session: as of `log_in`."""
    now = store.clock()
    with store.write() as db:
        if session is not None:
            _end(db, session)
        cookie = _begin(db, user, address, now)
        audit.append(db, user, "session.begin", user, now=now)
        return cookie


def find(store: Store, session: str) -> Account | None:
    """The account whose session it is; None for one that is unknown, too old, or unused for too long.

    That it was used is written at most once a minute. Raises StoreError.
    """
    now = store.clock()
    with store.read() as db:
        sought = digest(db, "session", session)
        row = db.execute(
            sa.select(*COLUMNS, sessions.c.used, sessions.c.expires)
            .join(users, users.c.id == sessions.c.user)
            .where(sessions.c.digest == sought)
        ).first()
    if row is None or row.expires <= now or row.used + IDLE <= now:
        return None
    if now - row.used >= _MINUTE:
        try:
            with store.write() as db:
                stale = (sessions.c.digest == sought) & (sessions.c.used <= now - _MINUTE)
                db.execute(sa.update(sessions).where(stale).values(used=now))
        except StoreError:
            pass  # a session is good also where nothing can be written just now
    return account_of(row, now)


def end(store: Store, session: str) -> None:
    """Log out; of an unknown session nothing is said."""
    with store.write() as db:
        if (user := _end(db, session)) is not None:
            audit.append(db, user, "session.end", user, now=store.clock())


def end_all(db: sa.Connection, user: str) -> int:
    """End every session of a user and return how many there were."""
    return db.execute(sa.delete(sessions).where(sessions.c.user == user)).rowcount


def change_password(store: Store, user: str, old: str, new: str, address: str) -> str:
    """Set another password, end every session of the user, and return a new one's cookie.

    Raises RequestError: 400 for a password that is not taken, 401 for a wrong old one, 404; SlowedError (429).
    """
    with store.read() as db:
        row = db.execute(sa.select(users.c.email, users.c.password).where(users.c.id == user)).first()
        if row is None:
            raise people.no_user(user)
        account, address_bucket = f"account:{digest(db, 'email', row.email)[:32]}", f"address:{mark(db, address)}"
    passwords.check(new, row.email)
    slowing.take(store, {account: slowing.ACCOUNT, address_bucket: slowing.ADDRESS})
    if not passwords.is_right(row.password, old):
        raise refuse("The old password is wrong.", 401, param="old", code="wrong_password")
    hash, now = passwords.hashed(new), store.clock()
    with store.write() as db:
        set_password(db, user, hash, now=now, before=row.password)
        slowing.give_back(db, address_bucket, now)
        return _begin(db, user, address, now)


def set_password(db: sa.Connection, user: str, hash: str, *, now: int, before: str | None = None) -> None:
    """Store a password's hash, and end every session and link that an older password could have led to.

    before: the hash that it must replace still. Raises RequestError 409.
    """
    changed = sa.update(users).where(users.c.id == user).returning(users.c.email)
    if before is not None:
        changed = changed.where(users.c.password == before)
    email = db.execute(changed.values(password=hash)).scalar()
    if email is None:
        raise refuse("The password was changed by somebody else just now.", 409, code="password_changed")
    ended = end_all(db, user)
    links.void(db, "password", user)
    slowing.forget(db, f"account:{digest(db, 'email', email)[:32]}")
    audit.append(db, user, "user.password", user, {"sessions_ended": ended}, now=now)


def tidy(store: Store) -> int:
    """Remove sessions, links and counted attempts that are over, and return how many; for now and then."""
    now = store.clock()
    over = {
        sessions.c.digest: (sessions.c.expires <= now) | (sessions.c.used <= now - IDLE),
        links_table.c.digest: links_table.c.expires <= now,
        attempts.c.bucket: (attempts.c.last <= now - slowing.DAY) & (attempts.c.until <= now),
    }
    count = 0
    for key, is_over in over.items():
        # What somebody is at just now is left for the next time: to wait for it could be to wait for each other.
        free = sa.select(key).where(is_over).with_for_update(skip_locked=True)
        with store.write() as db:
            count += db.execute(sa.delete(key.table).where(key.in_(free))).rowcount
    return count


def _begin(db: sa.Connection, user: str, address: str, now: int) -> str:
    cookie = secrets.token_urlsafe(32)
    row = {"digest": digest(db, "session", cookie), "user": user, "address": mark(db, address)}
    db.execute(sa.insert(sessions).values(**row, created=now, used=now, expires=now + LONGEST))
    return cookie


def _end(db: sa.Connection, session: str) -> str | None:
    ended = sa.delete(sessions).where(sessions.c.digest == digest(db, "session", session))
    return db.execute(ended.returning(sessions.c.user)).scalar()


def _wrong() -> RequestError:
    return refuse("The e-mail address or the password is wrong.", 401, code="wrong_password")
