"""Chores: each in its time, none lost where the database is gone for a while."""

import asyncio
import re

import pytest
import sqlalchemy as sa
from reviewkit import flag, status
from storekit import HOUR, FakeClock, add_user

from foretell.errors import StoreError
from foretell.serve.metrics import Metrics
from foretell.serve.reviews.cases import case
from foretell.serve.reviews.chores import Chores, Settings
from foretell.serve.reviews.overview import overview
from foretell.serve.reviews.retention import Keep
from foretell.serve.reviews.tally import Tally
from foretell.serve.store import Store


def make(store: Store, **settings: object) -> Chores:
    tally = Tally()
    metrics = Metrics(dict, dict, tally=tally)
    return Chores(store, Settings(**settings), metrics, tally)  # type: ignore[arg-type]


def shown(chores: Chores, name: str) -> float:
    found = re.search(rf"^foretell_{name} (\S+)$", chores.metrics.text().decode(), re.M)
    assert found is not None
    return float(found[1])


def test_each_chore_in_its_time(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    chores = make(store, keep=Keep(texts=0.05))
    id = flag(store, user).id
    flag(store, user)
    chores.metrics.answered("/v1/models", 200, 0.1, None)
    assert chores.do_due() == 0 and overview(store).hour.requests == 0
    clock.advance(10)
    assert chores.do_due() == 1 and overview(store).hour.requests == 1
    assert chores.do_due() == 0
    clock.advance(50)
    assert chores.do_due() == 3
    assert shown(chores, "cases_waiting") == 2 and shown(chores, "oldest_case_seconds") == 60
    clock.now = (clock.now // HOUR + 30) * HOUR
    assert chores.do_due() == 5
    assert status(store, user) == ("warned", None), "the suspension was lifted"
    assert case(store, id).text is None, "its time was over"


def test_a_database_that_is_gone_for_a_while(store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> sa.Connection:
        raise StoreError("gone")

    chores = make(store)
    chores.metrics.answered("/v1/models", 500, 0.1, None)
    clock.advance(3600)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write", gone)
        patched.setattr(store, "read", gone)
        assert chores.do_due() == 0
        chores.end()
    clock.advance(10)
    assert chores.do_due() == 1 and overview(store).hour.errors == 1


def test_what_is_counted_is_written_at_the_end(store: Store) -> None:
    async def begin_and_end(chores: Chores) -> None:
        task = asyncio.create_task(chores.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    chores = make(store)
    chores.metrics.answered("/v1/models", 200, 0.1, None)
    asyncio.run(begin_and_end(chores))
    assert overview(store).hour.requests == 1
