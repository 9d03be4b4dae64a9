"""Data parallelism under torchrun: every process holds the whole model and reads its own rows; gradients are summed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore, PrefixStore, Store  # type: ignore[attr-defined]

from foretell.errors import ForetellError, GroupError, TrainingError
from foretell.train import meeting
from foretell.train.watchdog import BEAT, UNREACHABLE, Watchdog

JOIN, HANG = 300.0, 1800.0  # seconds; a hang is longer than writing the largest checkpoint takes
MARGIN = 60.0  # seconds by which an exchange outlives the watchdog, which can say more
POLL = 0.2  # seconds
BUCKET = 1 << 26  # elements that are summed in one exchange
_END = "end"

T = TypeVar("T")


class LeftError(Exception):
    """The first process has left the group, so this one has nothing more to do."""


class Group:
    """The processes of a run. `Group()` is a single one; `Group.join()` those that torchrun started.

    All call the same methods in the same order. Sums are the same to the bit everywhere, so what is decided by them is
    decided alike. Values of the host travel by gloo and wait for no GPU; a single process exchanges nothing.
    Every method raises GroupError, with the same words in every process, when another one has failed, is gone or hangs.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Store | None = None, dog: Watchdog | None = None) -> None:
        self.rank, self.world, self._store, self._shared = rank, world, store, 0
        self._dog = dog or Watchdog(store or HashStore(), rank, world, HANG)

    @classmethod
    def join(cls, facts: Mapping[str, Any] | None = None) -> Group:
        """Meet the other processes, by the environment that torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR, …).

        facts: JSON data that must be the same in all of them, beside the versions of foretell, torch and Python.
        FORETELL_JOIN_SECONDS bounds the wait, FORETELL_HANG_SECONDS how long a process may make no progress.
        Raises GroupError naming the rank that differs, or that has not come.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        join, hang = meeting.seconds(meeting.JOIN_SECONDS, JOIN), meeting.seconds(meeting.HANG_SECONDS, HANG)
        base, rank, world, address = meeting.reach(join)
        try:
            attempt, odd = meeting.meet(base, rank, world, {**meeting.about(), **(facts or {})}, join)
        except UNREACHABLE as error:
            raise GroupError(f"The store at {address}, where the processes meet, is gone.") from error
        store = PrefixStore(attempt, base)
        own = PrefixStore(attempt, base.clone())  # type: ignore[attr-defined]  # who waits on a connection blocks it
        dog = Watchdog(own, rank, world, hang, socket.gethostname(), address)
        dog.start()
        group = cls(rank, world, PrefixStore("shared", store), dog)
        try:
            group._unite(odd, PrefixStore("group", store), timedelta(seconds=hang + MARGIN))
        except GroupError:
            dog.stop()
            raise
        return group

    def _unite(self, odd: str, store: Store, timeout: timedelta) -> None:
        """Begin to exchange values, unless some process is odd: differs from the first in what the text says."""
        if odd:
            raise self._dog.end(
                f"{self._dog.who([self.rank])} differs from the first: {odd}. Start all with the same.", lasting=True
            )
        self._assemble(store)
        with self._exchange():
            nccl = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.world,
                timeout=timeout,
            )

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        """Leave. When the first process does, those that wait in `share` are let go; an error of one ends all.

        Raises GroupError in place of what a user can mend, and of what came from another process.
        """
        if self._store is None:
            return False
        try:
            if error is not None and not isinstance(error, LeftError | GroupError):
                self._fail(error)
            with suppress(*UNREACHABLE, TrainingError):
                if self.rank == 0:
                    self._store.set(str(self._shared), _END)
                if kind in (None, LeftError):
                    self.wait()  # the store may live in the first process
                    dist.destroy_process_group()
        finally:
            self._dog.stop()
        return kind is LeftError

    def _fail(self, error: BaseException) -> None:
        """Tell the others what ends this process."""
        if not isinstance(error, Exception):  # an interrupt: by torchrun, perhaps because another process failed
            with suppress(*UNREACHABLE):
                self._go_on()
            return
        me = self._dog.who([self.rank])
        if isinstance(error, ForetellError):
            over = self._dog.end(f"{me}: {error}", lasting=True)
        elif isinstance(error, UNREACHABLE) and _exchanging(error):
            over = self._explained(error)
        else:
            self._dog.end(f"{me} failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            over = None
        if self.rank == 0 and not meeting.kept_by_agent():
            time.sleep(2 * BEAT)  # the store lives in this process: let the others read why
        if over is not None:
            raise over from error

    def judged(self, whether: bool) -> None:
        """Whether from now on a process that makes no progress for FORETELL_HANG_SECONDS ends the run."""
        self._dog.judged = whether

    def each(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, each of which is progress."""
        for batch in batches:
            self._dog.pulses += 1
            yield batch

    def agree(self, what: str, facts: Mapping[str, Any]) -> None:
        """Raises TrainingError in a process whose facts, JSON data, differ from the first one's, in the others then
        GroupError. what: whose facts they are, for the message."""
        if self._store is None:
            return
        if odd := meeting.differences(facts, self.share(lambda: dict(facts))):
            raise TrainingError(f"{what} is not that of the first process: {odd}. Give all of them the same.")
        self._assemble(PrefixStore(f"agreed/{self._shared}", self._store))

    def _assemble(self, store: Store) -> None:
        """Wait for all by the store, where an error of one reaches the others at once. store: with keys of its own."""
        with self._exchange():
            store.add("here", 1)
            while store.add("here", 0) < self.world:
                self._go_on()
                time.sleep(POLL)

    def share(self, make: Callable[[], T]) -> T:
        """The first process's make(), JSON data, in every process. The others sleep meanwhile, for hours if need be."""
        if self._store is None:
            return make()
        value = make() if self.rank == 0 else None
        key, self._shared = str(self._shared), self._shared + 1
        with self._exchange():
            if self.rank == 0:
                self._store.set(key, json.dumps(value))
            while not self._store.check([key]):
                self._go_on()
                time.sleep(POLL)
            text = self._store.get(key).decode()
            if text == _END:
                self._go_on()
        if text == _END:
            raise LeftError
        shared: T = json.loads(text)
        return shared

    def wait(self) -> None:
        """Until every process is here."""
        self.most(0)

    def add(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def most(self, *values: float) -> list[float]:
        """Each value's maximum over the processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def _reduce(self, values: Sequence[float], op: Any) -> list[float]:
        if self._store is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self._exchange():
            dist.all_reduce(tensor, op)
        return [float(value) for value in tensor]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's."""
        for tensor in tensors if self._store is not None else ():
            with self._exchange():
                dist.broadcast(tensor.detach(), 0)

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with their sums over the processes, in flat buckets by type."""
        if self._store is None:
            return
        buckets: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            bucket = buckets.setdefault(tensor.dtype, [])
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
                self._sum_bucket(bucket)
                bucket.clear()
            bucket.append(tensor)
        for bucket in buckets.values():
            self._sum_bucket(bucket)

    def sum_gradients(self, parameters: Sequence[Tensor], *also: Tensor) -> None:
        """Sum gradients, and whatever else, in place. A gradient that only some processes have is zero in the others
        (a process may have met no image); one that none has stays None."""
        if self._store is None:
            return
        somewhere = self.most(*(parameter.grad is not None for parameter in parameters))
        for parameter, needed in zip(parameters, somewhere, strict=True):
            if needed and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum_([*(p.grad for p in parameters if p.grad is not None), *also])

    def total(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the processes in the first, zeros in the others: a later total counts nothing twice."""
        if self._store is None:
            return dict(sums)
        out = {key: value.detach().to("cpu", copy=True) for key, value in sums.items()}
        self.sum_(out.values())
        return out if self.rank == 0 else {key: torch.zeros_like(value) for key, value in out.items()}

    def _sum_bucket(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._exchange():
            dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def _go_on(self) -> None:
        """Raises GroupError once the run is over."""
        if (over := self._dog.ended()) is not None:
            raise over

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Around whatever waits for other processes."""
        self._dog.ops += 1
        try:
            yield
        except UNREACHABLE as error:
            raise self._explained(error) from error

    def _explained(self, error: BaseException) -> GroupError:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the rest as soon as one process is gone
        return self._dog.explain(str(error).strip().partition("\n")[0])


def patience() -> timedelta:
    """How long an exchange of all processes may take. torch gives groups of some of them another time, unless told."""
    found: timedelta = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout  # type: ignore[union-attr]
    return found


def _exchanging(error: BaseException) -> bool:
    """Whether an error came out of an exchange, such as one of a sharded layer."""
    frames = traceback.walk_tb(error.__traceback__)
    return any("torch/distributed/" in frame.f_code.co_filename for frame, _ in frames)
