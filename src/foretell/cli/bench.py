"""bench: what this machine can do, and what a model gets of it."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw
from foretell.cli.run import Set

if TYPE_CHECKING:
    from foretell.pipeline.bench import Figure


def bench(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="tiny, 1m, 10m, 30m, 150m, 1b, or a recipe, as for run.")
    ] = "10m",
    device: Annotated[str | None, typer.Option(help="Default: the recipe's, or the best there is.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures here; - prints them.")] = (
        None
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the time, for figures that say less.")] = False,
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Measure in about a minute what this machine does: products, memory, training, decoding, feeding."""
    from foretell.errors import RecipeError
    from foretell.files import write_json
    from foretell.pipeline import bench as benchmark

    if model in benchmark.SHAPES and not Path(model).exists():
        from foretell.recipes import override

        recipe = override(benchmark.shape_recipe(model), overrides)
    else:
        from foretell.recipes import find_recipe, load_recipe

        try:
            find_recipe(model)
        except RecipeError as error:
            raise RecipeError(f"{error} Or measure a shape: {', '.join(benchmark.SHAPES)}.") from error
        recipe = load_recipe(model, overrides)
    printed = str(json) == "-"
    figures: list[benchmark.Figure] = []
    try:
        with draw.progress() as report:
            for figure in benchmark.bench(recipe, device=device, quick=quick, report=report):
                figures.append(figure)  # noqa: PERF402  (an interrupt keeps those so far)
    finally:  # what was measured before Ctrl-C is shown, too
        for figure in figures if not printed else ():
            _show(figure)
    found = benchmark.as_json(recipe, figures)
    if printed:
        import json as as_text

        print(as_text.dumps(found, indent=2))
    elif json is not None:
        write_json(json, found)


def _show(figure: Figure) -> None:
    """One line, or several on a narrow terminal."""
    width = shutil.get_terminal_size().columns
    digits = 0 if figure.value >= 100 else 1 if figure.value >= 10 else 2
    head = f"{figure.name:<20} {figure.value:>10,.{digits}f} {figure.unit:<9}"
    if len(head) + 1 + len(figure.note) <= width:
        print(f"{head} {figure.note}".rstrip())
    else:
        print(head.rstrip())
        print(textwrap.fill(figure.note, max(20, width), initial_indent="  ", subsequent_indent="  "))
