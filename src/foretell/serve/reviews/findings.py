"""Keeping what was flagged: the text for review, and at once a strike where the ladder says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from foretell.safety.strikes import Ladder, Standing
from foretell.serve.accounts.account import new_id
from foretell.serve.reviews.cases import Side
from foretell.serve.reviews.standings import strike
from foretell.serve.reviews.tables import findings
from foretell.serve.store import Store

_RETRY_MS = 600_000
LONGEST = 20_000  # letters of a text that are kept
APPEALED = 0  # an appeal goes before all others
TURNS = {"block": 1, "refuse": 2, "flag": 3}


@dataclass(frozen=True)
class Recorded:
    """id: of the case. standing: what the account came to, where it was struck by this."""

    id: str
    standing: Standing | None = None


def record(
    store: Store,
    ladder: Ladder,
    text: str,
    *,
    side: Side,
    categories: Sequence[str],
    scores: Mapping[str, float],
    action: str,
    rule: str | None = None,
    span: tuple[int, int] | None = None,
    user: str | None = None,
    model: str | None = None,
    request: str | None = None,
) -> Recorded:
    """Keep a text that moderation flagged, and strike its account where `ladder.automatic` names the action; once for
    the same text within ten minutes, since programs try again by themselves.

    text: of a longer one LONGEST letters are kept, those around `span`, the place of what was flagged, else the first;
    never an image. categories: the flagged ones. scores: of every category. side: whether the caller said it, or the
    model; only callers are struck for it. request: as in x-request-id. The rest as in a `safety.moderation.Finding`.
    Raises StoreError.
    """
    id = new_id("case")
    with store.write() as db:
        now = store.clock()
        row = {"id": id, "time": now, "user": user, "request": request, "side": side, "model": model, "rule": rule}
        row |= {"text": _around(text, span), "categories": list(categories), "scores": dict(scores)}
        row |= {"action": action, "open": True, "turn": TURNS.get(action, 3)}
        again = sa.select(findings.c.id).where(
            findings.c.user == user, findings.c.side == side, findings.c.time > now - _RETRY_MS,
            findings.c.text == row["text"],
        )  # fmt: skip
        repeated = user is not None and db.scalar(again.limit(1)) is not None
        db.execute(sa.insert(findings).values(**row))
        if user is None or side != "input" or action not in ladder.automatic or repeated:
            return Recorded(id)
        return Recorded(id, strike(db, ladder, user, id, categories, now=now))


def _around(text: str, span: tuple[int, int] | None) -> str:
    begin = max(0, min(span[0] - LONGEST // 4, len(text) - LONGEST)) if span else 0
    return text[begin : begin + LONGEST].replace("\0", "")  # which PostgreSQL does not store
