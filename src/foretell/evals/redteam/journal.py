"""What a red team did, line by line as it happens: one file of JSON lines that a search, people and pages share.

The first line says with what it was begun. Then come tries (a model was attacked), notes (people wrote what they found)
and translations. A line that was cut off is taken off when the file is opened for writing again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretell.errors import EvalError, RunError
from foretell.evals.redteam.judges import OUTCOMES
from foretell.files import describe_os_error

FORM = "foretell.redteam"
NAME = "journal.jsonl"
PHASES = ("survey", "search", "test")
SEVERITIES = ("none", "low", "medium", "high", "critical")


@dataclass(frozen=True)
class Try:
    """One attack on one request. attack: names of operators. outcome: of OUTCOMES, or None with the reason in why.

    messages: all that was said before the reply, in OpenAI form. seed: text, group, refusal and labels of the request.
    """

    id: str
    phase: str
    area: str
    families: tuple[str, ...]
    attack: tuple[str, ...]
    seed: Mapping[str, Any]
    messages: list[dict[str, Any]]
    reply: str
    outcome: str | None
    why: str = ""

    @property
    def succeeded(self) -> bool:
        return self.outcome == "complied"


@dataclass(frozen=True)
class Note:
    """What a person found. succeeded: whether the model gave what it should not. refusal: what it should have said."""

    id: str
    at: str
    who: str
    area: str
    family: str
    severity: str
    text: str
    succeeded: bool
    messages: list[dict[str, Any]]
    reply: str
    refusal: str | None = None


@dataclass(frozen=True)
class Record:
    """A journal as it was read. areas, families: name → title. finished: whether the search came to its end."""

    path: Path
    head: Mapping[str, Any]
    tries: tuple[Try, ...] = ()
    notes: tuple[Note, ...] = ()
    translations: Mapping[tuple[str, str], str] = field(default_factory=dict)
    finished: bool = False

    @property
    def areas(self) -> Mapping[str, str]:
        return dict(self.head.get("areas", {}))

    @property
    def families(self) -> Mapping[str, str]:
        return {name: told["title"] for name, told in self.head.get("families", {}).items()}


class Journal:
    """A journal that is written. Raises EvalError where it is of another model or other settings, or is damaged."""

    def __init__(self, folder: Path, head: Mapping[str, Any], settings: Mapping[str, Any] | None) -> None:
        """head: of a new one. settings: of a search, all that decides what it tries; None for people's notes alone."""
        self.path = folder / NAME
        self._turn = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                _mend(self.path)
            new = not self.path.exists() or not self.path.stat().st_size
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise RunError(describe_os_error(error, self.path)) from error
        if new:
            self._write({"form": FORM, "created": _now(), **head, "settings": settings})
        self.record = read_journal(folder)
        if new:
            return
        if (model := self.record.head.get("model")) != head.get("model") or _differ(self.record.head, head):
            self._file.close()
            raise EvalError(f"{folder} holds a red team of {model}, not of {head.get('model')}. Choose another --out.")
        begun = self.record.head.get("settings")
        if settings is not None and begun is None:  # people were there first
            self._write({"type": "settings", **head, "settings": settings})
            self.record = read_journal(folder)
            begun = self.record.head.get("settings")
        if settings is not None and (changed := _changed(begun or {}, settings)):
            self._file.close()
            raise EvalError(
                f"{folder} holds a search with other settings ({changed}). Choose another --out, or give the same."
            )

    def add(self, kind: str, row: Mapping[str, Any]) -> None:
        """A line; it is on the disk when this returns. Raises RunError where the disk refuses."""
        self._write({"type": kind, "at": _now(), **row})

    def close(self) -> None:
        self._file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        # Lone surrogates, which a model's text may hold, have no UTF-8.
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._turn:
            try:
                self._file.write(line)
                os.fsync(self._file.fileno())
            except OSError as error:
                raise RunError(describe_os_error(error, self.path)) from error


def read_journal(folder: Path) -> Record:
    """A red team's folder, or its journal. Raises EvalError, naming file and line, for what is none or damaged."""
    path = folder / NAME if folder.is_dir() else folder
    if not path.is_file():
        raise EvalError(f"{folder} holds no {NAME}. Begin one with: foretell redteam MODEL --out {folder}")
    rows = _rows(path)
    if not rows or rows[0].get("form") != FORM:
        raise EvalError(f"{path}, line 1: it is no journal of a red team; expected form {FORM}.")
    head, tries, notes = dict(rows[0]), list[Try](), list[Note]()
    translations: dict[tuple[str, str], str] = {}
    finished = False
    for line, row in enumerate(rows[1:], 2):
        try:
            match row["type"]:
                case "try":
                    tries.append(_try(row))
                case "note":
                    notes.append(_note(row))
                case "translation":
                    translations[str(row["language"]), str(row["text"])] = str(row["told"])
                case "settings":
                    head |= {k: v for k, v in row.items() if k not in ("type", "at")}
                case "end":
                    finished = True
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvalError(f"{path}, line {line} is damaged ({error!r}). Take the line out, and go on.") from error
    return Record(path, head, tuple(tries), tuple(notes), translations, finished)


def _rows(path: Path) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    try:
        with path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):  # cut off while it was written
                    break
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no object")
                found.append(row)
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise EvalError(
            f"{path}, line {len(found) + 1} is no JSON object ({error}). Take the line out, and go on."
        ) from error
    return found


def _try(row: Mapping[str, Any]) -> Try:
    outcome = row["outcome"]
    if outcome is not None and outcome not in OUTCOMES:
        raise ValueError(f"outcome {outcome!r}")
    return Try(
        id=str(row["id"]), phase=str(row["phase"]), area=str(row["area"]), families=tuple(map(str, row["families"])),
        attack=tuple(map(str, row["attack"])), seed=dict(row["seed"]), messages=list(row["messages"]),
        reply=str(row["reply"]), outcome=outcome, why=str(row["why"]),
    )  # fmt: skip


def _note(row: Mapping[str, Any]) -> Note:
    return Note(
        id=str(row["id"]), at=str(row["at"]), who=str(row["who"]), area=str(row["area"]), family=str(row["family"]),
        severity=str(row["severity"]), text=str(row["text"]), succeeded=bool(row["succeeded"]),
        messages=list(row["messages"]), reply=str(row["reply"]), refusal=row.get("refusal"),
    )  # fmt: skip


def _mend(path: Path) -> None:
    """Take off a last line that was cut off while it was written."""
    with path.open("rb+") as stream:
        text = stream.read()
        if text and not text.endswith(b"\n"):
            stream.truncate(text.rfind(b"\n") + 1)


def _differ(held: Mapping[str, Any], head: Mapping[str, Any]) -> bool:
    return bool(held.get("weights") and head.get("weights") and held["weights"] != head["weights"])


def _changed(held: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [k for k in {**held, **now} if held.get(k) != now.get(k)]
    return "; ".join(f"{k}: {str(held.get(k))[:40]}, now {str(now.get(k))[:40]}" for k in names)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
