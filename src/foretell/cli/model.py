"""model: what a recipe's model is, and whether its parametrisation holds."""

from __future__ import annotations

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
    rows = [(part.name, f"{part.parameters:,}", f"{part.flops:,.0f}", part.per) for part in parts]
    rows.append(("total", f"{sum(part.parameters for part in parts):,}", "", ""))
    flops = {per: sum(part.flops for part in parts if part.per == per) for per in ("token", "tile")}
    rows += [(f"total a {per}", "", f"{count:,.0f}", per) for per, count in flops.items() if count]
    draw.table(("part", "parameters", "training FLOPs", "per"), rows, right=(1, 2))
