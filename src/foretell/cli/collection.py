"""data build, why, remove, view: collections of documents, and the story of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretell.cli import draw
from foretell.cli.run import Set

if TYPE_CHECKING:
    from foretell.data.collection.recipe import CollectionRecipe

Out = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a collection, as made by foretell data build.")]


def register(app: typer.Typer) -> None:
    for command in (build, why, remove, view):
        app.command()(command)


def build(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A recipe (YAML), or a folder, file, glob or URL of documents.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the collection; default collections/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one a core.")] = None,
    on: Annotated[str, typer.Option(metavar="WHERE", help="local, ray, ray:ADDRESS of a cluster, or slurm.")] = "local",
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the files that only serve resuming.")] = False,
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Read documents, filter and deduplicate them, and write what is kept as Parquet with a data card. Skips what is
    done, resumes what was cut off."""
    from foretell.measure.fanout import prepare

    if on == "local" and workers != 1:
        prepare("foretell.data.collection.work")  # while this process imports the same
    from foretell.data.collection import recipe as recipes
    from foretell.data.collection.run import build as run

    loaded = recipes.load(what, tuple(overrides))
    folder = out or Path("collections") / loaded.name
    with draw.progress() as report:
        totals = run(loaded, folder, workers=workers, on=on, keep_work=keep_work, report=report)
    if totals:
        _tell(totals, folder, loaded)


def _tell(totals: dict[str, Any], folder: Path, recipe: CollectionRecipe) -> None:
    removed = sum(totals["removed"].values())
    print(
        f"{totals['documents_in']:,} records came in: {totals['documents_kept']:,} documents kept, {removed:,} removed."
    )
    ordered = sorted(totals["removed"].items(), key=lambda item: (-item[1], item[0]))
    if ordered:
        draw.table(["removed for", "records"], [[reason, f"{n:,}"] for reason, n in ordered[:12]], right=[1])
    print(f"Data card: {folder / 'card.html'} (and card.md). Look at documents with: foretell data view {folder}")
    print(f"Train on it: foretell run own-cpu --set data.sources.own.path={folder}")


def why(
    out: Out,
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="Its id, URL or locator, as the ledger has it.")],
) -> None:
    """Tell where a document came from and what each step did to it."""
    from foretell.cli.data import printable
    from foretell.data.collection.why import finished, told
    from foretell.data.collection.why import why as find

    stories = find(out, document)
    _, recipe, _ = finished(out)
    for story in stories:
        print(printable(f"{story.row.id} (shard {story.shard})"))
        for name, what in told(story, recipe):
            print(printable(f"  {name:<16} {what}"))


def remove(
    out: Out,
    words: Annotated[
        list[str], typer.Argument(metavar="LICENCE|URL|ID…", help="URLs also by their beginning or host.")
    ],
) -> None:
    """Take documents out of a collection for good; only the shards they stand in are written anew."""
    from foretell.data.collection.remove import remove as run

    with draw.progress() as report:
        done = run(out, words, report)
    print(
        f"Documents removed: {done['documents']:,}, with {done['images']:,} images that nothing else shows. "
        f"Shards written anew: {done['shards']:,}. To leave them out of a new build, add to its recipe "
        "(with the ids of their copies, which else come back as what they were copies of):"
    )
    print(f"exclude: [{', '.join(words)}]")


def view(
    out: Out,
    source: Annotated[str | None, typer.Option(help="Only documents of this source.")] = None,
    step: Annotated[str | None, typer.Option(help="Only what this step changed or removed.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Examples of each group.")] = 5,
) -> None:
    """Write a page with documents by source, what each step changed and removed, and histograms."""
    from foretell.data.collection.view import view as write

    print(write(out, source=source, step=step, count=count))
