"""run, status, doctor, rehearse, recipe, chat."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw
from foretell.pages import duration, size

if TYPE_CHECKING:
    from foretell.recipe import Recipe

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A preset's name, a YAML file, or a run directory.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override, such as train.tokens=2e6.")]


def _place(on: str) -> str:
    """Checked before any work."""
    from foretell.measure.fanout import check_place

    check_place(on)
    return on


On = Annotated[str, typer.Option(metavar="WHERE", help="local, ray, or ray:ADDRESS of a cluster.", callback=_place)]
Depth = Annotated[int | None, typer.Option(help="Scale model, tokens, batch and rate to this many layers.")]

recipe_app = typer.Typer(help="Recipes: the configuration of a run.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (run, status, doctor, rehearse, chat):
        app.command()(command)


def load(recipe: str, overrides: list[str], depth: int | None) -> Recipe:
    from foretell.recipes import load_recipe

    loaded = load_recipe(recipe, overrides)
    if depth is None:
        return loaded
    from foretell.pipeline.depth import scale_to_depth

    return scale_to_depth(loaded, depth)


def run(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run.")] = None,
    overrides: Set = [],  # noqa: B006  (typer copies it)
    depth: Depth = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Rungs of its ladder at a time; default one a core.")
    ] = None,
    on: On = "local",
) -> None:
    """Run a recipe: data, tokenizer, pack, pretrain, examine, page, card. Skips what is done, resumes what was cut
    off."""
    loaded = load(recipe, overrides, depth)
    given = Path(recipe)
    folder = out or (given if given.is_dir() else Path("runs") / loaded.name)
    from foretell.pipeline import run_recipe
    from foretell.run import place

    if place()[0] > 0:  # one process speaks for all that torchrun started
        run_recipe(loaded, folder, until)
        return
    with draw.progress() as report:
        manifests = run_recipe(loaded, folder, until, report, on=on, workers=workers)
    for split, found in manifests.get("pack", {}).get("metrics", {}).items():
        for note in found.get("notes", ()):
            print(f"Note on the {'held-out' if split == 'heldout' else 'training'} data: {note}", file=sys.stderr)
    if (page := folder / "page" / "index.html").is_file() and until is None:
        print(f"Run page:   {page.resolve()}")
        if (card := folder / "card" / "index.html").is_file():
            print(f"Its card:   {card.resolve()}")
        print(f"Talk to it: {_command()} chat {folder}\nChat page:  {_command()} serve {folder} --open")
    else:
        print(f"Stages up to {until} are done in {folder}. Go on with: {_command()} run {folder}")


def _command() -> str:
    """What to type for `foretell` here: its path where the virtual environment is not activated."""
    called = Path(sys.argv[0])
    return "foretell" if shutil.which("foretell") or called.name != "foretell" else os.path.relpath(called)


def status(run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]) -> None:
    """Show a run's stages: state, what each was built from, times and sizes."""
    from foretell.pipeline import fine_tuning, run_status

    tuned = fine_tuning(run_dir)
    if tuned is not None:
        what, stages = tuned
    else:
        recipe, stages = run_status(run_dir)
        what = f"recipe {recipe.name}, seed {recipe.seed}"
    print(f"{run_dir}: {what}\n")
    rows = [
        (
            s.name,
            s.state,
            ", ".join(s.inputs) or "-",
            s.started or "-",
            duration(s.seconds) if s.started else "-",
            size(s.size) if s.size else "-",
            s.output[:12] or "-",
            s.code or "-",
            s.why,
        )
        for s in stages
    ]
    columns = ("stage", "state", "from", "started (UTC)", "took", "size", "output", "code", "")
    draw.table(columns, rows, right=(4, 5))
    for s in stages:
        if s.ended:
            print(f"\n{s.name}: {s.ended}")
    if tuned is not None and stages and all(s.state == "done" for s in stages):
        print(f"\nFinished: {stages[-1].finished}")


def doctor() -> None:
    """Say what is installed, what is missing for which feature, and what this machine can do."""
    from foretell.measure.doctor import examine

    findings = examine()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'ok  ' if finding.ok else '--  '}{finding.subject.ljust(width)}  {finding.text}")


def rehearse(
    recipe: RecipeName,
    overrides: Set = [],  # noqa: B006  (typer copies it)
    depth: Depth = None,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Of this machine, in any currency.")] = None,
) -> None:
    """Run every stage at about a thousandth of its size, then estimate the hours (and cost) of the whole."""
    loaded = load(recipe, overrides, depth)
    from foretell.pipeline.rehearse import rehearse as dry_run

    with draw.progress() as report:
        found = dry_run(loaded, report)
    rows = [(stage.name, duration(stage.rehearsed), duration(stage.full)) for stage in found.stages]
    draw.table(("stage", "rehearsed", "full (estimate)"), rows, right=(1, 2))
    print(f"\n{found.parameters / 1e6:.1f} M parameters; the rehearsal trained at {found.tokens_per_s:,.0f} tokens/s.")
    for change in found.changes:
        print(f"Note: {change}.")
    print(f"Estimate for this machine: {duration(found.hours * 3600)}", end="")
    print("." if price_per_hour is None else f", cost {found.cost(price_per_hour):,.2f} at {price_per_hour:g} an hour.")
    print("Every stage ran. Times are estimates: measured rates carried to the full size.")


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a checkpoint, open weights, or a hub id.")],
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Default: what the model's makers advise.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str, typer.Option()] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    weights: Annotated[str, typer.Option(help="full, or int8 or int4: less memory, on a CPU.")] = "full",
) -> None:
    """Talk to a model in the terminal; images by their path."""
    from foretell.engine.terminal import chat_loop
    from foretell.generate import Sampling
    from foretell.loading import load as load_model

    loaded = load_model(model, device=device, dtype=dtype, weights=weights)
    given = {key: value for key, value in {"temperature": temperature, "top_p": top_p}.items() if value is not None}
    advised = {"temperature": 0.7, "top_p": 0.95, **loaded.sampling, **given}
    sampling = Sampling(max_tokens=max_tokens, seed=seed, **advised)
    try:
        code = chat_loop(loaded.generator, sampling=sampling, system=system, name=Path(model).name)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted.") from None  # nothing here goes on from where it was
    raise typer.Exit(code)


@recipe_app.command("show")
def show(
    recipe: RecipeName,
    overrides: Set = [],  # noqa: B006  (typer copies it)
    depth: Depth = None,
) -> None:
    """Print the recipe with every default and override in place."""
    from foretell.recipes import recipe_yaml

    print(recipe_yaml(load(recipe, overrides, depth)), end="")


@recipe_app.command("list")
def names() -> None:
    """List the recipes that come with the package."""
    from foretell.recipes import description, presets

    for name in presets():
        print(f"{name:<16}{description(name)}")
