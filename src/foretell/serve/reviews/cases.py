"""A case: what was flagged, with its strike, appeal and labels, as a reviewer and as its account's owner see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from foretell.serve.refusals import refuse
from foretell.serve.reviews.tables import appeals, findings, labels, strikes
from foretell.serve.store import Store

Side = Literal["input", "output"]
Verdict = Literal["upheld", "overturned"]


@dataclass(frozen=True)
class Appeal:
    """note: what the account's owner says, "" once it was deleted. verdict None: not answered yet."""

    id: str
    strike: str
    user: str
    time: int
    note: str
    verdict: Verdict | None = None
    answer: str = ""
    answered_by: str | None = None
    answered_at: int | None = None


@dataclass(frozen=True)
class Given:
    """A strike. given_by None: moderation alone. step: what the account came to by it."""

    id: str
    user: str
    finding: str
    time: int
    weight: int
    step: str
    given_by: str | None = None
    overturned_at: int | None = None
    overturned_by: str | None = None


@dataclass(frozen=True)
class Case:
    """A finding and all that hangs on it.

    user None: no account called. text None: deleted, since its time was over. categories: the flagged ones. scores: of
    every category. open: a reviewer is to decide, on an appeal where one is unanswered. labels: the latest, if any.
    """

    id: str
    time: int
    user: str | None
    request: str | None
    side: Side
    model: str | None
    text: str | None
    categories: tuple[str, ...]
    scores: Mapping[str, float]
    action: str
    rule: str | None
    open: bool
    claimed_by: str | None
    claimed_until: int | None
    verdict: Verdict | None
    decided_by: str | None
    decided_at: int | None
    strike: Given | None = None
    appeal: Appeal | None = None
    labels: Mapping[str, bool] | None = None


def case(store: Store, id: str) -> Case:
    """Raises RequestError with 404 where there is none of that id."""
    with store.read() as db:
        return find(db, id)


def cases(
    store: Store, *, open: bool | None = None, user: str | None = None, before: int | None = None, limit: int = 50
) -> list[Case]:
    """Cases, the latest first; open ones in the order in which they are to be decided. before: a time, to page on."""
    query = sa.select(findings.c.id)
    if open is not None:
        query = query.where(findings.c.open == open)
    if user is not None:
        query = query.where(findings.c.user == user)
    if before is not None:
        query = query.where(findings.c.time < before)
    turn = IN_TURN if open else (findings.c.time.desc(), findings.c.id)
    with store.read() as db:
        return read(db, list(db.scalars(query.order_by(*turn).limit(limit))))


IN_TURN = (findings.c.turn, findings.c.time, findings.c.id)


def waiting(store: Store) -> int:
    """How many cases wait for a decision."""
    with store.read() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(findings).where(findings.c.open)) or 0


def find(db: sa.Connection, id: str) -> Case:
    """Raises RequestError with 404 where there is none of that id."""
    found = read(db, [id])
    if not found:
        raise refuse(f"There is no case '{id[:40]}'.", 404, code="case_not_found")
    return found[0]


def read(db: sa.Connection, ids: Sequence[str]) -> list[Case]:
    """The cases of these ids, in their order; those that are not there are left out."""
    rows = {row["id"]: row for row in _rows(db, sa.select(findings).where(findings.c.id.in_(ids)))}
    given = {row["finding"]: given_of(row) for row in _rows(db, sa.select(strikes).where(strikes.c.finding.in_(ids)))}
    by_strike = sa.select(appeals).where(appeals.c.strike.in_([strike.id for strike in given.values()]))
    asked = {row["strike"]: appeal_of(row) for row in _rows(db, by_strike)}
    latest = sa.select(labels.c.finding, labels.c.categories).where(labels.c.finding.in_(ids))
    told = {row["finding"]: row["categories"] for row in _rows(db, latest.order_by(labels.c.time, labels.c.id))}
    found = []
    for id in ids:
        if (row := rows.get(id)) is not None:
            strike = given.get(id)
            fields = {name: value for name, value in row.items() if name != "turn"}
            fields |= {"categories": tuple(row["categories"]), "labels": told.get(id), "strike": strike}
            found.append(Case(**fields, appeal=asked.get(strike.id) if strike else None))
    return found


def given_of(row: sa.RowMapping | dict[str, Any]) -> Given:
    return Given(**row)


def appeal_of(row: sa.RowMapping | dict[str, Any]) -> Appeal:
    return Appeal(**{**row, "note": row["note"] or "", "answer": row["answer"] or ""})


def _rows(db: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(query).mappings()]
