"""What a gateway does beside its calls: writing counts, lifting what has run out, the sweep, deleting old texts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from foretell.errors import StoreError
from foretell.safety.anomalies import Watch
from foretell.safety.strikes import Ladder
from foretell.serve.metrics import Metrics
from foretell.serve.reviews.overview import queue
from foretell.serve.reviews.retention import Keep, forget
from foretell.serve.reviews.standings import refresh
from foretell.serve.reviews.sweep import sweep
from foretell.serve.reviews.tally import Tally
from foretell.serve.store import Store

log = logging.getLogger("foretell.serve")
_SECOND, _MINUTE, _HOUR = 1_000, 60_000, 3_600_000


@dataclass(frozen=True)
class Settings:
    """ladder: of strikes. watch: of the sweep, and known: marks of addresses from which many accounts are to be
    expected. keep: how long what is kept."""

    ladder: Ladder = field(default_factory=Ladder)
    watch: Watch = field(default_factory=Watch)
    keep: Keep = field(default_factory=Keep)
    known: tuple[str, ...] = ()


class Chores:
    """Every server of a database may do them: none is done to an account or a text twice."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, tally: Tally) -> None:
        self.store, self.settings, self.metrics, self.tally = store, settings, metrics, tally
        self._all: tuple[tuple[int, Callable[[], object]], ...] = (
            (10 * _SECOND, lambda: tally.flush(store)),
            (_MINUTE, self._count),
            (_MINUTE, lambda: refresh(store, settings.ladder)),
            (_HOUR, lambda: sweep(store, settings.watch, settings.known)),
            (_HOUR, lambda: forget(store, settings.keep)),
        )
        self._last = [store.clock()] * len(self._all)

    def do_due(self) -> int:
        """Do what is due by the store's clock, and return how many that was. What the database does not answer for is
        left for its next turn. Not for an event loop: the sweep takes its time."""
        done = 0
        for at, (every, work) in enumerate(self._all):
            now = self.store.clock()
            if now // every == self._last[at] // every:
                continue
            self._last[at] = now
            try:
                work()
                done += 1
            except StoreError as error:
                log.error("a chore was not done: %s", error)
        return done

    async def run(self) -> None:
        """Until it is cancelled; counts that are left are written then."""
        try:
            while True:
                await asyncio.sleep(1)
                await asyncio.to_thread(self.do_due)
        finally:
            self.end()

    def end(self) -> None:
        """Write what is counted and not written yet."""
        try:
            self.tally.flush(self.store)
        except StoreError as error:
            log.error("counts were not written: %s", error)

    def _count(self) -> None:
        waiting, oldest = queue(self.store)
        self.metrics.queued(waiting, max(self.store.clock() - oldest, 0) / 1000 if oldest is not None else 0.0)
