"""Pass rates along a ladder: each checkpoint's draws on the world's held-out programs, graded in the sandbox."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretell.data.world.programs import ALL, MANY, Problem, problems
from foretell.errors import ForecastError
from foretell.files import sha256_file
from foretell.forecast.capability import Tally, tally
from foretell.generate import Sampling
from foretell.measure.fanout import Where, fan_out
from foretell.measure.sandbox import Limits, Program, Sandbox
from foretell.run import Report, silent

if TYPE_CHECKING:
    from foretell.engine.local import Engine

FORM = "foretell tallies 1"
_TOGETHER = 16  # problems whose programs share sandboxes
_LIMITS = Limits(wall_s=5, cpu_s=0.1, memory_bytes=256 << 20)  # a right solution takes a millisecond; few never end


@dataclass(frozen=True)
class Exam:
    """What every model of a ladder is asked, and how often.

    per_grade, grades, values, constants, seed: of the problems (`data.world.programs.problems`). wanted: passes at
    which sampling of a problem stops. most: draws at which it stops without them. max_tokens: of a completion, longer
    than any solution. draws: seed of the draws; buckets and laws take different ones.
    """

    per_grade: int = 40
    grades: tuple[int, ...] = (1, 2, 3, 4)
    values: str = ALL
    constants: int = MANY
    seed: int = 0
    wanted: int = 10
    most: int = 1000
    max_tokens: int = 128
    draws: int = 0

    def problems(self) -> list[Problem]:
        return problems(self.per_grade, self.seed, "heldout", self.grades, self.values, self.constants)

    @property
    def rounds(self) -> list[int]:
        """Draws at a time: few at first, since they often suffice."""
        first = min(5 * self.wanted, self.most)
        second = min(4 * first, self.most - first)
        return [size for size in (first, second, self.most - first - second) if size]


def name_of(problem: Problem) -> str:
    """Grade and digest of the prompt: what a tally calls its problem."""
    return f"{problem.grade}-{hashlib.sha256(problem.prompt.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class _Task:
    checkpoint: Path
    file: Path
    exam: Exam


def sit(
    checkpoints: Mapping[str, Path],
    exam: Exam,
    out: Path,
    *,
    workers: int | None = None,
    on: Where = "local",
    report: Report = silent,
) -> dict[str, list[Tally]]:
    """Ask each checkpoint (name → folder) all problems; its tallies, in the order of the problems.

    out: takes NAME.jsonl of each, a line a problem as they come; the same call goes on where it was cut off.
    workers, on: models at a time, and where (see `measure.fanout`).
    Raises ForecastError where a file is of another exam or other weights, SandboxError without a sandbox.
    """
    Sandbox(limits=_LIMITS)  # without one, say so before anything is drawn
    tasks = [_Task(folder.absolute(), out.absolute() / f"{name}.jsonl", exam) for name, folder in checkpoints.items()]
    total = len(tasks) * exam.per_grade * len(exam.grades)
    out.mkdir(parents=True, exist_ok=True)

    def tell() -> None:
        done = sum(max(0, task.file.read_bytes().count(b"\n") - 1) for task in tasks if task.file.exists())
        report(f"capability, {out.name}", done, total, f"{done:,} of {total:,} problems")

    def announce(said: str) -> None:
        report(f"capability, {out.name}", 0, 0, said)

    for _ in fan_out(_sit_one, tasks, workers=workers, on=on, tick=tell, tell=announce):
        tell()
    return {name: _read(task)[0] for name, task in zip(checkpoints, tasks, strict=True)}


def _sit_one(task: _Task) -> None:
    """Everything that a task still lacks."""
    from foretell.loading import load

    found, length = _read(task)
    done = {t.problem for t in found}
    left = [problem for problem in task.exam.problems() if name_of(problem) not in done]
    if not left:
        return
    with task.file.open("r+b" if length else "wb") as stream:
        stream.truncate(length)  # a line that was cut off
        stream.seek(length)

        def write(line: Mapping[str, Any]) -> None:
            stream.write(json.dumps(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

        if not length:
            write(_head(task))
        for t in ask(load(task.checkpoint).generator, left, task.exam, _weights(task.checkpoint)):
            write(asdict(t))


def ask(engine: Engine, asked: Sequence[Problem], exam: Exam, salt: str = "") -> Iterator[Tally]:
    """A tally of each problem, in their order. salt: what else the draws depend on, such as the model's digest."""
    sandbox = Sandbox(limits=_LIMITS)
    for some in (asked[at : at + _TOGETHER] for at in range(0, len(asked), _TOGETHER)):
        passed: dict[Program, bool] = {}
        outcomes: dict[Problem, list[bool]] = {problem: [] for problem in some}
        for turn, size in enumerate(exam.rounds):
            open_ = [problem for problem in some if sum(outcomes[problem]) < exam.wanted]
            drawn = []
            for problem in open_:
                seed = _seed(exam.draws, salt, name_of(problem), turn)
                sampling = Sampling(max_tokens=exam.max_tokens, seed=seed)
                counted = engine.count(engine.encode_text(problem.prompt), size, sampling)
                drawn.append((problem, seed, [(problem.program(text), n) for text, n in counted.items()]))
            _grade(sandbox, [program for _, _, counts in drawn for program, _ in counts], passed)
            for problem, seed, counts in drawn:
                results = np.repeat([passed[program] for program, _ in counts], [n for _, n in counts])
                outcomes[problem] += np.random.default_rng(seed).permutation(results).tolist()
        for problem in some:
            yield tally(name_of(problem), outcomes[problem], exam.wanted)


def _grade(sandbox: Sandbox, programs: Sequence[Program], passed: dict[Program, bool]) -> None:
    """Grade each different program once; one that does not parse fails without being run."""
    fresh = [program for program in dict.fromkeys(programs) if program not in passed]
    passed.update(dict.fromkeys(fresh, False))
    sound = [program for program in fresh if _parses(program.source)]
    for program, outcome in zip(sound, sandbox.run_many(sound), strict=True):
        passed[program] = outcome.verdict == "passed"


def _parses(source: str) -> bool:
    with warnings.catch_warnings(action="ignore"):  # such as of 2if
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")


def _weights(checkpoint: Path) -> str:
    return sha256_file(checkpoint / "model.safetensors")[:16]


def _head(task: _Task) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(task.exam)))
    return {"form": FORM, "weights": _weights(task.checkpoint), "exam": plain}


def _read(task: _Task) -> tuple[list[Tally], int]:
    """The tallies written so far, and how many bytes hold them and their head."""
    try:
        data = task.file.read_bytes()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        return [], 0
    head, *lines = whole.splitlines()
    try:
        if json.loads(head) != _head(task):
            raise ForecastError(
                f"{task.file} holds tallies of another exam, or of other weights. Remove it, or write elsewhere."
            )
        return [Tally(**json.loads(line)) for line in lines], len(whole)
    except (ValueError, TypeError) as error:
        raise ForecastError(
            f"{task.file} is not a file of tallies ({error}). Remove it, or write elsewhere."
        ) from error
