"""arena: run, judge, report, export."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretell.cli import draw

if TYPE_CHECKING:
    from foretell.evals.arena.results import Result, Source

app = typer.Typer(
    help="Blind pairwise preference: models answer the same prompts, a model or people judge.", no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An arena that foretell arena run made.")]
PLAYERS = (
    "Two or more, each MODEL or NAME=MODEL: a run, checkpoint, open weights, GGUF or hub id; an endpoint's URL "
    "(URL#MODEL); module:function. One model under two names is an A/A check."
)


@app.command()
def run(
    players: Annotated[list[str], typer.Argument(metavar="PLAYER...", help=PLAYERS)],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts, as foretell ppo reads them; `answer` is the truth.")
    ] = None,
    world: Annotated[int | None, typer.Option(min=1, metavar="N", help="N questions whose truth is known.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Of the world, such as facts; may be repeated.")
    ] = None,
    judge: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="Judges; may be repeated.")] = None,
    people: Annotated[bool, typer.Option("--people", help="People judge: foretell arena judge FOLDER.")] = False,
    critic: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Criticises each reply; half the battles are judged with it.")
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="reply|logprob", help="How a judge is read: its words, or the likeliest choice.")
    ] = "reply",
    twin: Annotated[bool, typer.Option("--twin", help="Enter the first player twice, as an A/A check.")] = False,
    battles: Annotated[int | None, typer.Option(min=1, help="How many, balanced; default all pairs × prompts.")] = None,
    sampling: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[NAME.]K=V", help="Of replies: --set temperature=1 --set a.max_tokens=64."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws: which pairs meet, sides, replies.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows of FILE that cannot be used.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default runs/arena/A-B….")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Prompts at a time.")] = 64,
    max_tokens_spent: Annotated[int | None, typer.Option(min=1, help="Budget: tokens of prompts and replies.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Budget: time, of each step.")] = None,
) -> None:
    """Let models answer the same prompts once, and a model judge; the same command goes on with what was cut off."""
    from foretell.evals.arena import api
    from foretell.evals.runner import Budget
    from foretell.pipeline.arena import file_prompts, world_prompts

    if (prompts is None) == (world is None):
        raise typer.BadParameter("give prompts: either --prompts FILE or --world N")
    if not judge and not people:
        raise typer.BadParameter("say who judges: --judge MODEL, --people, or both")
    sys.path.append(str(Path().absolute()))
    named = _players(players, twin)
    asked, bad = (world_prompts(world, kind or (), seed), []) if world else file_prompts(prompts or Path(), skip_bad)
    for line in bad:
        print(f"left out: {line}", file=sys.stderr)
    folder = out or Path("runs/arena") / "-".join(named)
    budget = Budget(max_tokens_spent, None, None if max_minutes is None else 60 * max_minutes)
    models = api.Models(concurrency)
    for model in (*(judge or ()), *([critic] if critic else [])):
        models(model)  # one that there is not is told of before replies are paid for
    arena = api.set_up(
        folder, named, asked, models, sampling=_sampling(sampling or ()), battles=battles, seed=seed, skipped=bad
    )
    with draw.progress() as report:
        told: dict[str, Any] = {"budget": budget, "command": shlex.join(sys.argv), "report": report}
        api.ask_replies(arena, list(named.values()), models, **told)
        if critic is not None:
            api.ask_critiques(arena, critic, models, **told)
        for model in judge or ():
            api.ask_judge(arena, model, models, by=by, **told)
    if judge:
        _report(folder, None)
    if people:
        print(f"{len(arena.open)} battles to judge: foretell arena judge {folder}")


@app.command()
def judge(
    folder: Folder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7576,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Serve the page on which people judge, to this machine alone. Ctrl-C ends it; what is judged is kept."""
    from foretell.errors import MissingExtraError

    try:
        from foretell.serve.arena.app import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("foretell"):
            raise
        raise MissingExtraError("The judging page", "serve") from error
    serve(folder, port, browser)


