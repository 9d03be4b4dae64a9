"""forecast capability: the pass rates of a run, foretold from its ladder and compared when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw
from foretell.cli.run import On

if TYPE_CHECKING:
    from foretell.forecast.register import Record


def capability(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory whose ladder is trained.")],
    per_grade: Annotated[int, typer.Option(min=1, help="Problems of each grade.")] = 40,
    grades: Annotated[str | None, typer.Option(help="Grades, such as 2,3,4; default: those of the recipe.")] = None,
    wanted: Annotated[int, typer.Option(min=1, help="Passes of a problem at which sampling stops.")] = 10,
    most: Annotated[int, typer.Option(min=10, help="Draws of a problem at which it stops without them.")] = 1000,
    buckets: Annotated[int, typer.Option(min=1, help="Of problems, by difficulty.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Models at a time; default one a core.")] = None,
    on: On = "local",
) -> None:
    """Foretell how many held-out programs a run will get right, from draws of its ladder's models.

    Before the run: asks every rung, sorts the problems into buckets, fits each, and registers loss and pass rates in
    one record. After it: asks the finished model the same, and notes the outcome. What was drawn is kept; a command
    that was interrupted goes on where it was.
    """
    from foretell.pipeline import capability as stage
    from foretell.pipeline.stages import run_status

    recipe, _ = run_status(run)
    with draw.progress() as report:
        if (run / "pretrain" / "log.jsonl").exists():
            record, _ = stage.compare_capability(run, recipe, workers=workers, on=on, report=report)
        else:
            chosen = {"grades": _grades(grades)} if grades else {}
            exam = stage.exam_of(recipe, per_grade=per_grade, wanted=wanted, most=most, seed=seed, **chosen)
            record, _ = stage.foretell_capability(
                run, recipe, exam, buckets=buckets, workers=workers, on=on, report=report
            )
    page = run / "forecasts" / f"{Path(record.name).stem}-capability.html"
    stage.write_page(run, record, page)
    _tell(record)
    print(f"Page: {page}")


def _grades(text: str) -> tuple[int, ...]:
    from foretell.errors import ForecastError

    try:
        return tuple(int(grade) for grade in text.split(","))
    except ValueError:
        raise ForecastError(f"--grades is {text!r}; expected whole numbers such as 2,3,4.") from None


def _tell(record: Record) -> None:
    found = {outcome.claim.name: outcome for outcome in record.outcomes}
    rows = []
    for claim in record.claims:
        outcome = found.get(claim.name)
        was = ("diverged" if outcome.measured is None else f"{outcome.measured:.4g}") if outcome else ""
        said = ("inside" if outcome.hit else "outside") if outcome else ""
        rows.append((claim.name, f"{claim.value:.4g}", f"{claim.low:.4g}", f"{claim.high:.4g}", was, said))
    level = record.claims[0].level
    draw.table(("claim", "forecast", f"{level:.0%} from", "to", "outcome", ""), rows, right=(1, 2, 3, 4))
    print(f"\nRecord: {record.name}, registered {record.utc[:19]} UTC, SHA-256 {record.sha256}")
