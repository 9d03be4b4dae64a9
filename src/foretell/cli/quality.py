"""data quality-train, quality-score: a classifier of one's own for what a good document is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foretell.data.document import Document


def register(app: typer.Typer) -> None:
    app.command("quality-train")(train)
    app.command("quality-score")(score)


def train(
    good: Annotated[str, typer.Argument(metavar="GOOD", help="Documents to keep: a folder, file, glob or collection.")],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="Documents to leave out.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The classifier, for the step `quality` of a recipe.")],
) -> None:
    """Learn to tell good documents from bad, and say how well it does on documents it has not seen."""
    from foretell.data.curate.quality import train_quality

    report = train_quality(_documents(good), _documents(bad), out)
    print(f"Learned from {report.train_good:,} good and {report.train_bad:,} bad documents.")
    print(
        f"On {report.heldout_good:,} and {report.heldout_bad:,} others: area under the curve {report.auc:.3f}; at "
        f"{report.threshold:.3f} it keeps {report.balanced:.1%} of the good and leaves out as many of the bad."
    )
    print(f"In a recipe: {{step: quality, model: {out}, at_least: {report.threshold:.3f}}}")


def score(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="What quality-train wrote.")],
    documents: Annotated[str, typer.Argument(metavar="DOCUMENTS", help="A folder, file, glob or collection.")],
    count: Annotated[int, typer.Option(min=1, help="How many documents.")] = 20,
) -> None:
    """Print the score of some documents, from 0 (as the bad ones) to 1 (as the good ones)."""
    from itertools import islice

    from foretell.cli.data import printable
    from foretell.data.curate.quality import QualityStep
    from foretell.data.curate.texts import text_of

    quality = QualityStep(model=model)
    for document in islice(_documents(documents), count):
        print(printable(f"{quality.score(text_of(document)):.3f}  {document.id}"))


def _documents(place: str) -> Iterator[Document]:
    from foretell.data.curate.steps import Removed
    from foretell.data.read import read, source_of, units

    folder = Path(place)
    source = source_of(str(folder / "data") if (folder / "collection.json").is_file() else place)
    for unit in units(source):
        yield from (found for found in read(source, unit) if not isinstance(found, Removed))
