"""Workers on a Ray cluster: actors that stay, take one task at a time, and are begun anew where they are lost."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foretell.errors import ForetellError, MissingExtraError, RunError
from foretell.measure.fanout import Lost, Slot, call, set_up

_DECIDING = ("foretell", "torch", "numpy")  # packages whose versions decide a result


def open_slots(address: str, workers: int | None, most: int | None, threads: int, gpu: float) -> list[Slot]:
    """Workers that are not begun yet. Arguments as of `fanout.Workers`."""
    ray = connect(address)
    found = ray.cluster_resources()
    room, gpus = int(found.get("CPU", 1)) // threads, float(found.get("GPU", 0))
    gpu = min(gpu, gpus / workers if workers else gpus)  # who asks for more workers than there are GPUs shares them
    count = workers or max(1, min(room, int(gpus / gpu) if gpu else room))
    return [_Actor(ray, threads, gpu) for _ in range(max(1, min(count, most or count)))]


def connect(address: str = "") -> Any:
    """The module ray, connected to a cluster. Raises MissingExtraError without it, RunError where none answers."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Running on Ray", "cluster") from error
    if not ray.is_initialized():
        named = address or os.environ.get("RAY_ADDRESS", "")
        try:
            ray.init(
                address or None, log_to_driver=False, configure_logging=False,
                include_dashboard=None if named else False,
            )  # fmt: skip
        except Exception as error:  # Ray raises a bare one where a node does not begin
            first = " ".join(str(error).split())[:300]
            raise RunError(
                f"No Ray cluster can be used at {named or 'this machine'} ({first}). Begin one with "
                "`ray start --head`, and give what it prints as ray:ADDRESS or in RAY_ADDRESS."
            ) from error
    return ray


@dataclass(frozen=True)
class _Hello:
    """What a worker is: its place, and the versions that it runs."""

    host: str
    node: str
    pid: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """What must be alike on all machines for results to be."""
    found = {"Python": platform.python_version()}
    for name in _DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


class Remote:
    """A worker of the cluster. path, folder: where the process that began it looks for modules, and works."""

    def __init__(self, threads: int, path: list[str], folder: str) -> None:
        with suppress(OSError):  # where it is not shared, what is read and written has to have whole paths
            os.chdir(folder)
        sys.path += [place for place in path if place not in sys.path]
        if hasattr(signal, "pthread_sigmask"):  # Ray blocks it, so that no terminal's reaches a worker
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        set_up(threads)

    def hello(self) -> _Hello:
        import ray

        return _Hello(socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid(), versions())

    def call(self, pickled: bytes) -> bytes:
        """(whether it was done, its result or error), pickled: an error in Ray's own wrapping is no longer itself."""
        try:
            work, task = pickle.loads(pickled)  # noqa: S301  (of the process that began this one)
            return pickle.dumps((True, call(work, task)))
        except BaseException as error:
            if not isinstance(error, ForetellError | KeyboardInterrupt):
                error.add_note("On " + socket.gethostname() + ":\n" + traceback.format_exc())
            try:
                return pickle.dumps((False, error))
            except Exception:
                return pickle.dumps((False, RuntimeError(traceback.format_exc())))


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


class _Actor:
    """One worker and its successors."""

    from_terminal = False

    def __init__(self, ray: Any, threads: int, gpu: float) -> None:
        self._ray, self._threads, self._gpu = ray, threads, gpu
        self._actor: Any = None
        self._at: _Hello | None = None

    def start(self) -> Future[Any]:
        if self._actor is not None:  # not lost: only its task is to be done again
            found: Future[Any] = Future()
            found.set_result(self._at)
            return found
        made = self._ray.remote(Remote).options(num_cpus=self._threads, num_gpus=self._gpu)
        path = [str(Path(place).absolute()) for place in sys.path]
        self._actor = made.remote(self._threads, path, str(Path.cwd()))
        return self._future(self._actor.hello.remote())

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        return self._future(self._actor.call.remote(pickle.dumps((work, task))))

    def result(self, future: Future[Any]) -> Any:
        try:
            found = future.result()
        except self._ray.exceptions.RayError as error:
            where = f" on {self._at.host}" if self._at else ""
            self._actor = self._at = None
            raise Lost(f"A worker{where} was lost ({_reason(error)}).") from error
        if isinstance(found, _Hello):
            self._at = found
            mine = versions()
            if unlike := [
                f"{n} {found.versions.get(n)}, here {v}" for n, v in mine.items() if found.versions.get(n) != v
            ]:
                raise RunError(
                    f"{found.host} has other software than this machine: {'; '.join(unlike)}. Results would differ by "
                    "where they were made; install the same on all machines of the cluster."
                )
            return found
        done, value = pickle.loads(found)  # noqa: S301  (of a worker that was begun here)
        if done:
            return value
        if isinstance(value, OSError):  # such as of a file system that is shared: another attempt may find it mended
            raise Lost(f"A task failed on {self._at.host if self._at else 'a worker'} ({value}).") from value
        raise value

    def interrupt(self) -> None:
        if self._at is None:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self._at.node, soft=False)
        self._ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there).remote(self._at.pid)

    def kill(self) -> None:
        self.close()

    def close(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    def _future(self, reference: Any) -> Future[Any]:
        found: Future[Any] = reference.future()
        return found


def _reason(error: Exception) -> str:
    """The cause that Ray tells, without its advice and its traces."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("The actor is dead because") or "Worker exit type" in line]
    return " ".join(told or lines[:1])[:300]
