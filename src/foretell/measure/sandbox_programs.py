"""What can be asked of untrusted Python: calls, a test program, or standard input; and how what came back is graded."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Verdict = Literal["passed", "failed", "error", "timeout"]


@dataclass(frozen=True)
class Limits:
    """Of one program. A program may start no process and no thread.

    wall_s, cpu_s: seconds. memory_bytes: of address space. output_bytes: of what it returns or prints, written out.
    tmp_bytes: of the private /tmp, and of any one file in it.
    """

    wall_s: float = 5.0
    cpu_s: float = 3
    memory_bytes: int = 512 << 20
    output_bytes: int = 64 << 10
    tmp_bytes: int = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    failed: it gave something else. error: it raised, ended, or gave too much. timeout: of wall or CPU time.
    values: what it gave where it ended well: `repr` of what each call returned, or what was printed for each input.
    detail: why it did not pass, and where in its test. Both have its own words in them, so nothing to rely on.
    """

    verdict: Verdict
    values: tuple[str, ...] = ()
    detail: str = ""
    seconds: float = 0.0


class Untrusted(Protocol):
    """A program of any kind: hashable, so that equal ones are run once."""

    @property
    def runs(self) -> int:
        """How many times the limits apply."""

    @abstractmethod
    def frames(self) -> list[dict[str, Any]]:
        """What the sandbox is sent."""

    @abstractmethod
    def judge(self, reply: dict[str, Any]) -> Outcome:
        """The verdict on what came back within the limits, of which nothing is to be trusted but the status.

        Raises ValueError, KeyError, TypeError or RecursionError where that has no sense.
        """


@dataclass(frozen=True)
class Program:
    """Python source, and calls of one of its functions with what each must return.

    entry: the function's name; "Solution.solve" is that method of a new Solution(). calls: each the arguments as a
    Python tuple, "([3, 1], 'a')".
    expected: `repr` of each right value: equality is by text, so that 1, 1.0 and True differ.
    """

    source: str
    entry: str
    calls: tuple[str, ...]
    expected: tuple[str, ...]
    runs = 1

    def __post_init__(self) -> None:
        _as_many("calls", self.calls, self.expected)

    def frames(self) -> list[dict[str, Any]]:
        return [{"source": self.source, "entry": self.entry, "calls": self.calls}]

    def judge(self, reply: dict[str, Any]) -> Outcome:
        said = json.loads(reply["said"])
        if "error" in said:
            return Outcome("error", (), str(said["error"])[:300])
        values = said["values"]
        if not isinstance(values, list) or len(values) != len(self.calls) or {*map(type, values)} != {str}:
            raise ValueError
        if tuple(values) == self.expected:
            return Outcome("passed", tuple(values))
        at = next(i for i, value in enumerate(self.expected) if values[i] != value)
        detail = f"{self.entry}{self.calls[at]} returned {values[at][:100]}, not {self.expected[at][:100]}"
        return Outcome("failed", tuple(values), detail)


@dataclass(frozen=True)
class Checked:
    """Python source, and a test program that calls one of its functions and raises where it is wrong.

    The test and the source run in two processes. The test knows the function as `candidate` and by the name `entry`
    (see Program): a stand-in, which sends its arguments and gets values or exceptions back as plain data. Numbers,
    text, bytes, None, lists, tuples, dicts and sets travel, changes made to an argument in place too; another iterable
    arrives as an iterator; anything else is a TypeError in the test.
    prelude: trusted source that the test needs, such as functions that a problem gives; run before it.
    """

    source: str
    entry: str
    test: str
    prelude: str = ""
    runs = 1

    def frames(self) -> list[dict[str, Any]]:
        # Apart, since the process that the source's is a copy of never reads the second.
        given = {"source": self.source, "entry": self.entry, "checked": True}
        return [given, {"entry": self.entry, "test": self.test, "prelude": self.prelude}]

    def judge(self, reply: dict[str, Any]) -> Outcome:
        said = json.loads(reply["said"])
        if said.get("passed") is True:
            return Outcome("passed")
        line, kind, own = int(said["line"]), str(said["type"]), said["own"]
        lines = self.test.splitlines()
        at = f"line {line} of the test: {lines[line - 1].strip()[:200]}" if 0 < line <= len(lines) else ""
        if own is not None:  # what the program itself did
            ended = f" (status {reply['status']})" if kind == "Ended" else ""
            return Outcome("error", (), "; ".join(filter(None, (str(own)[:300] + ended, at))))
        return (
            Outcome("failed", (), f"{kind} at {at}") if at else Outcome("error", (), f"the test does not run: {kind}")
        )


@dataclass(frozen=True)
class Piped:
    """A Python program that reads standard input and prints, run once for each input in a process of its own.

    inputs, expected: what it reads, and what it must print. exact: to the byte; else by lines, whose runs of white
    space count as one space, without blank lines at the ends.
    It passes where it prints what is expected and ends with status 0 for every input.
    """

    source: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]
    exact: bool = False

    def __post_init__(self) -> None:
        _as_many("inputs", self.inputs, self.expected)

    @property
    def runs(self) -> int:
        return len(self.inputs)

    def frames(self) -> list[dict[str, Any]]:
        return [{"source": self.source, "inputs": self.inputs}]

    def judge(self, reply: dict[str, Any]) -> Outcome:
        values = tuple(reply["printed"])
        for at, (value, right) in enumerate(zip(values, self.expected, strict=False)):
            if at == len(values) - 1 and reply["status"] != 0:  # the last that was run
                words = str(reply["said"])[:300] or f"ended with status {reply['status']}"
                return Outcome("error", (), f"input {at + 1}: {words}")
            if value != right if self.exact else _lines(value) != _lines(right):
                return Outcome("failed", values, f"input {at + 1} gave {value[:100]!r}, not {right[:100]!r}")
        if len(values) != len(self.expected):
            raise ValueError
        return Outcome("passed", values)


def _as_many(what: str, given: Sequence[str], expected: Sequence[str]) -> None:
    if not given or len(given) != len(expected):
        raise ValueError(f"{len(given)} {what} with {len(expected)} expected values; expected as many")


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def grade(program: Untrusted, reply: dict[str, Any], limits: Limits) -> Outcome:
    """The verdict, from what a program wrote and how it ended; right answers never left this process or the test's."""
    seconds = reply["seconds"]
    if reply["over"]:
        return Outcome("error", (), f"more than {limits.output_bytes:,} bytes of output", seconds)
    if reply["late"]:
        return Outcome("timeout", (), f"more than {limits.wall_s:g} s, or {limits.cpu_s:g} s of CPU time", seconds)
    try:
        outcome = program.judge(reply)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Outcome("error", (), f"ended without a result (status {reply['status']})", seconds)
    return Outcome(outcome.verdict, outcome.values, outcome.detail, seconds)
