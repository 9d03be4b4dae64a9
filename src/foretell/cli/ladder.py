"""forecast plan, ladder, tune: what to run, decided before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw
from foretell.cli.run import On, RecipeName, Set, load
from foretell.pages import compact, duration, size

if TYPE_CHECKING:
    from foretell.forecast.plan import Plan
    from foretell.forecast.rungs import DataShape
    from foretell.recipe import Recipe


def register(app: typer.Typer) -> None:
    for command in (plan, ladder, tune, mixture):
        app.command()(command)


def plan(
    recipe: RecipeName,
    budget: Annotated[
        float | None, typer.Option(metavar="FLOPS", help="Training FLOPs to spend, such as 1e15.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Hours of training to spend on this machine.")] = None,
    tokens_per_parameter: Annotated[float | None, typer.Option(help="Default: the recipe's own.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Layers; default: the recipe's own.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Plan the run on this: h100x64 or the like, a YAML file, or `here`."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="That a cluster multiplies in; default the recipe's, of a shape 16 bits.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Per device and hour.")] = None,
    co2: Annotated[
        float | None, typer.Option(min=0, metavar="KG", help="Emitted per kWh; told with --cluster.")
    ] = None,
    page: Annotated[Path | None, typer.Option(metavar="HTML", help="Write a page, with --cluster.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="YAML", help="Write the chosen recipe there.")] = None,
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Say which shape a budget of compute or time buys here, with its memory and ladder; or what a run needs on a
    cluster, and how to spread it there. There RECIPE may also be a shape, such as llama-3-70b."""
    from foretell.cli import spread
    from foretell.files import write_text
    from foretell.forecast import plan as plans
    from foretell.recipes import recipe_yaml

    shape = spread.is_shape(recipe)
    if cluster is None and (shape or any(given is not None for given in (precision, price, co2, page))):
        raise typer.BadParameter("Shapes, --precision, --price, --co2 and --page need a cluster; add --cluster h100x8.")
    if shape and overrides:
        raise typer.BadParameter("--set changes a recipe; a shape is changed in its file.")
    loaded, data = (None, None) if shape else _packed(spread.load_named(recipe, overrides), Path(recipe))
    if cluster is not None:
        if any(given is not None for given in (budget, hours, tokens_per_parameter, depth)):
            raise typer.BadParameter(
                "--cluster plans the recipe as it is. First choose its shape with --budget or --hours and --out, then "
                "plan that recipe on the cluster."
            )
        spread.plan_on(recipe, loaded, data, cluster, precision, price, co2, page, out)
        return
    assert loaded is not None
    with draw.progress() as report:
        found = plans.plan(
            loaded,
            budget=budget,
            hours=hours,
            tokens_per_parameter=tokens_per_parameter,
            depth=depth,
            data=data,
            report=report,
        )
    _tell(found)
    if loaded.model.vision is not None and data is None:
        print(spread.UNCOUNTED)
    if out is not None:
        write_text(out, recipe_yaml(plans.ready(found.chosen, loaded)))
        print(f"\nRecipe: {out}. Train it with: foretell run {out}")


