"""Independent tasks on many workers: processes of this machine, each with its share of the cores, or a Ray cluster.

A worker does one task at a time and stays for the next. Where it is lost in the middle of one (killed, out of memory,
its machine gone), another takes its place and the task is done again, a bounded number of times.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

from foretell.errors import ForetellError, MissingExtraError, RunError
from foretell.measure.machine import cores

Where = str
"""Where tasks run: "local"; "ray", the cluster of RAY_ADDRESS or of this machine, else one started here;
"ray:ADDRESS"."""
Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[], None]
Tell = Callable[[str], None]
PATIENCE_S = 120  # until it is told that no worker has begun
RETRIES = 2  # of a task whose worker was lost
START = "forkserver" if sys.platform == "linux" else "spawn"  # as Python's own default from 3.14


class Lost(Exception):
    """A task ended through no fault of its own, for the reason of the text."""


class Slot(Protocol):
    """A worker and its successors. from_terminal: whether it hears the terminal's interrupts by itself."""

    from_terminal: bool

    def start(self) -> Future[Any]:
        """Begin a worker, in place of one that was lost; done when it can be given a task."""
        ...

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]: ...

    def result(self, future: Future[Any]) -> Any:
        """What came of a start or a task. Raises what the work raised, or Lost."""
        ...

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the work, if there is any."""
        ...

    def kill(self) -> None:
        """End the worker at once."""
        ...

    def close(self) -> None:
        """End the worker once its task is done."""
        ...


def fan_out(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    on: Where = "local",
    gpu: float = 0.0,
    tick: Tick | None = None,
    tell: Tell | None = None,
) -> Iterator[tuple[int, Result]]:
    """(index of the task, what `work` made of it), as they finish; tasks are begun in order.

    work: a function of a module; it and its tasks are pickled. workers: tasks at a time, default one a core of the
    machine or cluster; processes, each with its share of the threads. on: see `Where`; all machines of a cluster must
    see the same files. gpu: share of one that a worker is given, on a cluster that has any. tick: called about twice a
    second. tell: told in words when a task is begun again.
    What `work` raises is raised here once the tasks that run have ended; those not begun are dropped. An interrupt
    reaches the workers as well, which may save what they have.
    Raises MissingExtraError for Ray without the cluster extra; RunError where no cluster answers, where its machines
    have other versions, or where a task has lost its worker more than `RETRIES` times.
    """
    if not tasks:
        _place(on)
        return
    if on == "local" and workers == 1:
        for i, task in enumerate(tasks):
            yield i, work(task)
        return
    with Workers(workers, on, most=len(tasks), gpu=gpu) as pool:
        yield from pool.map(work, tasks, tick, tell)


def _place(on: Where, others: Sequence[str] = ()) -> tuple[str, str]:
    """Kind and address of a place. Raises RunError for what is none."""
    kind, colon, address = on.partition(":")
    if kind not in ("local", "ray") or (colon and not (kind == "ray" and address)):
        known = ", ".join(["local", "ray", *others])
        raise RunError(f"There is no place {on!r} to run on; expected {known}, or ray:ADDRESS of a cluster.")
    return kind, address


def check_place(on: Where, *others: str) -> None:
    """Before any work: raise RunError for what is no place and none of `others`, MissingExtraError for Ray without the
    cluster extra."""
    if on not in others and _place(on, others)[0] == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("Running on Ray", "cluster")


def prepare(*modules: str) -> None:
    """Start what processes of this machine are forked from, with these modules imported once for all of them, none that
    starts threads; it imports beside whatever this process does meanwhile. Only the first call counts."""
    if START == "forkserver":
        forkserver.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


class Workers:
    """Workers that stay over several calls of `map`; arguments as of `fan_out`. most: how many are of use.

    threads: of each; default its share of this machine's cores, and one on a cluster.
    """

    def __init__(
        self,
        workers: int | None = None,
        on: Where = "local",
        *,
        most: int | None = None,
        gpu: float = 0.0,
        threads: int | None = None,
    ) -> None:
        kind, address = _place(on)
        self._slots: list[Slot] = []
        if kind == "ray":
            from foretell.measure.cluster import open_slots

            self._slots += open_slots(address, workers, most, threads or 1, gpu)
        else:
            count = max(1, min(workers or cores(), most or workers or cores()))
            self._slots += [_Process(threads or max(1, cores() // count)) for _ in range(count)]
        self._idle: deque[Slot] = deque()
        self._starting = {slot.start(): slot for slot in self._slots}
        self._stopped = False

    def __len__(self) -> int:
        return len(self._slots)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], tick: Tick | None = None, tell: Tell | None = None
    ) -> Iterator[tuple[int, Result]]:
        """As `fan_out`. One call at a time."""
        waiting, lost = deque(range(len(tasks))), Counter[int]()
        busy: dict[Future[Any], tuple[Slot, int]] = {}

        def again(slot: Slot, number: int, error: Lost) -> None:
            lost[number] += 1
            if self._stopped:
                raise RunError("The workers were stopped before all was done.") from error
            if lost[number] > RETRIES:
                raise RunError(
                    f"{error} That was the last of {RETRIES + 1} attempts. What is finished stays; run the same "
                    "command again to go on, with fewer workers if memory was short."
                ) from error
            if tell is not None:
                tell(f"{error} What it did is begun again ({lost[number]} of {RETRIES}).")
            self._starting[slot.start()] = slot

        patient = time.monotonic() + PATIENCE_S
        try:
            while waiting or busy:
                while waiting and self._idle:
                    slot, i = self._idle.popleft(), waiting.popleft()
                    busy[slot.submit(work, tasks[i])] = slot, i
                done, _ = wait([*busy, *self._starting], timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    if future in self._starting:
                        slot = self._starting.pop(future)
                        try:
                            slot.result(future)
                        except Lost as error:
                            again(slot, ~self._slots.index(slot), error)
                        else:
                            self._idle.append(slot)
                        continue
                    slot, i = busy.pop(future)
                    try:
                        result = slot.result(future)
                    except Lost as error:
                        waiting.appendleft(i)
                        again(slot, i, error)
                        continue
                    except BaseException:
                        self._idle.append(slot)
                        raise
                    self._idle.append(slot)
                    yield i, result
                if tick is not None:
                    tick()
                if tell is not None and not (busy or self._idle) and time.monotonic() > patient:
                    tell(f"No worker could begin in {PATIENCE_S} s: there are no free cores, or none of that size.")
                    patient = math.inf
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit):  # here, or where the results are taken
                for slot, _ in busy.values():
                    if not slot.from_terminal:
                        slot.interrupt()
            wait(busy)
            self._idle.extend(slot for slot, _ in busy.values())
            raise

    def stop(self) -> None:
        """End the workers at once; a `map` that waits for them in another thread raises RunError."""
        self._stopped = True
        for slot in self._slots:
            slot.kill()
        self.close()

    def close(self) -> None:
        """End the workers, once what they do is done."""
        with ThreadPoolExecutor(len(self._slots)) as together:
            list(together.map(lambda slot: slot.close(), self._slots))


class _Process:
    """A process of this machine: a pool of one, so that the loss of a worker is known to be that of one task."""

    from_terminal = True

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._hello: Future[int] = Future()

    def start(self) -> Future[Any]:
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        context: Any = multiprocessing.get_context(START)
        self._pool = ProcessPoolExecutor(1, context, _begin, (self._threads, dict(os.environ)))
        self._hello = self._pool.submit(os.getpid)
        return self._hello

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        assert self._pool is not None
        try:
            return self._pool.submit(call, work, task)
        except BrokenProcessPool as error:  # lost since its last task
            found: Future[Any] = Future()
            found.set_exception(error)
            return found

    def result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except BrokenProcessPool as error:
            if future is self._hello and (script := _without_guard()):
                raise RunError(
                    f"No worker process could begin: each one imports {script}, which does its work at once when "
                    'imported. Put what it does under `if __name__ == "__main__":`, and run it again.'
                ) from error
            raise Lost("A worker process was ended from outside (out of memory, or killed).") from error

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._pool is not None and not self._hello.exception():
            with suppress(ProcessLookupError):
                os.kill(self._hello.result(), number)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _without_guard() -> str:
    """The script that each new process imports, where it does not ask whether it is imported; else empty."""
    file = Path(getattr(sys.modules["__main__"], "__file__", None) or "__main__.py")
    with suppress(OSError):
        if file.name != "__main__.py" and b"__main__" not in file.read_bytes():  # that of a package is not imported
            return str(file)
    return ""


class _Worker:
    """State of a worker process."""

    busy = False


def call(work: Callable[[Task], Result], task: Task) -> Result:
    """Do a task in a worker, so that an interrupt and an error come back from it."""
    _Worker.busy = True
    try:
        return work(task)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error)) from None
    except Exception as error:
        raise _plain(error) from error
    finally:
        _Worker.busy = False


def _plain(error: Exception) -> Exception:
    """The error, or its message where its class cannot be copied from its arguments: on its way here that would
    look like the loss of the worker."""
    try:
        copy.copy(error)
    except Exception:
        if isinstance(error, ForetellError):
            return ForetellError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _Worker.busy:
        raise KeyboardInterrupt


def set_up(threads: int) -> None:
    """Give a worker its threads, and let an interrupt end its task but not itself."""
    signal.signal(signal.SIGINT, _interrupt)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # which torch reads where it is imported, and only then
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def _begin(threads: int, environment: dict[str, str]) -> None:
    """Set a process up; its end is its own when its parent is gone, and a quick one when there is no more to do.

    environment: the parent's, which may have changed since the server that processes are forked from was started.
    """
    os.environ.clear()
    os.environ.update(environment)
    set_up(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # a training run then saves what it has
        time.sleep(30)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    Finalize(None, _leave, exitpriority=-1000)  # after all else


def _leave() -> None:
    """End the process without taking down the interpreter, which takes long and serves nobody."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
