"""eval rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw

if TYPE_CHECKING:
    from foretell.measure.stats import Interval


def rates(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Of an eval that tells rates, such as factuality.")],
    against: Annotated[
        Path | None, typer.Option(metavar="LOG", help="The same eval of another model, such as before alignment.")
    ] = None,
    parts: Annotated[bool, typer.Option("--parts/--no-parts", help="Each category, form or group as well.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Of the summary; default beside LOG.")] = None,
) -> None:
    """All rates of a run with 95 % intervals, by parts; against another run as paired differences."""
    from foretell.evals.log import read_log
    from foretell.evals.rates import changes_of, rates_of, write_rates

    run, before = read_log(log), None if against is None else read_log(against)
    if before is None:
        told = [
            (r.measure.title, f"{r.value.estimate:.3f}" if r.n else "", _ends(r.value) if r.n else "", r.n, r.keys)
            for r in rates_of(run)
            if parts or not r.measure.detail
        ]
        draw.table(("measure", "rate", "95 % interval", "n", "independent"), told, right=(1, 3, 4))
    else:
        rows = [
            (c.measure.title, f"{c.before.estimate:.3f}", f"{c.after.estimate:.3f}",
             f"{c.difference.estimate:+.3f}", _ends(c.difference), c.verdict, c.n)
            for c in changes_of(before, run)
            if parts or not c.measure.detail
        ]  # fmt: skip
        head = ("measure", "before", "after", "difference", "95 % interval", "verdict", "n")
        draw.table(head, rows, right=(1, 2, 3, 6))
    invalid = int(run.invalid.sum())
    if invalid:
        print(f"{invalid} of {len(run)} samples could not be judged and are in no rate; the summary says why.")
    print(f"summary: {write_rates(run, before, out)}")


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"