@app.command()
def report(
    folder: Folder,
    of: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME", help="Whose summary is written; default the first player's."),
    ] = None,
) -> None:
    """Win rates and ratings with intervals, what judges are worth, a page, and a summary for the system card."""
    _report(folder, of)


@app.command()
def export(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="FILE", help="JSON lines of prompt, chosen and rejected.")],
    by: Annotated[
        str | None, typer.Option(metavar="JUDGE", help="Whose judgements; default people's, or the only judge's.")
    ] = None,
) -> None:
    """Write what was preferred as data for foretell reward and dpo."""
    from foretell.evals.arena.exporting import export as write
    from foretell.evals.arena.folder import load
    from foretell.evals.arena.results import result_of

    count, left = write(result_of(load(folder), 0), to, by)
    print(f"{count} preferences: {to}")
    for reason, number in left.items():
        print(f"  left out: {number}, {reason}")


def _report(folder: Path, of: str | None) -> None:
    from foretell.evals.arena.folder import load
    from foretell.evals.arena.page import write_page
    from foretell.evals.arena.results import result_of
    from foretell.evals.arena.summary import note, write_summary

    result = result_of(load(folder))
    summary = write_summary(result, of)
    page = write_page(result)
    for source in result.sources:
        _tell(result, source)
    print(f"\n{note(result)}")
    print(f"  summary: {summary}\n  page: {page}")


def _tell(result: Result, source: Source) -> None:
    from foretell.evals.arena.page import elo_text, pair_rows, range_text

    print(f"\nJudged by {source.name}: {len(source.judgements)} judgements")
    head, rows = pair_rows(result, source)
    draw.table(head, rows, right=(2, 4, 5, 6, 7, 8))
    if source.ratings is not None and len(result.arena.names) > 2:
        told = [(name, *elo_text(source.ratings, i)) for i, name in enumerate(result.arena.names)]
        print()
        draw.table(("player", "rating", "95 % interval", "bootstrap"), told, right=(1,))
    elif source.no_ratings:
        print(f"  no ratings: {source.no_ratings}")
    for name, interval, n in (
        ("shown first", source.first, source.first_n),
        ("the longer", source.length.longer, source.length.n),
    ):
        if n:
            print(f"  {name} is preferred: {range_text(interval)} of {n}")
    if source.consistent is not None and source.judgements:
        print(f"  same choice in both orders: {range_text(source.consistent)}")
    if source.truth is not None:
        print(f"  names the reply that is right: {range_text(source.truth.agreement)} of {source.truth.n}")
    if (e := source.effect) is not None:
        print(f"    with a critique {range_text(e.assisted.agreement)} of {e.assisted.n}, "
              f"without {range_text(e.alone.agreement)} of {e.alone.n}")  # fmt: skip
        print(f"    difference {range_text(e.difference, '+.1f')}, p = {e.p:.2g}")
    for battle, why in source.invalid[:3]:
        print(f"  not counted: battle {battle}: {why}")
    if len(source.invalid) > 3:
        print(f"  not counted: {len(source.invalid) - 3} more; the page names them")


def _players(given: list[str], twin: bool) -> dict[str, str]:
    from foretell.errors import EvalError
    from foretell.evals.arena.folder import player_name

    named: dict[str, str] = {}
    for text in given:
        name, model = player_name(text)
        if name in named:
            raise EvalError(f"Two players are called {name}. Name one of them otherwise: NAME={model}")
        named[name] = model
    if twin and named:
        first = next(iter(named))
        named[f"{first}.twin"] = named[first]
    return named


def _sampling(given: tuple[str, ...] | list[str]) -> dict[str, dict[str, Any]]:
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for text in given:
        key, is_set, value = text.partition("=")
        name, _, parameter = key.rpartition(".")
        if not is_set or not parameter:
            raise typer.BadParameter(f"--set {text}: expected K=V or NAME.K=V, such as temperature=0.7")
        found.setdefault(name, {})[parameter] = yaml.safe_load(value)
    return found
