"""Who has sat which holdout: written down before the first question, so that a second look cannot pass for a first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretell.evals.base import CompletionFn
from foretell.evals.exams.definition import Exam
from foretell.evals.history import History

_TABLE = (
    "CREATE TABLE IF NOT EXISTS foretell_exam_holdouts (log TEXT PRIMARY KEY, exam TEXT NOT NULL, "
    "digest TEXT NOT NULL, model TEXT NOT NULL, identity TEXT NOT NULL, vision TEXT NOT NULL, started TEXT NOT NULL)"
)
_COLUMNS = "log, exam, digest, model, identity, vision, started"


@dataclass(frozen=True)
class Look:
    """One run of a holdout. digest: of the exam as it was. identity: digest of the model's own."""

    log: str
    exam: str
    digest: str
    model: str
    identity: str
    vision: str
    started: str


class Ledger(History):
    """The results store with a table of holdout runs in it. Lines are added, and never changed or taken out."""

    def __init__(self, place: str | Path, wait: float = 30.0) -> None:
        super().__init__(place, wait)
        self._ask(_TABLE)

    def enter(self, exam: Exam, fn: CompletionFn, log: Path, vision: bool) -> int:
        """Note that a model begins a holdout, and tell which of its runs this is: 1 for the first.

        A run that was cut off and goes on has the same log, and is the same one. A model is the same by its name or by
        its identity (place, weights); another version of the exam is the same exam; the arm without images is one of
        its own.
        """
        identity = identity_of(fn)
        row = (
            str(log.absolute()), exam.name, exam.digest, fn.name, identity, _arm(vision),
            datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip
        marks = ", ".join(["%s"] * len(row))
        query = f"INSERT INTO foretell_exam_holdouts ({_COLUMNS}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
        self._ask(query, *row)
        looks = self.looks(exam.name, fn.name, identity, _arm(vision))
        return next(i for i, look in enumerate(looks, 1) if look.log == row[0])

    def looks(self, exam: str, model: str = "", identity: str = "", vision: str = "") -> Sequence[Look]:
        """Runs of an exam's holdout in order of time; of one model where it is named."""
        found: list[tuple[Any, ...]] = self._ask(
            f"SELECT {_COLUMNS} FROM foretell_exam_holdouts WHERE exam = %s ORDER BY started, log",  # noqa: S608
            exam,
        )
        looks = [Look(*row) for row in found]
        return [
            look
            for look in looks
            if (not model or model == look.model or identity == look.identity) and vision in ("", look.vision)
        ]


def identity_of(fn: CompletionFn) -> str:
    """Digest of what a model is, beside its name: a URL, a path, settings."""
    told = getattr(fn, "identity", fn.name)
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _arm(vision: bool) -> str:
    return "vision" if vision else "no vision"
