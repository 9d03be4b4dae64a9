"""The tree of commands."""

from __future__ import annotations

import typer

from foretell.cli import (
    admin,
    align,
    arena,
    bench,
    capability,
    card,
    contamination,
    data,
    eval,
    exam,
    forecast,
    inverse,
    ladder,
    model,
    redteam,
    run,
    serve,
    weights,
)

app = typer.Typer(
    name="foretell",
    help="Know your model before you train it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
align.register(app)
app.command()(bench.bench)
app.command()(card.card)
app.command()(serve.serve)
app.add_typer(admin.app, name="admin")
app.add_typer(run.recipe_app, name="recipe")
app.add_typer(model.app, name="model")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(eval.app, name="eval")
app.add_typer(contamination.app, name="contamination")
app.add_typer(exam.app, name="exam")
app.add_typer(arena.app, name="arena")
app.add_typer(redteam.app, name="redteam")
ladder.register(forecast.app)
forecast.app.command()(inverse.inverse)
forecast.app.command()(capability.capability)
app.add_typer(forecast.app, name="forecast")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from importlib.metadata import version as installed

        from foretell.run import code_version

        print(f"foretell {installed('foretell')} ({code_version()})")
        raise typer.Exit
