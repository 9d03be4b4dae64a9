"""Links that do one thing once, for whoever holds them: open an account, set a password, become admin."""

from __future__ import annotations

import secrets
from typing import Literal

import sqlalchemy as sa

from foretell.errors import RequestError
from foretell.serve.accounts.secret import digest
from foretell.serve.accounts.tables import links
from foretell.serve.refusals import refuse

Purpose = Literal["invite", "password", "admin", "first"]
DAY = 86_400_000
LASTS: dict[Purpose, int] = {"invite": 14 * DAY, "password": 3 * DAY, "admin": DAY, "first": DAY}
PAGES: dict[Purpose, str] = {"invite": "/join", "password": "/join", "admin": "/first", "first": "/first"}
"""The page that takes a token, as ?token=…"""


def create(db: sa.Connection, purpose: Purpose, subject: str = "", *, now: int) -> str:
    """A token, of which the database keeps a digest. Those given to the same subject before are of no use any more."""
    if subject:
        void(db, purpose, subject)
    token = secrets.token_urlsafe(32)
    row = {"digest": digest(db, "link", token), "purpose": purpose, "subject": subject}
    db.execute(sa.insert(links).values(**row, created=now, expires=now + LASTS[purpose]))
    return token


def peek(db: sa.Connection, token: str, *purposes: Purpose, now: int) -> tuple[Purpose, str]:
    """(purpose, subject) of a token, which stays good. Raises RequestError 404."""
    row = db.execute(
        sa.select(links.c.purpose, links.c.subject).where(
            links.c.digest == digest(db, "link", token), links.c.purpose.in_(purposes), links.c.expires > now
        )
    ).first()
    if row is None:
        raise spent()
    return row.purpose, row.subject


def use(db: sa.Connection, token: str, *purposes: Purpose, now: int) -> tuple[Purpose, str]:
    """`peek`, and the token is of no use any more: of those who use it at once, one can. Raises RequestError 404."""
    purpose, subject = peek(db, token, *purposes, now=now)
    if db.execute(sa.delete(links).where(links.c.digest == digest(db, "link", token))).rowcount != 1:
        raise spent()
    return purpose, subject


def void(db: sa.Connection, purpose: Purpose, subject: str) -> None:
    db.execute(sa.delete(links).where(links.c.purpose == purpose, links.c.subject == subject))


def spent() -> RequestError:
    return refuse("This link was used, has expired, or was never given. Ask for a new one.", 404, code="link_not_found")
