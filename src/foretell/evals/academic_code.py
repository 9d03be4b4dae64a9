"""Programs that samples wait for, put in the sandbox together, since a start costs more than a run."""

from __future__ import annotations

import asyncio

from foretell.errors import ForetellError
from foretell.measure.sandbox import Outcome, Sandbox
from foretell.measure.sandbox_programs import Untrusted

CODE_CHAT = "Complete this Python function. Reply with the whole function and nothing else.\n\n"


class Verdicts:
    """Runs programs in batches: while one batch is run, the next gathers.

    allow_unsafe: run them without a sandbox where none works. Raises SandboxError where they cannot be run.
    """

    def __init__(self, allow_unsafe: bool = False) -> None:
        self.allow_unsafe = allow_unsafe
        self._sandbox: Sandbox | None = None
        self._waiting: list[tuple[Untrusted, asyncio.Future[Outcome]]] = []
        self._task: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """Raises SandboxError where programs cannot be run: to be asked before a model is, which may cost."""
        if self._sandbox is None:
            self._sandbox = Sandbox(allow_unsafe=self.allow_unsafe)

    async def __call__(self, program: Untrusted) -> Outcome:
        """What became of a program."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((program, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # all who ask in this turn of the loop
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                self.ready()
                assert self._sandbox is not None
                outcomes = await asyncio.to_thread(self._sandbox.run_many, [program for program, _ in taken])
            except ForetellError as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), outcome in zip(taken, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
