"""The loader: packed rows become shuffled batches, the same ones in the same order every time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from foretell.data.shards import Shards
from foretell.errors import DataError

NO_LOSS = -100


@dataclass(frozen=True)
class PackedBatch:
    """What one step of training sees; B rows of T tokens.

    tokens: (B, T) int64. targets: (B, T) int64, the next token of the same document, or −100 where there is no
    loss. positions: (B, T) int64, from 0 in each document. segments: (B, T) int32, the document's number in its row,
    −1 for padding. kinds: (B, T) uint8, of the target, into the loader's `kinds`. tiles: (N, S, S, 3) uint8, in the
    order of their slots. examples: (B, T) int32, the number of the example that the token's segment belongs to, −1 for
    padding; None where the pack has none. values: (B, T) numbers that a loss needs beside the targets, by their names.
    """

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.uint8]
    tiles: npt.NDArray[np.uint8]
    examples: npt.NDArray[np.int32] | None = None
    values: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def assemble(shards: Shards, rows: Sequence[int] | npt.NDArray[np.int64]) -> PackedBatch:
    """The batch of the given rows, in the given order."""
    read = shards.read(rows)
    tokens, segments = read["tokens"].astype(np.int64), read["segments"].astype(np.int32)
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    targets = np.full(tokens.shape, NO_LOSS, np.int64)
    targets[:, :-1] = np.where(same & (read["loss"][:, 1:] > 0), tokens[:, 1:], NO_LOSS)
    index = np.arange(tokens.shape[1], dtype=np.int64)
    starts = np.zeros(tokens.shape, np.int64)
    starts[:, 1:] = np.where(segments[:, 1:] != segments[:, :-1], index[1:], 0)
    positions = index - np.maximum.accumulate(starts, axis=1)
    return PackedBatch(tokens, targets, positions, segments, read["kinds"], read["tiles"], read.get("examples"))


class Loader:
    """An endless iterator of PackedBatch.

    The rows of each epoch are visited in a permutation drawn from (seed, epoch), epoch after epoch; a batch is the
    next `rows` of that stream, so the order of the data does not depend on the batch size and nothing is left out.
    Where the pack has phases they are kept apart and read in their order; of a pack that is larger than the `planned`
    rows, each phase gives its share of them, so that a short run passes through all.
    With `world` > 1 each step takes rows · world of the stream, and this loader the part of `rank`; the parts follow
    each other, or with `balance` are chosen so that all have about as many tiles.
    A thread reads `prefetch` batches ahead. verify: compare the files with their SHA-256 first.
    Raises DataError if the pack is missing, damaged, or smaller than one step's batch.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        seed: int,
        prefetch: int = 2,
        *,
        verify: bool = False,
        rank: int = 0,
        world: int = 1,
        planned: int | None = None,
        balance: bool = False,
    ) -> None:
        self._balance = balance
        self._shards = Shards(folder, verify)
        phases = self._shards.phases
        part = min(1.0, planned / self._shards.rows) if planned and len(phases) > 1 and self._shards.rows else 1.0
        ends = np.cumsum([0, *phases]) * part
        self._taken = [int(n) for n in np.diff(np.round(ends).astype(np.int64))]  # rows of each phase
        if rows < 1 or self._shards.rows < rows * world:
            raise DataError(
                f"{folder} holds {self._shards.rows} rows of {self._shards.length} tokens, fewer than one batch of "
                f"{rows * world} rows. Add data (or raise data.max_epochs), or lower train.batch_tokens to at most "
                f"{self._shards.rows * self._shards.length}."
            )
        self.rows, self.seed = rows, seed
        self.idle_seconds = 0.0
        self._prefetch, self._rank, self._world = max(prefetch, 1), rank, world
        self._consumed = 0  # rows of the stream, over all ranks
        self._queue: queue.Queue[PackedBatch | BaseException] = queue.Queue(self._prefetch)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def kinds(self) -> list[str]:
        return self._shards.kinds

    @property
    def sequence_length(self) -> int:
        return self._shards.length

    @property
    def rows_per_epoch(self) -> int:
        return sum(self._taken)

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        if self._thread is None:
            self._start()
        began = time.perf_counter()
        got = self._queue.get()
        self.idle_seconds += time.perf_counter() - began
        if isinstance(got, BaseException):
            self._thread = None
            raise got
        self._consumed += self.rows * self._world
        return got

    def state_dict(self) -> dict[str, int]:
        """JSON-able place in the stream: what was handed out, not what was read ahead."""
        epoch, position = divmod(self._consumed, self.rows_per_epoch)
        return {"epoch": epoch, "position": position, "seed": self.seed, "rows_per_epoch": self.rows_per_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to the place of `state`; the next batch is the one that would have come next.

        Raises DataError if the state is of another pack or seed.
        """
        here = self.state_dict()
        for name in ("seed", "rows_per_epoch"):
            if state.get(name) != here[name]:
                raise DataError(
                    f"The loader's state has {name} {state.get(name)}, but this pack has {here[name]}. "
                    "Resume with the data of the checkpoint, or start the training anew."
                )
        self.close()
        self._consumed = state["epoch"] * self.rows_per_epoch + state["position"]

    def close(self) -> None:
        """Stop reading ahead. Iterating again starts from where the consumer was."""
        self._stop.set()
        thread, self._thread = self._thread, None
        while thread is not None and thread.is_alive():
            try:
                self._queue.get_nowait()  # a full queue holds the thread
            except queue.Empty:
                thread.join(0.01)

    @staticmethod
    def fixed(folder: Path, rows: int, batches: int) -> FixedBatches:
        """The first `batches` batches in the order of the files; fewer, the last smaller, if the pack is small."""
        return FixedBatches(Shards(folder), rows, batches)

    def _start(self) -> None:
        self._stop, self._queue = threading.Event(), queue.Queue(self._prefetch)
        arguments = (self._consumed, self._queue, self._stop)
        self._thread = threading.Thread(target=self._read_ahead, args=arguments, name="loader", daemon=True)
        self._thread.start()

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        starts = np.cumsum([0, *self._shards.phases])
        pieces = [
            start + permutation(self.seed, epoch, rows)[:taken]
            for start, rows, taken in zip(starts, self._shards.phases, self._taken, strict=False)
        ]
        return np.concatenate(pieces)

    def _read_ahead(self, at: int, out: queue.Queue[PackedBatch | BaseException], stop: threading.Event) -> None:
        try:
            epoch, order = -1, np.zeros(0, np.int64)
            mine = slice(self._rank * self.rows, (self._rank + 1) * self.rows)
            while not stop.is_set():
                places = at + np.arange(self.rows * self._world)
                places = places if self._balance else places[mine]
                rows = np.empty(len(places), np.int64)
                for wanted in np.unique(places // self.rows_per_epoch):
                    if wanted != epoch:
                        epoch, order = int(wanted), self._order(int(wanted))
                    these = places // self.rows_per_epoch == wanted
                    rows[these] = order[places[these] % self.rows_per_epoch]
                if self._balance:
                    rows = rows[balanced(self._shards.tiles(rows), self._world)[self._rank]]
                out.put(assemble(self._shards, rows))
                at += self.rows * self._world
        except BaseException as error:
            out.put(error)


def balanced(tiles: npt.NDArray[np.int64], world: int) -> list[list[int]]:
    """Places of a step's rows for each process: as many rows each, and about as many tiles.

    tiles: of each row. The rows with the most go first, each to the process with the fewest so far that has room
    (Graham 1969); without tiles the parts follow each other.
    """
    room = len(tiles) // world
    parts: list[list[int]] = [[] for _ in range(world)]
    held = [0] * world
    for place in np.argsort(-tiles, kind="stable").tolist():
        least = min((rank for rank in range(world) if len(parts[rank]) < room), key=lambda rank: held[rank])
        parts[least].append(place)
        held[least] += int(tiles[place])
    return [sorted(part) for part in parts]


def permutation(seed: int, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """The order of an epoch's rows: a function of its arguments alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


class FixedBatches(Sequence[PackedBatch]):
    """Frozen batches for evaluation, read when asked for."""

    def __init__(self, shards: Shards, rows: int, batches: int) -> None:
        self._shards, self._rows = shards, rows
        self._total = min(shards.rows, rows * batches)
        self.kinds = shards.kinds

    def __len__(self) -> int:
        return -(-self._total // self._rows)

    @overload
    def __getitem__(self, index: int) -> PackedBatch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PackedBatch]: ...
    def __getitem__(self, index: int | slice) -> PackedBatch | Sequence[PackedBatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = range(0, self._total, self._rows)[index]
        return assemble(self._shards, range(start, min(start + self._rows, self._total)))
