"""The reviewers' desk: a queue from which no two take the same case, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from foretell.safety.policy import SCORED
from foretell.safety.strikes import Ladder
from foretell.serve.accounts import audit
from foretell.serve.accounts.account import new_id
from foretell.serve.refusals import refuse
from foretell.serve.reviews.cases import IN_TURN, Case, Verdict, find
from foretell.serve.reviews.standings import overturn_strike, strike
from foretell.serve.reviews.tables import appeals, findings, labels
from foretell.serve.store import Store

CLAIM_MINUTES = 15
_LONGEST_ANSWER = 4_000  # letters


def claim(store: Store, reviewer: str, minutes: int = CLAIM_MINUTES) -> Case | None:
    """The case that is next in turn, for this reviewer alone until it is decided, released or minutes are over; the one
    that is theirs already before another. Never a reviewer's own. None where none waits."""
    with store.write() as db:
        now = store.clock()
        mine = findings.c.open & (findings.c.claimed_by == reviewer) & (findings.c.claimed_until > now)
        id = db.scalar(sa.select(findings.c.id).where(mine).limit(1).with_for_update())
        if id is None:
            free = findings.c.claimed_until.is_(None) | (findings.c.claimed_until <= now)
            others = findings.c.user.is_(None) | (findings.c.user != reviewer)
            query = sa.select(findings.c.id).where(findings.c.open, free, others).order_by(*IN_TURN).limit(1)
            # PostgreSQL: what another takes at this moment is passed over. SQLite has one writer at a time anyway.
            id = db.scalar(query.with_for_update(skip_locked=True))
        if id is None:
            return None
        until = now + minutes * 60_000
        db.execute(sa.update(findings).where(findings.c.id == id).values(claimed_by=reviewer, claimed_until=until))
        return find(db, id)


def release(store: Store, reviewer: str, id: str) -> None:
    """Give a case back, undecided. Of one that is not theirs nothing is done."""
    with store.write() as db:
        theirs = (findings.c.id == id) & (findings.c.claimed_by == reviewer) & findings.c.open
        db.execute(sa.update(findings).where(theirs).values(claimed_by=None, claimed_until=None))


def label(store: Store, reviewer: str, id: str, categories: Mapping[str, bool]) -> Case:
    """Say what a text is, category by category of OpenAI's; the classifier's next training learns from it. Any case may
    be labelled, a decided one too; the latest counts. Raises RequestError: 404 for no such case, 409 for deleted text,
    400 for a category that is none.
    """
    with store.write() as db:
        _label(db, reviewer, id, categories, store.clock())
        return find(db, id)


def uphold(
    store: Store,
    ladder: Ladder,
    reviewer: str,
    id: str,
    *,
    categories: Mapping[str, bool] | None = None,
    answer: str = "",
) -> Case:
    """It was rightly flagged: its account keeps the strike, or gets it now. An open appeal is answered by it.

    categories: labels, as `label` takes them. answer: told to who appealed. Only for who has claimed it.
    Raises RequestError: 404 for no such case, 409 for one that is decided already or not claimed by this reviewer.
    """
    return _decide(store, ladder, reviewer, id, "upheld", categories, answer)


def overturn(
    store: Store,
    ladder: Ladder,
    reviewer: str,
    id: str,
    *,
    categories: Mapping[str, bool] | None = None,
    answer: str = "",
) -> Case:
    """It was flagged wrongly: a strike for it is taken back, and its account's status lifted where nothing else holds
    it. An open appeal is answered by it. The rest as `uphold`."""
    return _decide(store, ladder, reviewer, id, "overturned", categories, answer)


def _decide(
    store: Store,
    ladder: Ladder,
    reviewer: str,
    id: str,
    verdict: Verdict,
    categories: Mapping[str, bool] | None,
    answer: str,
) -> Case:
    with store.write() as db:
        now = store.clock()
        theirs = (findings.c.id == id) & findings.c.open & (findings.c.claimed_by == reviewer)
        values: dict[str, Any] = {"open": False, "verdict": verdict, "decided_by": reviewer, "decided_at": now}
        values |= {"claimed_by": None, "claimed_until": None}
        decided = db.execute(sa.update(findings).where(theirs).values(**values)).rowcount
        found = find(db, id)
        if not decided:
            raise refuse("This case is decided, or another reviewer's. Take the next.", 409, code="case_not_claimed")
        # The account is locked before the log is, as everywhere: else two transactions could wait on each other.
        if found.strike is not None and verdict == "overturned":
            overturn_strike(db, ladder, found.strike.id, reviewer, now=now)
        elif found.strike is None and verdict == "upheld" and found.user is not None and found.side == "input":
            strike(db, ladder, found.user, id, found.categories, now=now, given_by=reviewer)
        if categories is not None:
            _label(db, reviewer, id, categories, now)
        if found.appeal is not None and found.appeal.verdict is None:
            said = {"verdict": verdict, "answer": answer.strip()[:_LONGEST_ANSWER], "answered_by": reviewer}
            db.execute(sa.update(appeals).where(appeals.c.id == found.appeal.id).values(**said, answered_at=now))
            told = {"verdict": verdict, "case": id, "user": found.user}
            audit.append(db, reviewer, "appeal.answer", found.appeal.id, told, now=now)
        details = {"verdict": verdict, "user": found.user, "categories": list(found.categories)}
        audit.append(db, reviewer, "case.decide", id, details, now=now)
        return find(db, id)


def _label(db: sa.Connection, reviewer: str, id: str, categories: Mapping[str, bool], now: int) -> None:
    if unknown := sorted(set(categories) - set(SCORED)):
        text = f"There is no category {unknown[0][:40]!r}; there are {', '.join(SCORED)}."
        raise refuse(text, 400, param="categories", code="unknown_category")
    if find(db, id).text is None:
        raise refuse("The text of this case was deleted, since its time was over.", 409, code="text_deleted")
    told = {name: bool(value) for name, value in categories.items()}
    row = {"id": new_id("label"), "finding": id, "reviewer": reviewer, "time": now, "categories": told}
    db.execute(sa.insert(labels).values(**row))
    audit.append(db, reviewer, "case.label", id, {"categories": sorted(name for name in told if told[name])}, now=now)
