"""Who calls, as everything behind the door sees it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from foretell.serve.accounts.tables import users

Role = Literal["user", "reviewer", "admin"]
Status = Literal["active", "warned", "suspended", "banned"]
ROLES: tuple[Role, ...] = get_args(Role)
STATUSES: tuple[Status, ...] = get_args(Status)
SCOPES = {"user": ("inference", "usage"), "reviewer": ("inference", "usage", "review")}
SCOPES["admin"] = (*SCOPES["reviewer"], "admin")
DEFAULT_TIER = "free"

COLUMNS = (
    users.c.id.label("user_id"),
    users.c.role,
    users.c.tier,
    users.c.status,
    users.c.status_until,
    users.c.images,
    users.c.budget.label("user_budget"),
)
"""What `account_of` needs of a user, in any query that joins `users`."""


@dataclass(frozen=True)
class Account:
    """key: None for the chat page's session. images: None where the tier decides. Budgets are micro-dollars a calendar
    month (UTC), None where the tier decides (of a user) or none is set (of a key)."""

    user: str
    key: str | None
    role: Role
    tier: str
    status: Status
    scopes: frozenset[str]
    images: bool | None
    user_budget: int | None
    key_budget: int | None


def new_id(prefix: str) -> str:
    """Such as user_1f0c…, never told apart from the next by guessing."""
    return f"{prefix}_{secrets.token_hex(12)}"


def status_of(status: Status, until: int | None, now: int) -> Status:
    """The status at a time: a suspension that has run out leaves a warning."""
    return "warned" if status == "suspended" and until is not None and until <= now else status


def account_of(
    row: sa.Row[*tuple[Any, ...]],
    now: int,
    *,
    key: str | None = None,
    scopes: Iterable[str] | None = None,
    key_budget: int | None = None,
) -> Account:
    """The account of a row with COLUMNS. scopes: of a key, which gives no more than its owner's role; None: all."""
    allowed = frozenset(SCOPES[row.role])
    return Account(
        user=row.user_id,
        key=key,
        role=row.role,
        tier=row.tier,
        status=status_of(row.status, row.status_until, now),
        scopes=allowed if scopes is None else allowed & frozenset(scopes),
        images=row.images,
        user_budget=row.user_budget,
        key_budget=key_budget,
    )
