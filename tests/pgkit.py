"""A real PostgreSQL for tests, started by them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def running_postgresql(folder: Path) -> Iterator[str]:
    """The URL of one that lies in `folder` and is reached by a socket; skips where none is installed."""
    pytest.importorskip("psycopg")
    if not _PROGRAMS:
        pytest.skip("no PostgreSQL is installed")
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:  # which PostgreSQL refuses
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user may run PostgreSQL here")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        folder = Path(f"/tmp/foretell-pg-{os.getpid()}")  # pytest's folders are closed to others
        folder.mkdir()
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, **as_user)
        assert done.returncode == 0, done.stderr

    at = _PROGRAMS[-1]
    try:
        run(str(at / "initdb"), "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "-N")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(str(at / "pg_ctl"), "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
        run(str(at / "pg_ctl"), "-D", f"{folder}/data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def emptied(url: str) -> str:
    """The URL again, once nothing is in the database."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url
