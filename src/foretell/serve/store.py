"""The database of accounts, limits and reviews, SQLite by default or PostgreSQL by URL, and the clock of all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from foretell.errors import MissingExtraError, StoreError

P = ParamSpec("P")
T = TypeVar("T")
Clock = Callable[[], int]
"""Milliseconds since 1970, UTC: the form of every time in the database."""

metadata = sa.MetaData()
_SPEAKERS = 8  # threads, and connections to PostgreSQL
_SQLITE = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000")


def now() -> int:
    return time.time_ns() // 1_000_000


_HASTY: ContextVar[bool] = ContextVar("hasty", default=False)


class _BusyError(StoreError):
    """Another writes just now."""


class Store:
    """A database. place: a file of SQLite, made where there is none, or postgresql://user:password@host/database.

    What is in `read` and `write` runs on the calling thread; `run` takes it off an event loop.
    Raises StoreError for a database that cannot be had.
    """

    def __init__(self, place: str | Path, clock: Clock = now) -> None:
        self.clock = clock
        url = _url(str(place))
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.name = url.render_as_string(hide_password=True)
        pool = {} if self.is_sqlite else {"pool_size": _SPEAKERS, "pool_pre_ping": True}
        self.engine = sa.create_engine(url, **pool)
        if self.is_sqlite:
            # The driver begins transactions late; a writer that read before it wrote would then fail, not wait.
            sa.event.listen(self.engine, "connect", _prepare)
            sa.event.listen(self.engine, "begin", _begin)
            # For `quick`: it neither waits for other writers nor moves the log into the file, which waits for the disk.
            self._hasty = sa.create_engine(url)
            sa.event.listen(self._hasty, "connect", _prepare_hasty)
            sa.event.listen(self._hasty, "begin", _begin)
        # SQLite has one writer at a time: more threads would wait on its lock, not work.
        self._threads = ThreadPoolExecutor(1 if self.is_sqlite else _SPEAKERS, thread_name_prefix="store")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write, committed at the end, undone by an error. Raises StoreError."""
        with (
            _told(self.name),
            self._speaker().connect().execution_options(foretell_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A view that does not change while it is read. Raises StoreError."""
        # PostgreSQL would otherwise show each statement what has been committed by then.
        steady = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with (
            _told(self.name),
            self._speaker().connect().execution_options(**steady) as connection,
            connection.begin(),
        ):
            yield connection

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` on a thread of the store's own, to its end also where the caller has gone."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._threads, lambda: work(*args, **kwargs)))

    async def quick(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` that takes a millisecond and writes in its last transaction only: with SQLite at once, on this thread.

        A thread would wait for the interpreter's lock after each of its many short calls, for up to 5 ms while others
        compute. Where another process is writing, and with PostgreSQL, which answers over a network, it is `run`.
        """
        if self.is_sqlite:
            token = _HASTY.set(True)
            try:
                return work(*args, **kwargs)
            except _BusyError:
                pass
            finally:
                _HASTY.reset(token)
        return await self.run(work, *args, **kwargs)

    def _speaker(self) -> sa.Engine:
        return self._hasty if self.is_sqlite and _HASTY.get() else self.engine

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.engine.dispose()
        if self.is_sqlite:
            self._hasty.dispose()


def insert_once(db: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Add a row; False, with nothing done, where a unique value of it is there already, if only since this moment."""
    kind = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
    # Asked for what was inserted, since the driver's count of rows is not told of every insert.
    added = kind(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
    return db.execute(added).first() is not None


def _url(place: str) -> sa.URL:
    if "://" not in place:
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            if not Path(place).exists():
                Path(place).touch(0o600)  # SQLite's files beside it get the same: they hold people's addresses
        except OSError as error:
            raise StoreError(f"The database {place} cannot be made there: {error.strerror}.") from error
        return sa.URL.create("sqlite", database=place)
    try:
        url = sa.make_url(place)
    except (SQLAlchemyError, ValueError) as error:
        raise StoreError("The database's URL is not of the form postgresql://user:password@host/database.") from error
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise StoreError(f"A database {url.drivername}:// is not known. Give a file, or a URL of postgresql://.")
    if url.get_backend_name() == "postgresql":
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("A database in PostgreSQL", "postgres") from error
        url = url.set(drivername="postgresql+psycopg")
    return url


def _prepare(connection: sa.engine.interfaces.DBAPIConnection, record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for setting in _SQLITE:
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _prepare_hasty(connection: sa.engine.interfaces.DBAPIConnection, record: object) -> None:
    _prepare(connection, record)
    cursor = connection.cursor()
    for setting in ("busy_timeout=0", "wal_autocheckpoint=0"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE" if connection.get_execution_options().get("foretell_write") else "BEGIN"
    )


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # two wrote the same: for whoever asked to tell
    except (OperationalError, DBAPIError, sa.exc.TimeoutError) as error:
        cause = getattr(error, "orig", error)
        why = str(cause).strip().splitlines()[0]
        busy = _HASTY.get() and getattr(cause, "sqlite_errorname", "").startswith("SQLITE_BUSY")
        raise (_BusyError if busy else StoreError)(f"The database {name} does not answer ({why}).") from error