def ladder(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Rungs at a time; default one a core.")] = None,
    on: On = "local",
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Train the rungs below a recipe's run, and register what the run will reach. `foretell run` then trains it."""
    from foretell.forecast.ladder import read_ladder
    from foretell.pipeline import run_recipe
    from foretell.recipe import ForecastConfig

    loaded, given = load(recipe, overrides, None), Path(recipe)
    if loaded.forecast is None:
        loaded = loaded.model_copy(update={"forecast": ForecastConfig()})
    folder = out or (given if given.is_dir() else Path("runs") / loaded.name)
    with draw.progress() as report:
        done = run_recipe(loaded, folder, "forecast", report, on=on, workers=workers)
    trained, told = done["ladder"]["metrics"], done["forecast"]["metrics"]
    table = read_ladder(folder / "ladder", trained["rungs"], loaded.forecast or ForecastConfig())
    rows = [
        (r.run, compact(r.flops), compact(r.params or 0), compact(r.tokens or 0), f"{r.loss:.4f}") for r in table.rungs
    ]
    draw.table(("rung", "FLOPs", "parameters", "tokens", table.unit), rows, right=(1, 2, 3, 4))
    for name, reason in trained["diverged"]:
        print(f"Left out: {name}: {reason}")
    print(f"\n{told['said']}")
    if told["advice"]:
        print(told["advice"])
    print(
        f"Record: {folder / 'forecasts' / told['record']}, registered {told['utc'][:19]} UTC, SHA-256 {told['sha256']}"
    )
    print(f"Page:   {(folder / 'forecast' / 'index.html').resolve()}\nTrain it: foretell run {folder}")


def tune(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(metavar="YAML", help="Write the recipe with its settings there.")],
    widths: Annotated[list[int], typer.Option("--width", help="Of a rung; name two or more. Default: chosen.")] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often rate, batch and decay are searched.")] = 1,
    folder: Annotated[Path | None, typer.Option("--run", help="Run directory; default runs/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Rungs at a time; default one a core.")] = None,
    on: On = "local",
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Search learning rate, batch and weight decay on small rungs, and write the recipe with what they say of it."""
    from foretell.files import write_text
    from foretell.forecast import tune as tuning
    from foretell.pipeline import run_recipe
    from foretell.recipe import ForecastConfig
    from foretell.recipes import recipe_yaml

    loaded, given = load(recipe, overrides, None), Path(recipe)
    run = folder or (given if given.is_dir() else Path("runs") / loaded.name)
    config = loaded.forecast or ForecastConfig()
    with draw.progress() as report:
        run_recipe(loaded, run, "pack", report)
        sized, data = _packed(loaded, run)
        pack, tokenizer = run / "pack", run / "tokenizer"
        evaluate = tuning.trained(
            pack / "train", pack / "heldout", tokenizer, run / "tune", config, workers, on, report
        )
        found = tuning.tune(sized, evaluate, widths=widths, seeds=seeds, rounds=rounds, data=data, report=report)
    for trend in found.trends:
        rows = [
            (
                bowl.width,
                f"{bowl.flops:.3g}",
                "  ".join(f"{value:.3g}: {loss:.4g}" for value, loss in zip(bowl.values, bowl.losses, strict=True)),
                "flat" if bowl.best is None else f"{bowl.best:+.2f} ± {bowl.error:.2f}",
            )
            for bowl in found.bowls
            if bowl.setting == trend.setting
        ]
        print(f"\n{tuning.SETTINGS[trend.setting].capitalize()}: {trend.before:.4g} → {trend.value:.4g} ({trend.said})")
        draw.table(
            ("width", "FLOPs", f"{config.unit} at each value", "lowest, octaves from the rule"), rows, right=(0, 1)
        )
    write_text(out, recipe_yaml(found.recipe.model_copy(update={"tokenizer": loaded.tokenizer})))
    page = run / "tune" / "index.html"
    write_text(page, tuning.tune_page(found, config.unit))
    train = found.recipe.train
    print(
        f"\nSet: learning rate {train.optimizer.lr:.4g} at a batch of {train.batch_tokens} tokens, "
        f"tau {train.optimizer.tau:.3g}."
    )
    print(f"{found.runs} runs, {found.flops:.3g} FLOPs. Recipe: {out}\nPage:   {page.resolve()}")


def mixture(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(metavar="YAML", help="Write the recipe with its weights there.")],
    widths: Annotated[list[int], typer.Option("--width", help="Of a rung; name two or more. Default: chosen.")] = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(help="Mixtures to try; default three a source and two.")] = None,
    aim: Annotated[
        list[str], typer.Option(metavar="SOURCE=WEIGHT", help="Whose loss counts, and how much; default: as weighted.")
    ] = [],  # noqa: B006
    check: Annotated[int, typer.Option(min=0, help="Seeds that the recommendation is tried with afresh.")] = 2,
    folder: Annotated[Path | None, typer.Option("--run", help="Run directory; default runs/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Rungs at a time; default one a core.")] = None,
    on: On = "local",
    overrides: Set = [],  # noqa: B006  (typer copies it)
) -> None:
    """Search the weights of a recipe's sources on small rungs, and forecast what they bring."""
    from foretell.files import write_text
    from foretell.forecast.mixture_page import mixture_page, said
    from foretell.pipeline.mixing import FOLDER, search_mixture
    from foretell.recipes import recipe_yaml

    loaded, given = load(recipe, overrides, None), Path(recipe)
    run = folder or (given if given.is_dir() else Path("runs") / loaded.name)
    with draw.progress() as report:
        found = search_mixture(
            loaded, run, widths=widths, trials=trials, aim=_aim(aim), check=check, workers=workers, on=on, report=report
        )
    best = found.recommended
    rows = [
        (source, f"{before:.1%}", f"{after:.1%}")
        for source, before, after in zip(best.sources, best.before, best.shares, strict=True)
    ]
    draw.table(("source", "before", "recommended"), rows, right=(1, 2))
    print("\n" + "\n".join(said(best, found.came)))
    cost = f"{found.runs} small runs of {compact(found.flops)}FLOP in all."
    page = run / FOLDER / "index.html"
    write_text(out, recipe_yaml(found.recipe))
    write_text(page, mixture_page(loaded.name, found.unit, found.trials, best, found.target, found.came, cost))
    print(f"{cost} Recipe: {out}\nPage:   {page.resolve()}")


def _aim(given: list[str]) -> dict[str, float] | None:
    found = {}
    for text in given:
        name, _, weight = text.rpartition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise typer.BadParameter(f"--aim is {text!r}; expected a source and a weight, such as books=1.")
    return found or None


def _packed(recipe: Recipe, folder: Path) -> tuple[Recipe, DataShape | None]:
    """With what its data cost a token and how many tokens there are, where RECIPE names a run that has packed them."""
    if not (folder / "pack" / "train" / "index.json").is_file():
        return recipe, None
    from foretell.data.tokenizer import Tokenizer
    from foretell.forecast.ladder import data_shape
    from foretell.forecast.rungs import with_vocabulary

    return with_vocabulary(recipe, Tokenizer.load(folder / "tokenizer").vocab_size), data_shape(
        folder / "pack" / "train"
    )


def _tell(found: Plan) -> None:
    rows = [
        (
            "→" if shape is found.chosen else "",
            shape.recipe.model.width,
            shape.recipe.model.depth,
            compact(shape.parameters),
            compact(shape.tokens),
            f"{shape.flops:.3g}",
            duration(shape.seconds),
            size(shape.memory.total),
            shape.recipe.train.batch_tokens,
            f"{shape.recipe.train.optimizer.lr:.3g}",
        )
        for shape in found.shapes
    ]
    names = ("", "width", "depth", "parameters", "tokens", "FLOPs", "time", "memory", "batch", "rate")
    draw.table(names, rows, right=range(1, len(names)))
    chosen, total = found.chosen, found.chosen.flops
    parts = [
        (
            part.name,
            compact(part.parameters),
            f"{part.forward:.3g}",
            f"{part.backward:.3g}",
            f"{part.flops / total:.1%}",
        )
        for part in found.parts()
    ]
    print()
    draw.table(("part", "parameters", "FLOPs forward", "backward", "share"), parts, right=(1, 2, 3, 4))
    held = chosen.memory
    named = {
        "process": held.process,
        "weights": held.weights,
        "gradients": held.gradients,
        "moments": held.moments,
        "activations": held.activations,
    }
    print(f"\nMemory: {', '.join(f'{name} {size(value)}' for name, value in named.items())}.")
    measured = ", ".join(f"{rate / 1e9:.3g} at width {width}" for width, rate in sorted(found.rates.items()))
    print(f"Rate of this machine in GFLOP/s: {measured}.")
    if found.ladder:
        widths = sorted({rung.recipe.model.width for rung in found.ladder})
        print(
            f"Its ladder: {len(found.ladder)} runs at widths {', '.join(map(str, widths))}; "
            f"{found.ladder_flops:.3g} FLOPs "
            f"({found.ladder_flops / total:.1%} of it), about {duration(found.ladder_seconds)} one after another."
        )
    else:
        print(f"No ladder: {found.no_ladder}")
