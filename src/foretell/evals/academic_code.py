"""What samples wait for in common: programs put in the sandbox together, since a start costs more than a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from foretell.errors import ForetellError
from foretell.measure.sandbox import Outcome, Sandbox
from foretell.measure.sandbox_programs import Untrusted

CODE_CHAT = "Complete this Python function. Reply with the whole function and nothing else.\n\n"
Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Together(Generic[Asked, Told]):
    """Asks for what samples want in batches, on a thread: while one batch is answered, the next gathers."""

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Told]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Asked, asyncio.Future[Told]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, asked: Asked) -> Told:
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # all who ask in this turn of the loop
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                found = await asyncio.to_thread(self._answer, [asked for asked, _ in taken])
            except ForetellError as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), told in zip(taken, found, strict=True):
                if not future.done():
                    future.set_result(told)


class Verdicts(Together[Untrusted, Outcome]):
    """What became of programs. allow_unsafe: run them without a sandbox where none works.

    Raises SandboxError where they cannot be run.
    """

    def __init__(self, allow_unsafe: bool = False) -> None:
        self.allow_unsafe = allow_unsafe
        self._sandbox: Sandbox | None = None
        super().__init__(lambda programs: self.ready().run_many(programs))

    def ready(self) -> Sandbox:
        """Raises SandboxError where programs cannot be run: to be asked before a model is, which may cost."""
        if self._sandbox is None:
            self._sandbox = Sandbox(allow_unsafe=self.allow_unsafe)
        return self._sandbox
