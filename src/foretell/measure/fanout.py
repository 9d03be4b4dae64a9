"""Independent tasks on many workers: processes of this machine, each with its share of the cores, or a Ray cluster."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from types import FrameType
from typing import Any, Literal, TypeVar

from foretell.errors import ForetellError, MissingExtraError, RunError
from foretell.measure.machine import cores, has_torch

Where = Literal["local", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
RETRIES = 2  # of a task whose worker died, on a cluster


def fan_out(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    on: Where = "local",
    tick: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Result]]:
    """(index of the task, what `work` made of it), as they finish; tasks are begun in order.

    work: a function of a module; it and its tasks are pickled. workers: processes, default one a core, each with its
    share of the threads. on: "ray" takes the cluster of RAY_ADDRESS, or starts Ray here; all of its machines must see
    the same files. tick: called about twice a second.
    What `work` raises is raised here once the tasks that run have ended; those not begun are dropped. An interrupt
    reaches the workers as well, which may save what they have.
    Raises MissingExtraError for Ray without the cluster extra, RunError when a worker is killed.
    """
    if on == "ray":
        yield from _ray(work, tasks, tick)
        return
    count = max(1, min(workers or cores(), len(tasks)))
    threads = max(1, cores() // count)
    if count == 1 and workers == 1:
        for i, task in enumerate(tasks):
            yield i, work(task)
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (threads, os.getpid())) as pool:
        waiting: dict[Future[Result], int] = {pool.submit(_call, work, task): i for i, task in enumerate(tasks)}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), _result(future)
                if tick is not None:
                    tick()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _result(future: Future[Result]) -> Result:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "A worker process was ended from outside (out of memory, or killed). What is finished stays; run the same "
            "command again to go on, with fewer workers if memory was short."
        ) from error


class _Worker:
    """State of a worker process. A pool hands a worker its next task beforehand, also after an interrupt."""

    busy = stopped = False


def _call(work: Callable[[Task], Result], task: Task) -> Result:
    if _Worker.stopped:
        raise KeyboardInterrupt
    _Worker.busy = True
    try:
        return work(task)
    except KeyboardInterrupt as error:
        _Worker.stopped = True
        raise KeyboardInterrupt(str(error)) from None
    except ForetellError as error:
        raise _plain(error) from error
    finally:
        _Worker.busy = False


def _plain(error: ForetellError) -> ForetellError:
    """The error, or its message where its class cannot be copied from its arguments: on its way here that would
    hang the pool."""
    try:
        copy.copy(error)
    except Exception:
        return ForetellError(str(error))
    return error


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Worker.stopped = True
    if _Worker.busy:
        raise KeyboardInterrupt


def _begin(threads: int, parent: int) -> None:
    """Set a worker up: its threads, what an interrupt does, and an end of its own when its parent is gone."""
    signal.signal(signal.SIGINT, _interrupt)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if has_torch():
        import torch

        torch.set_num_threads(threads)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # a training run then saves what it has
        time.sleep(30)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _ray(
    work: Callable[[Task], Result], tasks: Sequence[Task], tick: Callable[[], None] | None
) -> Iterator[tuple[int, Result]]:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Running on Ray", "cluster") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    remote: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
    waiting = {remote.remote(work, task): i for i, task in enumerate(tasks)}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=0.5)
        for reference in done:
            yield waiting.pop(reference), ray.get(reference)
        if tick is not None:
            tick()
