"""The parts of the gateway's benchmark that measure limits: they count what they say, and leave nothing open."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import gateway_limits as parts
from foretell.serve.limits.tables import days, events, meters, reservations
from foretell.serve.limits.usage import EVERYONE, usage
from foretell.serve.limits.windows import DAY
from foretell.serve.store import Store, metadata


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    with store.write() as db:
        metadata.create_all(db)
    yield store
    store.close()


def test_calls_take_every_limit_and_give_all_back(store: Store) -> None:
    found = parts.call_seconds(store, 6, users=2)
    assert len(found["reserve"]) == len(found["settle"]) == 6 and min(map(min, found.values())) > 0
    with store.read() as db:
        kept = db.execute(sa.select(meters)).all()
        assert db.execute(sa.select(reservations)).all() == []
    assert {row.subject for row in kept} == {"user_0", "user_1", "key_0", "key_1", "tier:t"}
    assert all(row.spent > 0 == row.held for row in kept)


def test_rows_and_their_sums_agree(store: Store) -> None:
    until = parts.fill(store, 300, users=5)
    with store.read() as db:
        micros = db.execute(sa.select(sa.func.sum(events.c.micros))).scalar_one()
        mine = db.execute(sa.select(sa.func.sum(days.c.micros)).where(days.c.user > EVERYONE)).scalar_one()
    total = usage(store, since=until - 30 * DAY, until=until).total
    assert (total.calls, total.micros) == (300, micros) and mine == micros
    assert parts.page_seconds(store, until, EVERYONE) > 0 and parts.page_seconds(store, until, "user_1") > 0


def test_a_race_has_one_winner(store: Store, tmp_path: Path) -> None:
    assert parts.race(str(tmp_path / "gateway.db"), processes=2, calls=8) == 1
