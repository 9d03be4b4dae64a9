"""Ways to an account: the waitlist and its invitations, links for a password, and the first admin's link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from foretell.serve.accounts import audit, links, passwords, people, sessions, slowing
from foretell.serve.accounts.account import DEFAULT_TIER, new_id
from foretell.serve.accounts.secret import hold_secret, mark
from foretell.serve.accounts.tables import users, waitlist
from foretell.serve.refusals import refuse
from foretell.serve.store import Store, insert_once


@dataclass(frozen=True)
class Waiting:
    """An entry of the waitlist. Times in milliseconds, None for what has not come."""

    id: str
    email: str
    note: str
    tier: str | None
    joined: int
    invited: int | None
    accepted: int | None
    user: str | None


def join(store: Store, email: str, note: str, address: str) -> None:
    """Add an e-mail address to the list. Whether it is there already, or has an account, is not told.

    Raises RequestError 400; SlowedError (429) for many from one network address.
    """
    cleaned, note = people.clean_email(email), note.strip()
    if len(note) > 1000 or "\0" in note:
        raise refuse("A note has up to 1000 letters.", 400, param="note", code="invalid_note")
    with store.read() as db:
        bucket = f"join:{mark(db, address)}"
    slowing.take(store, {bucket: slowing.ADDRESS})
    now = store.clock()
    with store.write() as db:
        known = db.scalar(sa.select(users.c.id).where(users.c.email == cleaned))
        id = new_id("wait")
        if known is None and insert_once(db, waitlist, id=id, email=cleaned, note=note, joined=now):
            audit.append(db, id, "waitlist.join", id, now=now)


def listing(db: sa.Connection, *, all: bool = False, limit: int = 100, after: int = -1) -> Sequence[Waiting]:
    """Who waits, the longest first. all: those with an account too. after: only who joined later than that time."""
    query = sa.select(waitlist).where(waitlist.c.joined > after).order_by(waitlist.c.joined, waitlist.c.id).limit(limit)
    if not all:
        query = query.where(waitlist.c.accepted.is_(None))
    return [Waiting(**row._asdict()) for row in db.execute(query)]


def next_in_line(db: sa.Connection, count: int) -> list[Waiting]:
    """So many of those who were not invited yet, the longest waiting first."""
    query = sa.select(waitlist).where(waitlist.c.invited.is_(None), waitlist.c.accepted.is_(None))
    query = query.order_by(waitlist.c.joined, waitlist.c.id).limit(count)
    return [Waiting(**row._asdict()) for row in db.execute(query)]


def invite(db: sa.Connection, name: str, *, now: int, actor: str, tier: str = DEFAULT_TIER) -> str:
    """The token of an invitation for somebody on the list, to be sent to them; an older one is of no use any more.

    name: of an entry, its id or e-mail address. Raises RequestError: 404, or 409 where it was accepted.
    """
    wanted = waitlist.c.email == people.clean_email(name) if "@" in name else waitlist.c.id == name
    row = db.execute(sa.select(waitlist).where(wanted).with_for_update()).first()
    if row is None:
        raise refuse(f"{name[:254]} is not on the waitlist.", 404, code="not_waiting")
    if row.accepted is not None:
        raise refuse(f"{name[:254]} has accepted an invitation already.", 409, code="accepted")
    values = {"invited": now, "tier": people.clean_tier(tier)}
    db.execute(sa.update(waitlist).where(waitlist.c.id == row.id).values(**values))
    token = links.create(db, "invite", row.id, now=now)
    audit.append(db, actor, "waitlist.invite", row.id, {"tier": tier}, now=now)
    return token


def password_link(db: sa.Connection, user: str, *, now: int, actor: str) -> str:
    """A token by which a user sets a password, the first or a new one. Raises RequestError 404."""
    if people.find(db, user) is None:
        raise people.no_user(user)
    token = links.create(db, "password", user, now=now)
    audit.append(db, actor, "user.password-link", user, now=now)
    return token


def accept(store: Store, token: str, password: str, address: str) -> str:
    """Set the password that an invitation or a password link is for, and return the user's id.

    Of those who use one link at once, one can. Raises RequestError: 400 for a password that is not taken, 404 for a
    link that is of no use (any more), 409 where the e-mail address has got an account by another way.
    """
    with store.read() as db:
        purpose, subject = links.peek(db, token, "invite", "password", now=store.clock())
        held = waitlist if purpose == "invite" else users
        email = str(db.scalar(sa.select(held.c.email).where(held.c.id == subject)))
    passwords.check(password, email)
    hash, now = passwords.hashed(password), store.clock()
    with store.write() as db:
        purpose, subject = links.use(db, token, "invite", "password", now=now)
        if purpose == "password":
            sessions.set_password(db, subject, hash, now=now)
            return subject
        row = db.execute(sa.select(waitlist).where(waitlist.c.id == subject)).one()
        user = people.add(db, row.email, now=now, tier=row.tier or DEFAULT_TIER, password=hash, address=address)
        db.execute(sa.update(waitlist).where(waitlist.c.id == subject).values(accepted=now, user=user))
        return user


def first_link(store: Store) -> str | None:
    """A token by which somebody becomes the first admin; None where there is one who can log in.

    All such tokens are good until one is used: several servers that start at once each print theirs.
    """
    now = store.clock()
    with store.write() as db:
        return None if people.has_admin(db, now) else links.create(db, "first", now=now)


def admin_link(db: sa.Connection, *, now: int, actor: str) -> str:
    """A token by which somebody becomes a further admin."""
    token = links.create(db, "admin", now=now)
    audit.append(db, actor, "admin.link", "", now=now)
    return token


def become_admin(store: Store, token: str, email: str, password: str, address: str) -> str:
    """Open an admin's account by the token of `first_link` or `admin_link`, and return the user's id.

    Raises RequestError: 400, 404 for a link of no use (any more), 409 for an e-mail address that is taken.
    """
    cleaned = people.clean_email(email)
    passwords.check(password, cleaned)
    with store.read() as db:
        links.peek(db, token, "first", "admin", now=store.clock())
    hash, now = passwords.hashed(password), store.clock()
    with store.write() as db:
        hold_secret(db)  # so that of two first links that are used at once, one finds the other's admin
        purpose, _ = links.use(db, token, "first", "admin", now=now)
        if purpose == "first" and people.has_admin(db, now):
            raise links.spent()
        user = people.add(db, cleaned, now=now, role="admin", password=hash, address=address)
        if purpose == "first":
            links.void(db, "first", "")
        return user
