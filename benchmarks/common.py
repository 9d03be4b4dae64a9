"""What every benchmark shares: alternating runs, figures with their spread, and the form of a committed result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def figure(
    values: float | Sequence[float],
    unit: str,
    aim: float | None = None,
    interval: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A measured figure: the median of `values`, with the smallest and largest as its spread.

    aim: what was asked for, whether reached or not. interval: the spread, where it is not that of `values`.
    Raises ValueError if nothing was measured: such a figure is left out, never zero.
    """
    rounds = [values] if isinstance(values, int | float) else list(values)
    if not rounds:
        raise ValueError("no values: a figure that was not measured is left out")
    result: dict[str, Any] = {"value": _short(statistics.median(rounds)), "unit": unit}
    if len(rounds) > 1:
        interval = min(rounds), max(rounds)
    if interval is not None:
        result["spread"] = [_short(end) for end in interval]
    if aim is not None:
        result["aim"] = aim
    return result


def alternate(a: Callable[[], float], b: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Measure two candidates in turn, so that a slow spell of the machine falls on both.

    Each call returns its own figure (a time or a rate); the first of a pair changes every round.
    Returns the `rounds` figures of a and of b, paired by round.
    """
    seen_a: list[float] = []
    seen_b: list[float] = []
    for turn in range(rounds):
        for measure, seen in ((a, seen_a), (b, seen_b)) if turn % 2 == 0 else ((b, seen_b), (a, seen_a)):
            seen.append(measure())
    return seen_a, seen_b


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a/b, round by round: the spread of a ratio is that of its pairs, not of its parts."""
    return [left / right for left, right in zip(a, b, strict=True)]


def write_result(name: str, command: str, figures: dict[str, dict[str, Any]], folder: Path | None = None) -> Path:
    """Write <name>.json into `folder`, by default benchmarks/results; returns its path.

    name: file stem; on a machine with a CUDA device `.gpu` is appended. command: what was typed at the root.
    """
    # The project's own atomic writer; imported here so that the docs build needs nothing of the package.
    from foretell.files import write_json

    machine = describe_machine()
    path = (folder or RESULTS) / f"{name}{'.gpu' if machine['gpu'] else ''}.json"
    result = {
        "name": name,
        "command": command,
        "commit": commit(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "figures": figures,
    }
    write_json(path, result)
    return path


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, CUDA device or None, torch version."""
    import torch

    from foretell.measure.machine import cores

    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def commit() -> str:
    """The commit the code stands at; `-dirty` is appended when tracked code differs from it.

    On a machine that holds only a copy of the tree, FORETELL_COMMIT names it.
    """
    if named := os.environ.get("FORETELL_COMMIT"):
        return named

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All committed results, by file name; `file` is added to each."""
    return [
        json.loads(path.read_text(encoding="utf-8")) | {"file": path.name} for path in sorted(folder.glob("*.json"))
    ]


def _short(value: float) -> float | int:
    """Four significant digits, since no timing carries more; counts stay whole."""
    return value if isinstance(value, int) else float(f"{value:.4g}")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
