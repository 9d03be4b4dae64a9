"""data: look at what a model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What the model reads.", no_args_is_help=True)


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
        print(_printable(f"--- {document.id}\n    {' · '.join(about)}"))
        text = "\n".join(
            f"[image, {len(s.image):,} bytes: {s.caption or s.alt or 'no caption'}]"
            if s.image is not None
            else f"{s.role}: {s.text}" if s.role else s.text or ""
            for s in document.segments
        )  # fmt: skip
        print(_printable(text[:width]))


def _printable(text: str) -> str:
    """Text from outside must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
