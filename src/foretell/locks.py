"""One process at a time in a run directory: a lock that a process which is gone leaves to the next."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretell.errors import RunError
from foretell.files import describe_os_error

LOCK = ".lock"


@contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process. A lock whose process is gone is taken over.

    Raises RunError when another process that is still alive holds it.
    """
    mine = _whoami()
    with guarded(run_dir / LOCK) as file:
        holder = _parse(file.read_text())
        if holder and _alive(holder):
            raise RunError(
                f"{run_dir} is in use by process {holder['pid']} on {holder['host']} (since {holder['since']}). "
                f"Wait for it, or choose another folder with --out. If that process is gone, delete {file}."
            )
        file.write_text(json.dumps(mine))
    try:
        yield
    finally:
        with guarded(run_dir / LOCK) as file:
            if _parse(file.read_text()) == mine:
                file.write_text("")


def in_use(run_dir: Path) -> bool:
    """Whether a process that is alive holds the directory."""
    try:
        holder = _parse((run_dir / LOCK).read_text(encoding="utf-8"))
    except OSError:
        return False
    return bool(holder) and _alive(holder)


@contextmanager
def guarded(path: Path) -> Iterator[Path]:
    """Exclusive use of a lock file for a moment, so that two processes cannot both act on what they read."""
    try:
        import fcntl
    except ImportError:  # Windows: the process id alone guards
        path.touch()
        yield path
        return
    try:
        stream = path.open("a+")
    except OSError as error:
        raise RunError(describe_os_error(error, path)) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield path


def _whoami() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "pid": pid,
        "host": socket.gethostname(),
        "born": _born(pid),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "job": _job(),
    }


def _job() -> str:
    """What torchrun or Slurm calls the work that this process belongs to; empty outside of both."""
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if job == "none" else job  # torchrun's name for a job that has none


def _born(pid: int) -> str:
    """Start tick of a process on Linux: tells a reused process id from the old one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and {"pid", "host", "born", "since"} <= value.keys() else {}


def _alive(holder: Mapping[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        # It cannot be seen from here. But where torchrun has started the job anew, its earlier processes are gone.
        return not (_job() and holder.get("job") == _job())
    if os.name == "nt":
        return True  # there os.kill would interrupt it
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return bool(_born(int(holder["pid"])) == holder["born"])
