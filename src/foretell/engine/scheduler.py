"""Continuous batching: which sequences take part in a step, on one thread that owns the model and the cache.

A step advances every reply by one token and reads a bounded number of prompt tokens beside them, so that a long prompt
holds up nobody. Who comes joins the next step. Where the cache is full, the youngest gives up its blocks and is
computed again later; since results do not depend on the batch (see `runner`), nobody can tell.

A product has a multiple of some rows, so a few replies leave rows unused. Those take a guess at what comes next, from
where the reply's last tokens stood before; where it is what would have been drawn, a step gives several tokens.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from foretell.engine.cache import BLOCK, Cache
from foretell.engine.runner import Runner
from foretell.engine.runner import Sequence as Ids
from foretell.errors import GenerationError, OverloadedError

T = TypeVar("T")
_LONGEST_S = 10.0  # of a step that an end waits for


@dataclass(frozen=True)
class EngineStats:
    """running, waiting: sequences now. cache_used: share of the cache's blocks that are held. Totals since the start:
    prompt tokens read, tokens generated, those of them that were guessed, prompt tokens found in the cache,
    preemptions."""

    running: int = 0
    waiting: int = 0
    cache_used: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0


class Call(Generic[T]):
    """One caller, who waits on an event loop for `left` tasks. Items end with None, or an error."""

    def __init__(self, left: int) -> None:
        self.left, self.gone = left, left == 0
        self.queue: asyncio.Queue[list[T | BaseException | None]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._unsent: list[T | BaseException | None] = [] if left else [None]
        self.flush()

    def emit(self, items: Sequence[T], finished: bool = False) -> None:
        """Tell what is new, with the next `flush`; finished: one task less is left."""
        self._unsent += items
        self.left -= finished
        if not self.left:
            self._unsent.append(None)

    def fail(self, error: BaseException) -> None:
        self._unsent.append(error)
        self.gone = True

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent:
            try:
                self._loop.call_soon_threadsafe(self.queue.put_nowait, unsent)
            except RuntimeError:  # the loop is closed
                self.gone = True


class Task(Protocol):
    """A sequence at work for a caller. first: the first position whose final state it wants."""

    sequence: Ids
    call: Call[Any]

    @property
    def first(self) -> int: ...

    @property
    def finished(self) -> bool: ...

    def guess(self, most: int) -> list[int]:
        """Tokens that may come next."""
        ...


class Draws(Protocol):
    """What makes tokens of logits (B, V), in place: errors are told for each task."""

    def __call__(self, tasks: Sequence[Any], logits_BV: Tensor) -> list[GenerationError | None]: ...


@dataclass(eq=False)
class Probe:
    """States of positions from `first` on, given once each to `take` (first position, states (n, D))."""

    sequence: Ids
    call: Call[Any]
    first: int
    take: Callable[[int, Tensor], None]
    finished: bool = False
    _seen: int = field(default=0)

    def guess(self, most: int) -> list[int]:
        return []

    def give(self, start: int, states_ND: Tensor) -> None:
        fresh = max(self.first, self._seen, start)
        self._seen = start + len(states_ND)
        if fresh < self._seen:
            self.take(fresh, states_ND[fresh - start :])
        self.finished = self._seen == len(self.sequence.ids)


class Scheduler:
    """max_batch: sequences in a step. max_waiting: of those that wait, from which on newcomers are refused.
    step_tokens: prompt tokens of a step while replies are being written."""

    def __init__(
        self, runner: Runner, cache: Cache, draw: Draws, max_batch: int, max_waiting: int, step_tokens: int
    ) -> None:
        self._runner, self._cache, self._draw = runner, cache, draw
        self._max_batch, self._max_waiting, self._step_tokens = max_batch, max_waiting, step_tokens
        self._running: list[Task] = []  # oldest first
        self._waiting: deque[Task] = deque()
        self._arrived: list[Task] = []
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = self._left = False
        self._prompt_tokens = self._generated = self._guessed = self._cached = self._preemptions = 0

    def submit(self, tasks: Sequence[Task]) -> None:
        """Raises OverloadedError where too many wait already, GenerationError after `close`."""
        with self._changed:
            waiting = sum(not task.call.gone for task in [*list(self._waiting), *self._arrived])
            if waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{waiting} replies wait already, and at most {self._max_waiting} may. Ask again later."
                )
            self._arrived += tasks
            self._wake()

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Run this between steps, where nothing else uses the model."""
        future: Future[T] = Future()
        with self._changed:
            self._jobs.append((job, future))
            self._wake()
        return future

    def leave(self, call: Call[Any]) -> None:
        """The caller is gone: its sequences leave at the next step."""
        with self._changed:
            if call.left:
                call.gone = self._left = True
                self._changed.notify()

    def close(self) -> None:
        """End the thread after its step; callers who still wait get an OverloadedError. It waits for that: a thread
        that is inside torch when the interpreter ends would abort it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LONGEST_S)

    def stats(self) -> EngineStats:
        return EngineStats(
            len(self._running),
            len(self._waiting) + len(self._arrived),
            1 - self._cache.room / self._cache.size,
            self._prompt_tokens,
            self._generated,
            self._guessed,
            self._cached,
            self._preemptions,
        )

    def _wake(self) -> None:
        if self._closed:
            raise GenerationError("The engine is closed. Make a new one.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="foretell-engine", daemon=True)
            self._thread.start()
        self._changed.notify()

    @torch.inference_mode()
    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (self._arrived or self._jobs or self._closed or self._left or self._running or self._waiting):
                    self._changed.wait()
                self._waiting += self._arrived
                self._arrived = []
                jobs, self._jobs = self._jobs, deque()
            if self._closed:
                self._fail(OverloadedError("The engine was closed before this was answered. Ask again later."))
                for _, future in jobs:
                    future.cancel()
                return
            try:
                for job, future in jobs:
                    self._refresh()
                    _settle(future, job)
                self._step()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Nobody can be answered; the next may be."""
        for task in [*self._running, *self._waiting]:
            if not task.call.gone:
                task.call.fail(error)
                task.call.flush()
        self._drop(lambda task: True)

    def _drop(self, gone: Callable[[Task], bool]) -> None:
        for task in [task for task in self._running if gone(task)]:
            self._release(task)
            self._running.remove(task)
        self._waiting = deque(task for task in self._waiting if not gone(task))

    def _release(self, task: Task) -> None:
        self._cache.release(task.sequence.blocks)
        task.sequence.blocks, task.sequence.filled = [], 0

    def _refresh(self) -> None:
        """Between answers, weights that training has changed are taken anew."""
        if not self._running and self._runner.stale():
            self._runner.pack()
            self._cache.clear()

    def _step(self) -> None:
        if self._left:
            self._left = False
            self._drop(lambda task: task.call.gone)
        self._refresh()
        plan = self._plan()
        if not plan:
            return
        self._guess(plan)
        states = self._runner.forward(self._cache, [(task.sequence, count) for task, count in plan.items()])
        replies: list[Task] = []
        ends: list[Tensor] = []
        for (task, count), states_ND in zip(plan.items(), states, strict=True):
            if isinstance(task, Probe):
                task.give(task.sequence.filled - count, states_ND)
                if task.finished:
                    task.call.emit([], finished=True)
            elif task.sequence.filled == len(task.sequence.ids):
                for each in (task, *self._siblings(task)):
                    replies.append(each)
                    ends.append(states_ND[count - 1 :])
        if replies:
            self._advance(replies, ends)
        self._drop(lambda task: task.finished or task.call.gone)
        for call in {id(task.call): task.call for task in [*plan, *replies]}.values():
            call.flush()

    def _guess(self, plan: dict[Task, int]) -> None:
        """Let replies use the rows that would be padding."""
        rows = sum(plan.values())
        spare = -rows % self._runner.row_multiple
        if rows == len(plan):
            for i, task in enumerate(plan):
                sequence, share = task.sequence, -(-spare // (len(plan) - i))
                sequence.guess = task.guess(min(share, len(sequence.blocks) * BLOCK - len(sequence.ids)))
                spare -= len(sequence.guess)

    def _advance(self, replies: list[Task], ends: list[Tensor]) -> None:
        """Draw each reply's next token from the first of its states, and one more as long as its guess was right."""
        logits = torch.split(self._runner.logits(torch.cat(ends)), [len(states) for states in ends])
        left = list(zip(replies, logits, [task.sequence.guess for task in replies], strict=True))
        for task in replies:
            task.sequence.guess = []
        for step in range(max(map(len, logits))):
            drawn = self._draw([task for task, *_ in left], torch.stack([rows[step] for _, rows, _ in left]))
            self._generated += len(left)
            for (task, *_), error in zip(left, drawn, strict=True):
                if error is not None:
                    self._cache.scrub(task.sequence.blocks)
                    task.call.fail(error)
            left = [
                (task, rows, guess)
                for task, rows, guess in left
                if not (task.finished or task.call.gone) and step < len(guess) and task.sequence.ids[-1] == guess[step]
            ]
            for task, *_ in left:
                self._runner.fill(self._cache, task.sequence, 1)
                self._guessed += 1
            if not left:
                break

    def _plan(self) -> dict[Task, int]:
        """How many positions of which sequences to compute: one of each reply, then prompts, oldest first."""
        plan: dict[Task, int] = {}
        for task in list(self._running):
            if _left(task) == 1 and task in self._running and self._grow(task, plan):
                plan[task] = 1
        budget = self._step_tokens if plan else 4 * self._step_tokens
        for task in self._running:
            if (left := min(_left(task), budget, self._step_tokens)) and task not in plan:
                plan[task] = left
                budget -= left
        reading = {id(task.sequence.prompt) for task in self._running if _left(task) > 1}
        for task in list(self._waiting):
            if len(self._running) >= self._max_batch or budget <= 0:
                break
            if id(task.sequence.prompt) in reading:  # what it shares with another is about to be known
                continue
            if not self._admit(task):
                break
            reading.add(id(task.sequence.prompt))
            plan[task] = min(_left(task), budget, self._step_tokens)
            budget -= plan[task]
        return plan

    def _admit(self, task: Task) -> bool:
        """Start a sequence behind what is known of its beginning, if all of it fits."""
        sequence, cache = task.sequence, self._cache
        known = cache.find(sequence.name(min(task.first, len(sequence.ids) - 1) // BLOCK))
        cache.share(known)
        need = -(-len(sequence.ids) // BLOCK) - len(known)
        if need > cache.room:
            cache.release(known)
            return False
        sequence.blocks, sequence.filled = known + cache.take(need), len(known) * BLOCK
        if sequence.cached is None:
            sequence.cached = sequence.filled
        self._cached += sequence.filled
        self._prompt_tokens += len(sequence.ids) - sequence.filled
        self._waiting.remove(task)
        self._running.append(task)
        return True

    def _grow(self, task: Task, plan: dict[Task, int]) -> bool:
        """Give a sequence blocks for all its ids, at the cost of the youngest; false where that is itself."""
        sequence = task.sequence
        while (need := -(-len(sequence.ids) // BLOCK) - len(sequence.blocks)) > self._cache.room:
            youngest = self._running.pop()
            self._release(youngest)
            plan.pop(youngest, None)
            self._waiting.appendleft(youngest)
            self._preemptions += 1
            if youngest is task:
                return False
        sequence.blocks += self._cache.take(need)
        return True

    def _siblings(self, task: Task) -> list[Task]:
        """Other samples of a prompt that was just read start where it ends, on a copy of its last block."""
        sequence = task.sequence
        if len(sequence.ids) > len(sequence.prompt.ids):
            return []
        found: list[Task] = []
        for other in list(self._waiting):
            if len(self._running) >= self._max_batch or not self._cache.room:
                break
            same = other.sequence.prompt is sequence.prompt and other.sequence.adapter == sequence.adapter
            same &= other.sequence.salt == sequence.salt
            if same and len(other.sequence.ids) == len(sequence.ids) and not isinstance(other, Probe):
                other.sequence.blocks = self._cache.fork(sequence.blocks, sequence.filled)
                other.sequence.filled = sequence.filled
                self._cached += sequence.filled
                self._waiting.remove(other)
                self._running.append(other)
                found.append(other)
        return found


def _left(task: Task) -> int:
    return len(task.sequence.ids) - task.sequence.filled


def _settle(future: Future[T], job: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
