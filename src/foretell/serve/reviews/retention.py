"""How long texts and figures are kept."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import Field

from foretell.sections import Section
from foretell.serve.accounts import audit
from foretell.serve.reviews.tables import anomalies, appeals, findings, labels, tallies
from foretell.serve.store import Store

_DAY = 86_400_000
_SERVER = "server"


class Keep(Section):
    """Days: texts, from when they were flagged, however their case stands; labelled, texts that the classifier learns
    from; notes of appeals and their answers, from the answer on; anomalies and tallies, as rows."""

    texts: float = Field(30, gt=0)
    labelled: float = Field(180, gt=0)
    notes: float = Field(180, gt=0)
    anomalies: float = Field(180, gt=0)
    tallies: float = Field(8, gt=1)


@dataclass(frozen=True)
class Forgotten:
    """How many of each were deleted."""

    texts: int = 0
    notes: int = 0
    anomalies: int = 0
    tallies: int = 0


def forget(store: Store, keep: Keep = Keep()) -> Forgotten:
    """Delete what is older than is kept. Of a case all but its text stays; that texts went is in the audit log.

    For a call now and then. Raises StoreError.
    """
    with store.write() as db:
        now = store.clock()

        def before(days: float) -> int:
            return now - round(days * _DAY)

        labelled = sa.select(labels.c.finding)
        unlabelled = findings.c.id.not_in(labelled) & (findings.c.time < before(keep.texts))
        old = findings.c.text.is_not(None) & (unlabelled | (findings.c.time < before(max(keep.texts, keep.labelled))))
        texts = db.execute(sa.update(findings).where(old).values(text=None)).rowcount
        answered = appeals.c.note.is_not(None) & (appeals.c.answered_at < before(keep.notes))
        notes = db.execute(sa.update(appeals).where(answered).values(note=None, answer=None)).rowcount
        rows = db.execute(sa.delete(anomalies).where(anomalies.c.time < before(keep.anomalies))).rowcount
        counts = db.execute(sa.delete(tallies).where(tallies.c.minute < before(keep.tallies) // 60_000)).rowcount
        gone = Forgotten(texts, notes, rows, counts)
        if texts or notes:
            audit.append(db, _SERVER, "texts.delete", "", {"texts": texts, "notes": notes}, now=now)
        return gone


def forget_user(db: sa.Connection, user: str) -> int:
    """Delete the texts and notes of one account now, as its owner may ask for. How many."""
    texts = sa.update(findings).where(findings.c.user == user, findings.c.text.is_not(None)).values(text=None)
    notes = sa.update(appeals).where(appeals.c.user == user, appeals.c.note.is_not(None)).values(note=None, answer=None)
    return db.execute(texts).rowcount + db.execute(notes).rowcount
