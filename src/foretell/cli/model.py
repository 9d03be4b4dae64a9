"""model: what a recipe's model is, and whether its parametrisation holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretell.cli import draw
from foretell.cli.run import Depth, RecipeName, Set, load

app = typer.Typer(help="What the model is.", no_args_is_help=True)


@app.command()
def describe(
    recipe: RecipeName,
    overrides: Set = [],  # noqa: B006  (typer copies it)
    depth: Depth = None,
) -> None:
    """Print parameters and FLOPs per token by part."""
    from foretell.model.describe import describe as parts_of

    loaded = load(recipe, overrides, depth)
    parts = parts_of(loaded.model.model_copy(update={"vocab_size": loaded.tokenizer.vocab_size}))
    rows = [(p.name, f"{p.parameters:,}", *_flops(p.forward, p.backward), p.per) for p in parts]
    rows.append(("total", f"{sum(part.parameters for part in parts):,}", "", "", "", ""))
    for per in sorted({part.per for part in parts}, reverse=True):
        of = [part for part in parts if part.per == per]
        rows += [(f"total a {per}", "", *_flops(sum(p.forward for p in of), sum(p.backward for p in of)), per)]
    draw.table(("part", "parameters", "FLOPs forward", "backward", "training", "per"), rows, right=(1, 2, 3, 4))


def _flops(forward: float, backward: float) -> tuple[str, str, str]:
    return f"{forward:,.0f}", f"{backward:,.0f}", f"{forward + backward:,.0f}"


@app.command()
def coordcheck(
    recipe: RecipeName,
    overrides: Set = [],  # noqa: B006  (typer copies it)
    out: Annotated[Path | None, typer.Option(help="Also draw the curves as a page in this file.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 4,
    seeds: Annotated[int, typer.Option(min=1)] = 2,
    standard: Annotated[bool, typer.Option("--standard", help="Without the scaling, to see what wrong looks like.")] = (
        False
    ),
) -> None:
    """Check that activations and updates keep their size over width and depth, per tower."""
    from foretell.model.coordcheck import coordcheck as check
    from foretell.model.coordcheck import slopes

    loaded = load(recipe, overrides, None)
    model = loaded.model.model_copy(update={"vocab_size": min(loaded.tokenizer.vocab_size, 512)})
    points = []
    with draw.progress() as report:
        for point in check(model, loaded.train.optimizer, steps=steps, seeds=seeds, standard=standard):
            points.append(point)
            report("coordcheck", len(points), None, f"{point.axis} × {point.scale:g}")
        report("coordcheck", 1, 1, f"{len(points)} points")
    scales = sorted({point.scale for point in points})
    growth = slopes(points)
    last = {(p.axis, p.probe, p.scale): p.change for p in points if p.step == steps}
    rows = [
        (axis, probe, *(f"{last[axis, probe, scale]:.3g}" for scale in scales), f"{slope:+.2f}")
        for (axis, probe), slope in growth.items()
    ]
    print(f"Size of the update after {steps} steps, by multiple of the base shape; the exponent should be near 0.\n")
    columns = ("axis", "activation", *(f"× {scale:g}" for scale in scales), "exponent")
    draw.table(columns, rows, right=range(2, len(columns)))
    if out is not None:
        from foretell.report.coordcheck import write_coordcheck

        write_coordcheck(points, growth, out)
        print(f"\nCurves: {out}")
