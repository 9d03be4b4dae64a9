"""Attempts that are slowed the more of them fail: of a password, by account and by network address.

Nobody is made to wait on a connection: an attempt too soon is refused, with the time after which it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from foretell.errors import RequestError
from foretell.serve.accounts.tables import attempts
from foretell.serve.store import Store, insert_once

DAY = 86_400_000


@dataclass(frozen=True)
class Pace:
    """free: attempts before the first wait, of a second, which each further one doubles. longest: wait, milliseconds.
    After a day without an attempt all is forgotten."""

    free: int
    longest: int = 900_000

    def wait(self, count: int) -> int:
        """Milliseconds that must pass after so many attempts."""
        return 0 if count < self.free else min(1000 << min(count - self.free, 30), self.longest)


ACCOUNT, ADDRESS = Pace(5), Pace(30)


class SlowedError(RequestError):
    """Too many attempts. retry_after: seconds, rounded up, until the next is allowed."""

    def __init__(self, wait: int) -> None:
        self.retry_after = -(-wait // 1000)
        unit = "second" if self.retry_after == 1 else "seconds"
        super().__init__(
            f"Too many attempts. Try again in {self.retry_after} {unit}.",
            429,
            type="rate_limit_error",
            code="too_many_attempts",
            headers=((b"retry-after", b"%d" % self.retry_after),),
        )


def take(store: Store, paces: Mapping[str, Pace]) -> None:
    """Count an attempt in each bucket, before it is known whether it fails: of many at once each is counted.

    Raises SlowedError, with nothing counted, where a bucket is to wait still.
    """
    now = store.clock()
    with store.write() as db:
        counts, wait = {}, 0
        for bucket in sorted(paces):  # in one order, or two attempts would wait for each other
            insert_once(db, attempts, bucket=bucket, count=0, last=now, until=now)
            row = db.execute(sa.select(attempts).where(attempts.c.bucket == bucket).with_for_update()).one()
            counts[bucket] = row._mapping["count"] if row.last > now - DAY else 0
            wait = max(wait, row.until - now)
        if wait > 0:
            raise SlowedError(wait)
        for bucket, count in counts.items():
            values = {"count": count + 1, "last": now, "until": now + paces[bucket].wait(count + 1)}
            db.execute(sa.update(attempts).where(attempts.c.bucket == bucket).values(**values))


def forget(db: sa.Connection, bucket: str) -> None:
    """Begin a bucket anew."""
    db.execute(sa.delete(attempts).where(attempts.c.bucket == bucket))


def give_back(db: sa.Connection, bucket: str, now: int) -> None:
    """Take one attempt out of a bucket, since it did not fail."""
    bucket_of = attempts.c.bucket == bucket
    db.execute(
        sa.update(attempts).where(bucket_of, attempts.c["count"] > 0).values(count=attempts.c["count"] - 1, until=now)
    )
