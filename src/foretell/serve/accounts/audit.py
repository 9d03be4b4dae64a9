"""The log of what was done to accounts: only ever added to, each row sealed into a chain of hashes.

A row's hash covers the one before it and a digest of its details, not the details themselves: these, which may tell of
a person, can be redacted and the chain still be checked. Actor and subject are ids and stay. Details never hold keys,
passwords, cookies or images. Rows older than is kept are removed from the front. The log itself says which rows were
redacted or removed, so that neither can be done in silence.

The chain shows any change by whoever does not write all of it anew. For whoever can, keep the last hash elsewhere now
and then: `verify` tells it, and takes one that must still be there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from foretell.serve.accounts.tables import audit, audit_ends
from foretell.serve.store import Store, insert_once

START = "0" * 64
_EXPIRE, _REDACT = "audit.expire", "audit.redact"
_AT_ONCE = 5_000


@dataclass(frozen=True)
class Event:
    """A row of the log. time: milliseconds. details: None once redacted."""

    seq: int
    time: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any] | None


@dataclass(frozen=True)
class Verdict:
    """What a check of the log found. fault: the first thing that is wrong, None if nothing is. rows: how many were good
    up to there. redacted: those among them without their details. last, last_hash: with which the log now ends."""

    fault: str | None
    rows: int
    redacted: int
    last: int
    last_hash: str


def append(
    db: sa.Connection, actor: str, action: str, subject: str, details: Mapping[str, Any] | None = None, *, now: int
) -> int:
    """Add to the log, in the transaction of what is logged, and return the row's number.

    actor: a user's id, or "shell" for the command line, or "server". action: such as "key.revoke". subject: the id of
    what it was done to. Best the last statement of its transaction: no other can add until that ends.
    """
    insert_once(db, audit_ends, id=1, before=0, before_hash=START, last=0, last_hash=START)
    ends = db.execute(sa.select(audit_ends).with_for_update()).one()
    told = _canonical(dict(details or {}))
    salt = secrets.token_hex(16)
    row = {
        "seq": ends.last + 1, "time": now, "actor": actor, "action": action, "subject": subject,
        "details_digest": _digest(salt, told),
    }  # fmt: skip
    hash = _hash(ends.last_hash, row)
    db.execute(sa.insert(audit).values(**row, details=told, salt=salt, hash=hash))
    db.execute(sa.update(audit_ends).values(last=row["seq"], last_hash=hash))
    return int(row["seq"])


def events(
    db: sa.Connection, *, subject: str | None = None, action: str | None = None, before: int | None = None,
    limit: int = 100,
) -> list[Event]:  # fmt: skip
    """Rows, the newest first. action: all that begin with it. before: only those of lower numbers."""
    query = sa.select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if subject is not None:
        query = query.where((audit.c.subject == subject) | (audit.c.actor == subject))
    if action is not None:
        query = query.where(audit.c.action.startswith(action, autoescape=True))
    if before is not None:
        query = query.where(audit.c.seq < before)
    return [
        Event(
            row.seq, row.time, row.actor, row.action, row.subject, None if row.details is None else _read(row.details)
        )
        for row in db.execute(query)
    ]


def verify(store: Store, hash: str | None = None) -> Verdict:
    """Check the whole log. hash: of a row, kept elsewhere, that must still be in it. Raises StoreError."""
    with store.read() as db:
        return check(db, hash)


def check(db: sa.Connection, hash: str | None = None) -> Verdict:
    """`verify` in a transaction."""
    ends = db.execute(sa.select(audit_ends)).first()
    before, before_hash, last, last_hash = ends[1:] if ends else (0, START, 0, START)
    number, previous = before, before_hash
    found, told_of_removal = hash in (None, before_hash), before == 0
    redacted: list[int] = []
    told_of_redaction: set[int] = set()

    def verdict(fault: str | None) -> Verdict:
        return Verdict(fault, number - before, len(redacted), last, last_hash)

    for row in _rows(db):
        if row.seq != number + 1:
            return verdict(f"row {number + 1} is missing")
        if fault := _fault(row, previous):
            return verdict(fault)
        number, previous = row.seq, row.hash
        found |= row.hash == hash
        told_of_removal |= (row.action, row.subject) == (_EXPIRE, _removed(before, before_hash))
        if row.details is None:
            redacted.append(row.seq)
        elif row.action == _REDACT:
            told_of_redaction.update(*(range(low, high + 1) for low, high in _read(row.details)["rows"]))
    if number != last:
        return verdict(f"the log ends with row {number}, not {last}")
    if previous != last_hash:
        return verdict("its end was changed")
    if not told_of_removal:
        return verdict(f"rows up to {before} were removed, and the log does not say so")
    if secretly := set(redacted) - told_of_redaction:
        return verdict(f"the details of row {min(secretly)} were removed, and the log does not say so")
    if not found:
        return verdict("no row has the hash that was given")
    return verdict(None)


def redact(db: sa.Connection, actor: str, *, now: int, subject: str | None = None, before: int | None = None) -> int:
    """Remove the details of rows and return of how many; that it was done is logged.

    subject: of rows about, or by, whom. before: of rows older than this time. At least one is given.
    """
    if subject is None and before is None:
        raise ValueError("redact needs a subject or a time")
    chosen = audit.c.details.is_not(None) & (audit.c.action != _REDACT)
    if subject is not None:
        chosen &= (audit.c.subject == subject) | (audit.c.actor == subject)
    if before is not None:
        chosen &= audit.c.time < before
    gone = sa.update(audit).where(chosen).values(details=None, salt=None).returning(audit.c.seq)
    numbers = sorted(db.scalars(gone))
    if numbers:
        append(db, actor, _REDACT, subject or "", {"rows": _ranges(numbers)}, now=now)
    return len(numbers)


def expire(db: sa.Connection, actor: str, before: int, *, now: int) -> int:
    """Remove rows older than a time from the front of the log and return how many; the log then says so."""
    ends = db.execute(sa.select(audit_ends).with_for_update()).first()
    if ends is None:
        return 0
    # Clocks of several servers differ a little: rows are removed up to the first that is to be kept.
    kept = db.scalar(sa.select(sa.func.min(audit.c.seq)).where(audit.c.time >= before))
    through = ends.last if kept is None else kept - 1
    if through <= ends.before:
        return 0
    hash = db.scalar(sa.select(audit.c.hash).where(audit.c.seq == through))
    db.execute(sa.delete(audit).where(audit.c.seq <= through))
    db.execute(sa.update(audit_ends).values(before=through, before_hash=hash))
    append(db, actor, _EXPIRE, _removed(through, str(hash)), now=now)
    return int(through - ends.before)


def _rows(db: sa.Connection) -> Iterator[sa.Row[*tuple[Any, ...]]]:
    query = sa.select(audit).order_by(audit.c.seq).limit(_AT_ONCE)
    some = db.execute(query).fetchall()
    while some:
        yield from some
        some = db.execute(query.where(audit.c.seq > some[-1].seq)).fetchall()


def _fault(row: sa.Row[*tuple[Any, ...]], previous: str) -> str | None:
    if _hash(previous, row._asdict()) != row.hash:
        return f"row {row.seq} was changed, or stood elsewhere"
    if (row.details is None) != (row.salt is None):
        return f"the details of row {row.seq} were changed"
    if row.details is not None and _digest(row.salt, row.details) != row.details_digest:
        return f"the details of row {row.seq} were changed"
    return None


def _ranges(numbers: list[int]) -> list[list[int]]:
    """[first, last] of each run of sorted numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _removed(through: int, hash: str) -> str:
    return f"{through}:{hash}"  # as a subject, which redaction leaves


def _hash(previous: str, row: Mapping[str, Any]) -> str:
    fields = [row[name] for name in ("seq", "time", "actor", "action", "subject", "details_digest")]
    return hashlib.sha256(_canonical([previous, *fields]).encode()).hexdigest()


def _digest(salt: str, details: str) -> str:
    return hashlib.sha256(f"{salt}{details}".encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))  # ASCII, whatever the database makes of letters


def _read(details: str) -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads(details)
    return value
