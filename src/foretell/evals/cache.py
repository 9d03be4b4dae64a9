"""Answers of models, kept over runs: the same question to the same model is asked once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretell.errors import EvalError

_AT_ONCE = 200  # answers a transaction


class Cache:
    """A SQLite file of answers by the digest of all that decides them.

    Raises EvalError for a file that is no such cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new: dict[str, str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One thread at a time, though not the one that opened it: in a notebook a run has a thread of its own.
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            raise EvalError(f"{path} is no cache of answers ({error}). Give another path, or delete it.") from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer, as it was put; None where there is none."""
        text = self._new.get(key)
        if text is None:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            text = row[0] if row else None
        found: dict[str, Any] | None = None if text is None else json.loads(text)
        return found

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        self._new[key] = json.dumps(answer)
        if len(self._new) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was put."""
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", self._new.items())
        except sqlite3.Error as error:
            raise EvalError(f"{self.path} cannot be written ({error}). Make room, or run without a cache.") from error
        self._new.clear()

    def close(self) -> None:
        self.flush()
        self._db.close()
