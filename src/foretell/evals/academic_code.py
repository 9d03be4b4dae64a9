"""Programs that samples wait for, put in the sandbox together, since a start costs more than a run."""

from __future__ import annotations

import asyncio
import re
import textwrap

from foretell.data.world.programs import body
from foretell.errors import ForetellError
from foretell.measure.sandbox import Outcome, Sandbox
from foretell.measure.sandbox_programs import Untrusted

CODE_CHAT = "Complete this Python function. Reply with the whole function and nothing else.\n\n"
_FENCED = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)


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


def function_source(prompt: str, reply: str, entry: str) -> str:
    """The program of a reply to a prompt that ends in a function's docstring.

    A reply that defines the function stands for itself, behind what the prompt has before it; any other is the body,
    up to the first line that is not indented. Code in a fence is taken out of it.
    """
    fenced = _FENCED.search(reply)
    code = fenced[1] if fenced else reply
    if re.search(rf"^def {re.escape(entry)}\b", code, re.MULTILINE):
        return header(prompt, entry) + code
    first = next((line for line in code.splitlines() if line.strip()), "")
    if fenced and not first.startswith((" ", "\t")):
        code = textwrap.indent(code, "    ")
    return prompt + body(code)


def header(prompt: str, entry: str) -> str:
    """What of a prompt stands before the function: imports and helpers."""
    at = re.search(rf"^def {re.escape(entry)}\b", prompt, re.MULTILINE)
    return prompt[: at.start()] if at else ""
