"""Where a phase runs: processes of this machine, a Ray cluster, or Slurm by datatrove's executor."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretell.data.collection.recipe import SlurmConfig
from foretell.data.collection.work import Phase, Task
from foretell.errors import MissingExtraError, RunError
from foretell.measure.fanout import Tell, Workers, check_place

if TYPE_CHECKING:
    from foretell.data.collection.places import Places

On = str
"""As `measure.fanout.Where`, or "slurm"."""


def run_phase(
    phase: Phase, places: Places, ranks: list[int], pool: Workers | None, tick: Callable[[], None], tell: Tell
) -> None:
    """Run a phase's tasks, here where there is no pool. Returns when all have ended, well or not.

    Raises RunError when a task's worker was killed again and again.
    """
    rank = Rank(Task(places.out, phase.name))
    if pool is None:
        for number in ranks:
            rank(number)
            tick()
        return
    for _ in pool.map(rank, ranks, tick, tell):
        tick()


@dataclass(frozen=True)
class Rank:
    """A task by its number alone, for a pool to call.

    datatrove's own executors would do the same, but set up a log for every task, which takes longer than a small task
    does, and wait without end for a worker that was killed.
    """

    task: Task

    def __call__(self, rank: int) -> None:
        self.task(rank=rank)


def check(on: On, config: SlurmConfig | None) -> None:
    """Raise RunError for a place where nothing can run: an unknown one, Slurm without a `slurm` section or sbatch;
    MissingExtraError for Ray without its package, Slurm without datatrove."""
    check_place(on, "slurm")
    if on != "slurm":
        return
    if config is None:
        raise RunError("--on slurm needs a section `slurm` in the recipe, with the cluster's partition. Add it.")
    if shutil.which("sbatch") is None:
        raise RunError("--on slurm needs sbatch, which is not on this machine. Run it on a login node of the cluster.")
    if importlib.util.find_spec("datatrove") is None:
        raise MissingExtraError("Handing jobs to Slurm", "data")


def submit(phases: list[Phase], places: Places, config: SlurmConfig, name: str) -> int:
    """Hand all phases to Slurm, each to begin when the one before has ended well. Returns how many jobs."""
    from loguru import logger

    logger.disable("datatrove")
    executor: Any = None
    for phase in phases:
        executor = slurm_executor(phase, places, config, name, executor)
    executor.run()
    return len(phases)


def slurm_executor(phase: Phase, places: Places, config: SlurmConfig, name: str, depends: Any) -> Any:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    return SlurmPipelineExecutor(
        pipeline=[Task(places.out, phase.name)],
        tasks=phase.tasks,
        time=config.time,
        partition=config.partition,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=max(1, config.memory_gb // config.cpus),
        workers=config.workers,
        job_name=f"{name}-{phase.name}",
        venv_path=None if config.venv is None else f"{config.venv.removesuffix('/bin/activate')}/bin/activate",
        sbatch_args=dict(config.arguments),
        logging_dir=str(places.logs(phase.name)),
        skip_completed=False,
        depends=depends,
        mail_type="NONE",
    )
