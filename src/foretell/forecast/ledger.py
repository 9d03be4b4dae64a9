"""An append-only file whose lines chain by SHA-256, and files that are created once.

`ledger.jsonl` holds a line of canonical JSON for every event, each with the hash of the line before; `ledger.head`
holds the last hash, so that lines cut off the end are missed too. Whoever owns the files can still rewrite all of
them: what an outsider must be able to trust is published or anchored outside (`forecast.anchor`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretell.errors import ForecastError
from foretell.files import describe_os_error, write_text
from foretell.locks import guarded

LEDGER, HEAD = "ledger.jsonl", "ledger.head"
RECORDS = "forecasts"  # folder of a run that holds its records
FIRST = "0" * 64  # what the first line holds in place of a hash
_LARGEST = 256_000_000

Entry = dict[str, Any]


@contextmanager
def opened(folder: Path) -> Iterator[list[Entry]]:
    """The ledger of a folder, for one process at a time; empty where there is none yet.

    Raises ForecastError when it is not whole, or something cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with guarded(folder / f".{LEDGER}.lock"):
            yield read_ledger(folder) if (folder / LEDGER).exists() or (folder / HEAD).exists() else []
    except OSError as error:
        raise ForecastError(describe_os_error(error, folder / LEDGER)) from error


def read_ledger(folder: Path) -> list[Entry]:
    """Every line of a folder's ledger, oldest first. Raises ForecastError naming the first line that is not whole."""
    head = read_bytes(folder / HEAD)  # first, since another process may be appending
    return chain(read_bytes(folder / LEDGER).splitlines(keepends=True), head, str(folder / LEDGER))


def append(folder: Path, entries: list[Entry], entry: Entry) -> None:
    """Add one line to the ledger and to `entries`, as `opened` gave them: all of it or nothing."""
    previous = entries[-1]["hash"] if entries else FIRST
    body = {"n": len(entries) + 1, "previous": previous, "utc": utc(), **entry}
    full = {**body, "hash": sha256(canonical(body))}
    with (folder / LEDGER).open("ab", buffering=0) as stream:
        before, line = stream.tell(), canonical(full)
        try:
            if stream.write(line) != len(line):
                raise OSError(28, "the disk is full")
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(before)
            raise
    write_text(folder / HEAD, head(full))
    entries.append(full)


def head(last: Entry) -> str:
    return f"{last['n']} {last['hash']}\n"


def chain(lines: Sequence[bytes], head: bytes, name: str) -> list[Entry]:
    """The entries, if each line is whole and holds the hash of the one before, down to the head's.

    A ledger longer than its head says is whole: a process may have ended between the two.
    """
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = parse(line, name)
            body = {key: value for key, value in entry.items() if key != "hash"}
            whole = line == canonical(entry) and entry["hash"] == sha256(canonical(body))
            whole = whole and {"kind", "record", "sha256", "utc", "previous", "n"} <= entry.keys()
        except (ForecastError, KeyError, ValueError):
            whole = False
        if not whole:
            raise ForecastError(f"Line {number} of {name} was altered. Take the ledger from a copy.")
        if entry["previous"] != (entries[-1]["hash"] if entries else FIRST) or entry["n"] != number:
            raise ForecastError(f"{name} is broken at line {number}: a line is missing, added or moved.")
        entries.append(entry)
    count, _, last = head.decode("utf-8", "replace").partition(" ")
    reached = count.isdecimal() and 0 < int(count) <= len(entries)
    if not reached or f"{entries[int(count) - 1]['hash']}\n" != last:
        raise ForecastError(
            f"{name} has {len(entries)} lines and does not hold the last one written ({HEAD}: line {count[:9] or '?'}, "
            f"hash {last[:12].strip() or '?'}): its end was cut off, or {HEAD} was altered. Take both from a copy."
        )
    return entries


def create(path: Path, data: bytes) -> None:
    """Write a new file that nobody may write to; never over an old one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
    except FileExistsError:
        raise ForecastError(f"{path} exists. A record is never overwritten; give the new one another name.") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink()
        raise


def read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise ForecastError(f"{path} is larger than {_LARGEST // 10**6} MB, as no forecast record is.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ForecastError(f"{path} is missing. A record counts only beside its {LEDGER} and {HEAD}.") from None
    except OSError as error:
        raise ForecastError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ForecastError(f"{name} is not JSON ({error}): it was altered, or is no forecast record.") from error
    if not isinstance(value, dict):
        raise ForecastError(f"{name} holds no JSON object: it was altered, or is no forecast record.")
    return value


def canonical(value: Any) -> bytes:
    """The one way to write a value: keys sorted, no spaces, ASCII, shortest floats, a newline at the end."""
    try:
        return (json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode("ascii")
    except (ValueError, RecursionError) as error:
        raise ForecastError(f"A record cannot hold this value: {error}.") from error


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def utc() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def registered(folder: Path) -> list[str]:
    """Names of a folder's records, in the order of their registration; none where there is no folder."""
    return (
        [entry["record"] for entry in read_ledger(folder) if entry["kind"] == "registered"] if folder.is_dir() else []
    )
