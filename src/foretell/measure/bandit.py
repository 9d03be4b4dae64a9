"""Static findings in Python programs by bandit, in a process of its own. Programs are parsed and never run."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foretell.errors import MissingExtraError, SandboxError

Severity = Literal["low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")
_WAIT_S = 300


@dataclass(frozen=True)
class Weakness:
    """test: bandit's id, such as B602. cwe: number of the weakness; 0 where bandit tells none. line: of the program."""

    test: str
    name: str
    cwe: int
    severity: Severity
    line: int
    text: str


@dataclass(frozen=True)
class Scanned:
    """What was found in a program. error: why it could not be looked through, such as a syntax error; else ""."""

    weaknesses: tuple[Weakness, ...] = ()
    error: str = ""

    def at_least(self, severity: Severity) -> list[Weakness]:
        """Those of a severity or above."""
        return [w for w in self.weaknesses if SEVERITIES.index(w.severity) >= SEVERITIES.index(severity)]


def command() -> list[str]:
    """How bandit is started: that of this Python, else the one on the path. Raises MissingExtraError without one."""
    if importlib.util.find_spec("bandit") is not None:
        return [sys.executable, "-m", "bandit"]
    if (found := shutil.which("bandit")) is not None:
        return [found]
    raise MissingExtraError("Looking for insecure code (bandit)", "safety")


def scan(programs: Sequence[str]) -> list[Scanned]:
    """What bandit finds in each program, comments that would silence it ignored.

    Raises MissingExtraError without bandit, SandboxError where it does not end well.
    """
    start = command()
    if not programs:
        return []
    with tempfile.TemporaryDirectory(prefix="foretell-bandit-") as folder:
        places = [Path(folder) / f"{number:06d}.py" for number in range(len(programs))]
        for place, program in zip(places, programs, strict=True):
            place.write_text(program, encoding="utf-8", errors="replace")
        asked = [*start, "--quiet", "--recursive", "--format", "json", "--ignore-nosec", "--exit-zero", folder]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=_WAIT_S, cwd=folder, check=False)
            told = json.loads(done.stdout)
            return [_scanned(place, told) for place in places]
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"bandit took more than {_WAIT_S} s for {len(programs)} programs. Ask fewer.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = done.stderr.strip().splitlines()[-1:] if "done" in locals() else []
            raise SandboxError(
                f"bandit did not answer as it should ({' '.join(said) or error}). Install it again: pip install "
                "'foretell[safety]'"
            ) from error


def _scanned(place: Path, told: dict[str, Any]) -> Scanned:
    name = place.name
    errors = [str(row["reason"]) for row in told["errors"] if Path(row["filename"]).name == name]
    rows = [row for row in told["results"] if Path(row["filename"]).name == name]
    if not errors and not any(Path(file).name == name for file in told["metrics"]):
        errors = ["it was passed over"]
    found = tuple(
        Weakness(
            row["test_id"], row["test_name"], int((row.get("issue_cwe") or {}).get("id") or 0),
            row["issue_severity"].lower(), int(row["line_number"]), row["issue_text"],
        )
        for row in rows
        if row["issue_severity"].lower() in SEVERITIES
    )  # fmt: skip
    return Scanned(found, errors[0] if errors else "")
