"""The database's form: what migrations make is what the code declares, once, by whichever process comes first."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from storekit import FakeClock

from foretell.errors import StoreError
from foretell.serve import migrations
from foretell.serve.accounts.secret import server_secret
from foretell.serve.migrations import VERSION_TABLE, prepare, upgrade
from foretell.serve.migrations.write import all_tables, migration
from foretell.serve.store import Store


@pytest.fixture
def bare(place: str, clock: FakeClock) -> Iterator[Store]:
    """A database without anything in it."""
    store = Store(place, clock)
    yield store
    store.close()


def test_migrations_make_what_the_code_declares(bare: Store) -> None:
    assert upgrade(bare) == (None, "0001")
    with bare.read() as db:
        context = MigrationContext.configure(db, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, all_tables()) == [], "run: python -m foretell.serve.migrations.write NUMBER"
        assert len(server_secret(db)) == 32


def test_the_migration_is_the_one_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `write` would write against an empty database makes the same tables, here executed as a migration."""
    store = Store(tmp_path / "a.db")
    with store.write() as db:
        text = migration("0001", None, db)
    copied = tmp_path / "scripts"
    shutil.copytree(Path(migrations.__file__).parent, copied)
    for old in (copied / "versions").glob("*.py"):
        old.unlink()
    (copied / "versions" / "version_0001.py").write_text(text)
    monkeypatch.setattr(migrations, "__file__", str(copied / "__init__.py"))
    assert upgrade(store) == (None, "0001")
    with store.read() as db:
        assert set(sa.inspect(db).get_table_names()) == {*all_tables().tables, VERSION_TABLE}
    store.close()


def test_a_second_upgrade_changes_nothing(bare: Store) -> None:
    upgrade(bare)
    with bare.read() as db:
        secret = server_secret(db)
    assert upgrade(bare) == ("0001", "0001")
    prepare(bare)
    with bare.read() as db:
        assert server_secret(db) == secret


def test_an_empty_database_has_no_secret_and_says_so(bare: Store) -> None:
    with pytest.raises(StoreError, match="does not answer"), bare.read() as db:
        server_secret(db)
    prepare(bare)
    with bare.write() as db:
        db.execute(sa.text("DELETE FROM settings"))
        with pytest.raises(StoreError, match="foretell admin upgrade"):
            server_secret(db)


def set_version(store: Store, version: str) -> None:
    with store.write() as db:
        db.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version})


def test_a_newer_database_is_refused_and_left_alone(bare: Store) -> None:
    upgrade(bare)
    set_version(bare, "9999")
    for open in (upgrade, prepare):
        with pytest.raises(StoreError, match=r"newer Foretell \(its version is 9999, this one knows up to 0001\)"):
            open(bare)
    with bare.read() as db:
        assert db.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")) == "9999"


@pytest.fixture
def second_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations with one more."""
    copied = tmp_path / "scripts"
    shutil.copytree(Path(migrations.__file__).parent, copied)
    path = copied / "versions" / "version_0002.py"
    path.write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '0002', '0001'\n\n"
        "def upgrade():\n    op.create_table('later', sa.Column('n', sa.Integer))\n"
    )
    monkeypatch.setattr(migrations, "__file__", str(copied / "__init__.py"))
    return path


def test_an_older_database_is_upgraded_where_that_is_asked_for(bare: Store, second_version: Path) -> None:
    upgrade(bare)
    set_version(bare, "0001")
    with bare.write() as db:
        db.execute(sa.text("DROP TABLE later"))
    with pytest.raises(StoreError, match=r"of version 0001, and this is 0002\. .* foretell admin upgrade"):
        prepare(bare)
    assert upgrade(bare) == ("0001", "0002")
    prepare(bare)


def test_a_migration_that_fails_leaves_nothing(bare: Store, second_version: Path) -> None:
    second_version.write_text(second_version.read_text() + "    op.execute('SELECT 1 FROM nowhere')\n")
    with pytest.raises(StoreError, match="nowhere"):
        upgrade(bare)
    with bare.read() as db:
        assert sa.inspect(db).get_table_names() == []


def test_another_programs_tables_are_not_touched(bare: Store) -> None:
    with bare.write() as db:
        db.execute(sa.text("CREATE TABLE users (name TEXT)"))
    with pytest.raises(StoreError, match="has a table users of another program"):
        upgrade(bare)
    with bare.read() as db:
        assert sa.inspect(db).get_table_names() == ["users"]


def start(place: str, begin: Any, results: Any) -> None:
    store = Store(place)
    begin.wait()
    results.put(upgrade(store)[0])
    store.close()


@pytest.mark.parametrize("turn", range(3))
def test_processes_that_start_at_once_on_an_empty_database(place: str, turn: int) -> None:
    fork = multiprocessing.get_context("fork")
    begin, results = fork.Event(), fork.Queue()
    servers = [fork.Process(target=start, args=(place, begin, results)) for _ in range(4)]
    for server in servers:
        server.start()
    begin.set()
    befores = [results.get(timeout=120) for _ in servers]
    for server in servers:
        server.join(120)
    assert sorted(befores, key=str) == ["0001"] * 3 + [None]
    assert [server.exitcode for server in servers] == [0] * 4


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(b"no database at all" * 100)
    store = Store(path)
    with pytest.raises(StoreError, match=r"text\.db"):
        upgrade(store)
    store.close()
    assert path.read_bytes().startswith(b"no database")


def test_a_start_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    caplog.set_level(logging.WARNING)
    store = Store(tmp_path / "a.db")
    upgrade(store)
    store.close()
    assert not caplog.records and capfd.readouterr() == ("", "")
