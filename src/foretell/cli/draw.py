"""Progress and tables on a terminal; plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell.run import Report

_LINE_EVERY = 20.0  # seconds between plain lines of one task


@contextmanager
def progress() -> Iterator[Report]:
    """A Report that draws bars on a terminal's standard error, or writes a line now and then into a file."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = ("[progress.description]{task.description:<22}", "{task.fields[note]}")
    bars = Progress(
        TextColumn(columns[0]),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn(columns[1], markup=False),
        console=Console(stderr=True),
    )
    known: dict[str, TaskID] = {}

    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if total == 0:
            bars.console.print(f"{task}: {note}", style="bold red", markup=False, highlight=False)
            return
        if task not in known:
            known[task] = bars.add_task(task, total=total, note=note)
        bars.update(known[task], completed=done, total=total, note=note)

    with bars:
        yield report


class _Lines:
    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def __call__(self, task: str, done: float, total: float | None = None, note: str = "") -> None:
        if total == 0:
            print(f"{task}: {note}", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        share = done / total if total else 0.0
        before, shown = self._last.get(task, (float("-inf"), -1.0))
        if shown == 1.0 or (share < 1.0 and now - before < _LINE_EVERY):
            return
        self._last[task] = now, share
        print(f"{task}{f' {share:.0%}' if total else ''}{' ' + note if note else ''}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print a plain table; `right` lists the columns to be aligned right. Columns without any name have no head."""
    texts = [[str(cell) for cell in row] for row in ([columns] if any(columns) else []) + [*rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    for row in texts:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
