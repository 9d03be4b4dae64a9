"""forecast plan --cluster: what a run needs on a described cluster, and how to spread it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from foretell.cli import draw

UNCOUNTED = "Images are not counted: how many there are is known once the data are packed. Plan on the run's folder."

if TYPE_CHECKING:
    from foretell.forecast.cluster import Cluster
    from foretell.forecast.job import Job
    from foretell.forecast.rungs import DataShape
    from foretell.forecast.spread import Spread
    from foretell.recipe import Recipe


def plan_on(
    named: str,
    recipe: Recipe | None,
    data: DataShape | None,
    cluster: str,
    precision: str | None,
    price: float | None,
    intensity: float | None,
    page: Path | None,
    out: Path | None,
) -> None:
    """named: a shape, where there is no recipe."""
    from foretell.files import write_text
    from foretell.forecast.job import Job
    from foretell.forecast.shapes import find_shape
    from foretell.forecast.spread import spread
    from foretell.forecast.spread_page import spread_page

    if out is not None and recipe is None:
        raise typer.BadParameter("--out writes a recipe, and a shape is none; give a recipe.")
    job = Job.of(recipe, data) if recipe is not None else find_shape(named)
    assert job is not None
    place, precision = _place(cluster, recipe, data, precision)
    if price is not None:
        place = place.model_copy(update={"price": price})
    found = spread(job, place, precision)
    _tell(job, found, precision, intensity)
    if recipe is not None and recipe.model.vision is not None and data is None:
        print(UNCOUNTED)
    if page is not None:
        write_text(page, spread_page(found, precision, intensity))
        print(f"Page: {page.resolve()}")
    if out is not None:
        assert recipe is not None
        write_text(out, _spread_recipe(recipe, found, "auto" if cluster != "here" else recipe.train.device))
        world, node = found.chosen.layout.world, place.node
        launch = f"--ranks {min(world, node)}"
        if world > node:
            launch += f" --nodes {-(-world // node)} --slurm job.sh"
        print(f"Recipe: {out}. Train it with: foretell {f'launch {launch}' if world > 1 else 'run'} {out}")


def is_shape(named: str) -> bool:
    from foretell.forecast.shapes import find_shape

    return find_shape(named) is not None


def load_named(named: str, overrides: list[str]) -> Recipe:
    """The recipe; where there is none of that name, the error speaks of shapes, too."""
    from difflib import get_close_matches

    from foretell.cli.run import load
    from foretell.errors import RecipeError
    from foretell.forecast.shapes import shapes
    from foretell.recipes import find_recipe

    try:
        find_recipe(named)
    except RecipeError as error:
        near = get_close_matches(named, shapes(), 1)
        hint = f" Did you mean the shape {near[0]}?" if near else f" Shapes are {', '.join(shapes())}."
        raise RecipeError(f"{error}{hint}") from error
    return load(named, overrides, None)


def _place(cluster: str, recipe: Recipe | None, data: DataShape | None, precision: str | None) -> tuple[Cluster, str]:
    """The cluster, and what it multiplies in: as training would choose it, where nothing is said."""
    from foretell.forecast.cluster import load_cluster

    if cluster != "here":
        found = load_cluster(cluster)
        if precision is None and recipe is not None:
            precision = recipe.train.precision
            if precision == "auto":
                precision = "bfloat16" if "bfloat16" in found.flops else "float32"
        return found, precision or found.mixed
    if recipe is None:
        raise typer.BadParameter("--cluster here trains a few steps of the recipe; a shape has none. Give a recipe.")
    if precision is not None:
        raise typer.BadParameter("--cluster here takes the recipe's precision; change it with --set train.precision=…")
    from foretell.forecast.here import here

    with draw.progress() as report:
        report("plan", 0, 1, "measuring this machine")
        found = here(recipe, data)
        report("plan", 1, 1)
    return found, next(iter(found.flops))


def _tell(job: Job, found: Spread, precision: str, intensity: float | None) -> None:
    from foretell.forecast.spread_page import certain, described, failures, headline, parts, rows
    from foretell.pages import compact, size

    chosen = found.chosen
    print(
        f"{job.name}: {compact(job.parameters)} parameters, {compact(job.tokens)} tokens, {job.flops:.3g} FLOPs, on "
        f"{chosen.layout.world:,} × {chosen.cluster.device}\n"
    )
    draw.table(("", "", ""), headline(chosen, precision, intensity))
    print(certain(chosen))
    heads, told = rows(found)
    print()
    draw.table(heads, told, right=(1, 2, 3, 6, 7))
    print(f"{found.tried} layouts tried.\n\nparallel:")
    for name, value in chosen.layout.block().items():
        print(f"  {name}: {str(value).lower() if isinstance(value, bool) else value}")
    print(f"train.micro_batch: {chosen.layout.rows}\n")
    print(f"Memory: {', '.join(f'{name} {size(value)}' for name, value in parts(chosen.memory) if value)}.")
    for label, text in [*failures(chosen), *described(chosen, precision)]:
        print(f"{label}: {text}.")


def _spread_recipe(recipe: Recipe, found: Spread, device: str) -> str:
    """The recipe with its `parallel` block, its micro-batch, and the device of where it was planned."""
    import yaml

    from foretell.recipes import recipe_yaml

    layout = found.chosen.layout
    train = recipe.train.model_copy(update={"micro_batch": layout.rows, "device": device})
    text = recipe_yaml(recipe.model_copy(update={"train": train}))
    return text if layout.world == 1 else text + yaml.safe_dump({"parallel": layout.block()}, sort_keys=False)
