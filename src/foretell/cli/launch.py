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
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|COMMAND…", help="A recipe, or run, align, sft, reward or dpo, with what each of them takes."
        ),
    ],
    ranks: Annotated[int | None, typer.Option(help="Processes of a machine; default one a GPU.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of each process; default its share of the cores.")] = None,
    nodes: Annotated[str, typer.Option(help="Machines, or MIN:MAX: goes on with MIN when some are lost.")] = "1",
    endpoint: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the machines meet: the first one.")] = "",
    job: Annotated[str, typer.Option(help="A name of the run, the same on all machines.")] = "",
    address: Annotated[str, typer.Option(help="Of this machine, where the others do not know it by its name.")] = "",
    restarts: Annotated[int, typer.Option(min=0, help="Starts after a failure.")] = 3,
    join: Annotated[int, typer.Option(help="Seconds in which all must have come.")] = 300,
    hang: Annotated[int, typer.Option(help="Seconds without progress after which a process counts as hung.")] = 1800,
    wait: Annotated[int, typer.Option(help="Seconds to wait for more machines once MIN have come.")] = 30,
    slurm: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Slurm job instead of starting.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Hand the job to sbatch.")] = False,
    time: Annotated[str, typer.Option(help="The job's limit, as sbatch takes it.")] = "24:00:00",
    gpus: Annotated[int | None, typer.Option(help="The job's GPUs of a machine; default as --ranks.")] = None,
    sbatch: Annotated[
        list[str], typer.Option(metavar="OPTION", help="Another option of sbatch, such as --qos=x.")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
) -> None:
    """Start a command in several processes with torchrun, here or by Slurm on many machines; again if it fails."""
    from dataclasses import replace

    from foretell.errors import LaunchError
    from foretell.pipeline import launch as launching

    words = tuple(command if command[0] in launching.TRAINING else ["run", *command])
    if submit and slurm is None:
        raise LaunchError("--submit needs a job file. Name one with --slurm FILE.")
    count = ranks or launching.default_ranks()
    plan = launching.Launch(
        words,
        count,
        threads or launching.default_threads(count),
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
