"""Where a phase runs: processes of this machine, or a Ray cluster or Slurm by datatrove's executors."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from foretell.data.collection.recipe import SlurmConfig
from foretell.data.collection.work import Phase, Task
from foretell.errors import MissingExtraError, RunError

if TYPE_CHECKING:
    from foretell.data.collection.places import Places

On = Literal["local", "ray", "slurm"]


class Pool:
    """Worker processes that stay for all phases, since starting one takes as long as a small phase does."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[int], None], ranks: list[int], tick: Callable[[], None]) -> None:
        """Call `work` with every rank; in this process where one worker is enough.

        Raises RunError when a worker was killed, which a pool of multiprocessing would wait for without end.
        """
        if self.workers == 1 or len(ranks) == 1:
            for rank in ranks:
                work(rank)
                tick()
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (os.getpid(),))
        waiting = {self._pool.submit(work, rank) for rank in ranks}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                tick()
        except BrokenProcessPool as error:
            raise RunError(
                "A worker process was ended from outside (out of memory, or killed). What is finished stays; run the "
                "same command again to go on, with fewer workers if memory was short."
            ) from error


def _begin(parent: int) -> None:
    """Set a worker up: an interrupt ends it at once, as it may at any point, and so does the end of its parent."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    os.environ["OMP_NUM_THREADS"] = "1"

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def run_phase(phase: Phase, places: Places, ranks: list[int], pool: Pool, on: On, tick: Callable[[], None]) -> None:
    """Run a phase's tasks. Returns when all have ended, well or not.

    Raises MissingExtraError for Ray without datatrove or Ray, RunError when a worker was killed.
    """
    task = Task(places.out, phase.name)
    if on == "ray":
        _ray(task, phase, pool.workers, str(places.logs(phase.name)))
    else:
        pool.map(Rank(task), ranks, tick)


@dataclass(frozen=True)
class Rank:
    """A task of this machine by its number alone, for a pool to call.

    datatrove's local executor would do the same, but sets up a log for every task, which takes longer than a small
    task does, and its pool waits without end for a worker that was killed.
    """

    task: Task

    def __call__(self, rank: int) -> None:
        self.task(rank=rank)


def _quiet() -> None:
    from loguru import logger

    logger.disable("datatrove")


def _ray(task: Task, phase: Phase, workers: int, logs: str) -> None:
    try:
        import ray
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError as error:
        raise MissingExtraError("Running on Ray", "cluster") from error
    _quiet()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    RayPipelineExecutor(
        pipeline=[task],
        tasks=phase.tasks,
        workers=min(workers, phase.tasks),
        mem_per_cpu_gb=1,
        logging_dir=logs,
        skip_completed=False,
    ).run()


def submit(phases: list[Phase], places: Places, config: SlurmConfig | None, name: str) -> int:
    """Hand all phases to Slurm, each to begin when the one before has ended well. Returns how many jobs.

    Raises RunError without a `slurm` section, or where sbatch is not to be found.
    """
    if config is None:
        raise RunError("--on slurm needs a section `slurm` in the recipe, with the cluster's partition. Add it.")
    if shutil.which("sbatch") is None:
        raise RunError("--on slurm needs sbatch, which is not on this machine. Run it on a login node of the cluster.")
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
        venv_path=config.venv,
        sbatch_args=dict(config.arguments),
        logging_dir=str(places.logs(phase.name)),
        skip_completed=False,
        depends=depends,
        mail_type="NONE",
    )
