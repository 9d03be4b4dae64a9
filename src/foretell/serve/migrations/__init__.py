"""The form of the database, brought up to date step by step by Alembic: at the server's start, or by hand."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from foretell.errors import StoreError
from foretell.serve.accounts.secret import make_secret
from foretell.serve.store import Store

VERSION_TABLE = "foretell_version"
_LOCK = 0x666F7267  # of PostgreSQL, held while tables are made
_ONE = threading.Lock()  # a migration speaks to Alembic by its module, of which a process has one


def upgrade(store: Store) -> tuple[str | None, str]:
    """Bring the database to this version's form. Returns the versions before (None: it was empty) and after.

    All of it or nothing is done, by one of those that start at once while the others wait. Raises StoreError for a
    database that is newer than this code, that holds another program's tables, or that cannot be written.
    """
    with _ONE, store.write() as db:
        if not store.is_sqlite:
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        before = _version(store, db)
        newest = str(_scripts().get_current_head())
        if before != newest:
            config = _config()
            config.attributes["connection"] = db
            command.upgrade(config, "head")
        make_secret(db)
    return before, newest


def prepare(store: Store) -> None:
    """Set up an empty database. Raises StoreError for one of another version than this code's, older ones included:
    a server may be running on it."""
    with store.read() as db:
        version = _version(store, db)
    if version is None:
        upgrade(store)
    elif version != (newest := _scripts().get_current_head()):
        raise StoreError(
            f"The database {store.name} is of version {version}, and this is {newest}. Bring it up to date with: "
            "foretell admin upgrade"
        )


def _version(store: Store, db: sa.Connection) -> str | None:
    """The version of a database, None for an empty one."""
    scripts = _scripts()
    version = MigrationContext.configure(db, opts={"version_table": VERSION_TABLE}).get_current_revision()
    if version is None and (others := set(sa.inspect(db).get_table_names()) & {"users", "keys", "settings"}):
        raise StoreError(
            f"The database {store.name} has a table {min(others)} of another program. Give one that is empty."
        )
    if version is not None and version not in {each.revision for each in scripts.walk_revisions()}:
        raise StoreError(
            f"The database {store.name} was made by a newer Foretell (its version is {version}, this one knows up to "
            f"{scripts.get_current_head()}). Upgrade with pip install --upgrade foretell, or give another database."
        )
    return version


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
