"""data: look at what a model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretell.cli import collection, quality

app = typer.Typer(help="What the model reads.", no_args_is_help=True)
collection.register(app)
quality.register(app)


@app.callback()
def group() -> None:
    """What the model reads."""


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory with a finished data stage.")],
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only documents of this kind, such as charts or charts.pie.")] = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="Held-out documents instead of training ones.")] = False,
    count: Annotated[int, typer.Option(min=1, help="How many documents of each source.")] = 3,
    width: Annotated[int, typer.Option(min=20, help="Characters shown of each document.")] = 600,
) -> None:
    """Print sample documents of a run, with their provenance."""
    from foretell.pipeline.documents import samples

    for document in samples(run_dir, source, kind, "heldout" if heldout else "train", count):
        about = [document.source, document.kind, document.license, document.language, document.date or "no date"]
        print(printable(f"--- {document.id}\n    {' · '.join(about)}"))
        text = "\n".join(
            f"[image, {len(s.image):,} bytes: {s.caption or s.alt or 'no caption'}]"
            if s.image is not None
            else f"{s.role}: {s.text}" if s.role else s.text or ""
            for s in document.segments
        )  # fmt: skip
        print(printable(text[:width]))


@app.command()
def plant(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines to be written, a source for a recipe.")],
    each: Annotated[int, typer.Option(min=1, help="Secrets of every number of repetitions.")] = 20,
    repeats: Annotated[
        str, typer.Option(metavar="N,…", help="How often they stand in the file; 0 is the control.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the secrets; the eval `memorised` has to be given the same.")] = 0,
) -> None:
    """Write invented secrets to be trained on, so that the eval `memorised` can tell which a model gives back."""
    import json

    from foretell.data.world.secrets import REPEATS, planted
    from foretell.files import write_text

    try:
        counts = [int(part) for part in repeats.split(",")] if repeats else list(REPEATS)
    except ValueError as error:
        raise typer.BadParameter(f"--repeats is {repeats!r}; expected whole numbers, such as 0,1,8,64.") from error
    rows = [json.dumps(row) for row in planted(each, counts, seed)]
    write_text(out, "".join(f"{row}\n" for row in rows))
    args = f"each={each},seed={seed}" + (f",repeats=[{','.join(map(str, counts))}]" if repeats else "")
    print(f"{len(rows):,} rows: {out}")
    print(f"Ask a model trained on it: foretell eval run MODEL memorised --extra-eval-params '{args}'")


def printable(text: str) -> str:
    """Text from outside must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
