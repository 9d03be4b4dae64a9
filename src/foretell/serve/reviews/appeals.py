"""Appeals: a note from an account's owner about a strike, for a reviewer to answer."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.serve.accounts import audit
from foretell.serve.accounts.account import new_id
from foretell.serve.refusals import refuse
from foretell.serve.reviews.cases import Appeal, appeal_of
from foretell.serve.reviews.findings import APPEALED
from foretell.serve.reviews.tables import appeals, findings, strikes
from foretell.serve.store import Store, insert_once

LONGEST = 4_000  # letters of a note


def appeal(store: Store, user: str, strike: str, note: str) -> Appeal:
    """Ask that a strike be looked at again; its case goes to the head of the queue.

    Raises RequestError: 404 for a strike that is not there, or not theirs, alike; 400 for a note that is empty or too
    long; 409 where the strike was appealed before or is taken back.
    """
    note = note.strip()
    if not note or len(note) > LONGEST:
        raise refuse(f"A note of 1 to {LONGEST} letters is needed.", 400, param="note", code="invalid_note")
    with store.write() as db:
        now = store.clock()
        theirs = (strikes.c.id == strike) & (strikes.c.user == user)
        row = db.execute(sa.select(strikes.c.finding, strikes.c.overturned_at).where(theirs)).first()
        if row is None:
            raise refuse(f"There is no strike '{strike[:40]}'.", 404, code="strike_not_found")
        if row.overturned_at is not None:
            raise refuse("This strike was taken back already.", 409, code="strike_overturned")
        asked = Appeal(new_id("appeal"), strike, user, now, note.replace("\0", ""))
        if not insert_once(db, appeals, id=asked.id, strike=strike, user=user, time=now, note=asked.note):
            raise refuse("This strike was appealed before; its answer stands.", 409, code="already_appealed")
        again = {"open": True, "turn": APPEALED}
        db.execute(sa.update(findings).where(findings.c.id == row.finding).values(**again))
        audit.append(db, user, "appeal.make", asked.id, {"strike": strike, "case": row.finding}, now=now)
        return asked


def appeals_of(store: Store, user: str) -> list[Appeal]:
    """The appeals of an account, the latest first, with their answers."""
    with store.read() as db:
        query = sa.select(appeals).where(appeals.c.user == user).order_by(appeals.c.time.desc(), appeals.c.id)
        return [appeal_of(row) for row in db.execute(query).mappings()]
