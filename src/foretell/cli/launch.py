"""launch: several processes for a command that trains."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    # What follows the first word is the command's own, also where it looks like an option of `launch`.
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command(context_settings=settings)(launch)


def launch(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|COMMAND…", help="A recipe, or run, align, sft, reward, dpo or weights graft, with its own."
        ),
    ],
    ranks: Annotated[
        int | None, typer.Option(help="Processes of a machine; default one a GPU of this one. --slurm needs it.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(envvar="OMP_NUM_THREADS", help="Of each process; default its share of the cores, with --slurm 4."),
    ] = None,
    nodes: Annotated[str, typer.Option(help="Machines, or MIN:MAX: goes on with MIN when some are lost.")] = "1",
    endpoint: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the machines meet, the first one; a Slurm job finds it.")
    ] = "",
    job: Annotated[str, typer.Option(help="With --endpoint: a name of the run, the same on all machines.")] = "",
    address: Annotated[
        str, typer.Option(help="With --endpoint: of this machine, where the others do not know it by its name.")
    ] = "",
    restarts: Annotated[int, typer.Option(min=0, help="Starts after a failure.")] = 3,
    join: Annotated[
        int, typer.Option(envvar="FORETELL_JOIN_SECONDS", help="Seconds in which all must have come.")
    ] = 300,
    hang: Annotated[
        int,
        typer.Option(
            envvar="FORETELL_HANG_SECONDS", help="Seconds without progress after which a process counts as hung."
        ),
    ] = 1800,
    wait: Annotated[int, typer.Option(help="With --nodes MIN:MAX: seconds for more than MIN to come.")] = 30,
    slurm: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Slurm job instead of starting.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="With --slurm: hand the job to sbatch.")] = False,
    time: Annotated[str, typer.Option(help="With --slurm: the job's limit, as sbatch takes it.")] = "24:00:00",
    gpus: Annotated[
        int | None, typer.Option(min=0, help="With --slurm: GPUs of a machine; default as --ranks.")
    ] = None,
    sbatch: Annotated[
        list[str], typer.Option(metavar="OPTION", help="With --slurm: another option of sbatch, such as --qos=x.")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
) -> None:
    """Start a command in several processes with torchrun, here or by Slurm on many machines; again if it fails."""
    from dataclasses import replace

    from foretell.errors import LaunchError
    from foretell.pipeline import launch as launching

    words = _words(context, command)
    _check_effect(context, slurm is not None, endpoint, nodes)
    if slurm is not None and ranks is None:
        raise LaunchError("--slurm needs --ranks: how many processes a machine of the cluster runs, one a GPU.")
    count = launching.default_ranks() if ranks is None else ranks
    share = 4 if slurm is not None else launching.default_threads(max(1, count))
    plan = launching.Launch(
        words,
        count,
        share if threads is None else threads,
        nodes if slurm is None else "1",
        endpoint,
        job,
        address,
        restarts,
        join,
        hang,
        wait,
    )
    if slurm is None:
        print(launching.described(plan), file=sys.stdout if dry_run else sys.stderr, flush=True)
        if not dry_run:
            raise typer.Exit(launching.start(plan))
        return
    plan = replace(plan, nodes=nodes, endpoint="first:0")  # the job finds out where
    about = launching.Job(
        name="-".join(["foretell", *(Path(word).stem for word in words[:2])]),
        time=time,
        gpus=count if gpus is None else gpus,
        cpus=count * plan.threads,
        options=tuple(sbatch),
    )
    text = launching.slurm_script(plan, about, Path.cwd())
    if dry_run:
        print(text, end="")
        return
    launching.write_job(slurm, text)
    print(
        launching.submit(slurm)
        if submit
        else f"{slurm} is written. Submit it with: {shlex.join(['sbatch', str(slurm)])}"
    )


def _check_effect(context: typer.Context, job: bool, endpoint: str, nodes: str) -> None:
    """Raise LaunchError for an option on the command line that would change nothing."""
    from foretell.errors import LaunchError

    idle: dict[str, str] = {}
    if job:
        why = "is for runs started by hand; the job of --slurm finds out itself where its machines meet. Leave it out."
        idle |= dict.fromkeys(("endpoint", "job", "address"), why)
    else:
        idle |= dict.fromkeys(("submit", "time", "gpus", "sbatch"), "needs a job file. Name one with --slurm FILE.")
        if not endpoint:
            why = "is for several machines. Give --endpoint HOST:PORT, or leave it out."
            idle |= dict.fromkeys(("job", "address"), why)
    if ":" not in nodes:
        idle["wait"] = f"needs a range of machines; --nodes is {nodes}. Give --nodes MIN:MAX, or leave it out."
    for name, why in idle.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise LaunchError(f"--{name} {why}")


def _words(context: typer.Context, command: list[str]) -> tuple[str, ...]:
    """The command to launch. Raises LaunchError for one that runs in a single process, RecipeError for no recipe."""
    from foretell.errors import LaunchError
    from foretell.pipeline.launch import TRAINING
    from foretell.recipes import find_recipe

    first, known = command[0], [name.split() for name in TRAINING]
    if any(command[: len(name)] == name for name in known) and not Path(first).exists():
        if first == "run" and len(command) > 1 and not command[1].startswith("-"):
            find_recipe(command[1])
        return tuple(command)
    others = getattr(getattr(context.parent, "command", None), "commands", {})
    if first in others and not Path(first).exists():
        raise LaunchError(f"{first} runs in a single process. launch takes a recipe, or {', '.join(TRAINING)}.")
    find_recipe(first)
    if late := [word for word in command[1:] if word.partition("=")[0] in ("--ranks", "--nodes", "--slurm")]:
        raise LaunchError(f"{late[0]} is an option of launch: put it before {first}.")
    return ("run", *command)
