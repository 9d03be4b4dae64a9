"""Data parallelism under torchrun: every process holds the whole model and reads its own rows; gradients are summed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from foretell.errors import TrainingError

TIMEOUT = timedelta(minutes=30)  # of one exchange: more than writing the largest checkpoint takes
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
    Every method raises TrainingError when another process is gone.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Store | None = None) -> None:
        self.rank, self.world, self._store, self._shared = rank, world, store, 0

    @classmethod
    def join(cls) -> Group:
        """Meet the other processes, by the environment that torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR, …)."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        with _others():
            store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
            nccl = torch.cuda.is_available() and dist.is_nccl_available()
            backend, private = "cpu:gloo,cuda:nccl" if nccl else "gloo", PrefixStore("group", store)
            dist.init_process_group(backend, store=private, rank=rank, world_size=world, timeout=TIMEOUT)
        return cls(rank, world, PrefixStore("shared", store))

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        """Leave. When the first process does, for whatever reason, those that wait in `share` are let go."""
        if self._store is not None:
            with suppress(RuntimeError, TrainingError):
                if self.rank == 0:
                    self._store.set(str(self._shared), _END)
                if kind in (None, LeftError):
                    self.wait()  # the store may live in the first process
                    dist.destroy_process_group()
        return kind is LeftError

    def share(self, make: Callable[[], T]) -> T:
        """The first process's make(), JSON data, in every process. The others sleep meanwhile, for hours if need be."""
        if self._store is None:
            return make()
        value = make() if self.rank == 0 else None
        key, self._shared = str(self._shared), self._shared + 1
        with _others():
            if self.rank == 0:
                self._store.set(key, json.dumps(value))
            while not self._store.check([key]):
                time.sleep(POLL)
            text = self._store.get(key).decode()
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
        with _others():
            dist.all_reduce(tensor, op)
        return [float(value) for value in tensor]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's."""
        for tensor in tensors if self._store is not None else ():
            with _others():
                dist.broadcast(tensor.detach(), 0)

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with their sums over the processes, in flat buckets by type."""
        if self._store is None:
            return
        buckets: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            bucket = buckets.setdefault(tensor.dtype, [])
            if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
                _sum_bucket(bucket)
                bucket.clear()
            bucket.append(tensor)
        for bucket in buckets.values():
            _sum_bucket(bucket)

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


def _sum_bucket(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _others():
        dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


@contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise TrainingError(
            "Another process of this run is gone or cannot be reached; its own message says why. Start all of them "
            f"again to go on from the last checkpoint. ({str(error).strip().splitlines()[0]})"
        ) from error
