"""The database: what two transactions see of each other, and what is told of one that cannot be had."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from storekit import at_once

from foretell.errors import StoreError
from foretell.serve.accounts.tables import settings
from foretell.serve.store import Store, insert_once


def value(db: sa.Connection, name: str) -> str | None:
    return db.scalar(sa.select(settings.c.value).where(settings.c.name == name))


def test_a_row_is_inserted_once(store: Store) -> None:
    def insert(number: int) -> bool:
        with store.write() as db:
            return insert_once(db, settings, name="a", value=str(number))

    made = at_once(6, insert)
    assert sorted(map(bool, made)) == [False] * 5 + [True]
    with store.read() as db:
        assert value(db, "a") == str(made.index(True))


def test_what_is_read_does_not_change_meanwhile(store: Store) -> None:
    with store.write() as db:
        insert_once(db, settings, name="a", value="1")
    with store.read() as db:
        assert value(db, "a") == "1"
        with store.write() as other:
            other.execute(sa.update(settings).where(settings.c.name == "a").values(value="2"))
        assert value(db, "a") == "1"
    with store.read() as db:
        assert value(db, "a") == "2"


def test_an_error_undoes_all(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as db:
        insert_once(db, settings, name="a", value="1")
        1 / 0  # noqa: B018
    with store.read() as db:
        assert value(db, "a") is None


def test_work_is_taken_off_the_loop(store: Store) -> None:
    def read(name: str) -> str | None:
        with store.read() as db:
            return value(db, name)

    assert len(str(asyncio.run(store.run(read, "secret")))) == 64


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "a.db")
    with store.write() as db:
        settings.create(db)
    files = sorted(tmp_path.glob("new/*"))
    assert [file.name for file in files] == ["a.db", "a.db-shm", "a.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    store.close()


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made there"):
        Store(tmp_path / "file" / "a.db")
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="does not answer"), store.read():
        pass
    for url in ("sparkle://host/db", "postgresql://user:secret@host:port/db"):
        with pytest.raises(StoreError) as error:
            Store(url)
        assert "secret" not in str(error.value)
    store = Store("postgresql://user:secret@127.0.0.1:1/db")
    with pytest.raises(StoreError, match="does not answer") as error, store.read():
        pass
    assert "secret" not in str(error.value)
