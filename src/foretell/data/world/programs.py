"""Short Python functions to write from a docstring with examples: composed of known operations, graded, with tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, document, draw, is_whole, require, subset
from foretell.errors import RecipeError
from foretell.measure.sandbox import Program

MOST = 8  # grades
EXAMPLES, TESTS = 2, 8
LETTERS = "abcdefgh"
_LONGEST = 60  # characters of a value
_LARGEST = 10_000


@dataclass(frozen=True)
class Operation:
    """One thing to do. kind, gives: "n" (whole number), "a" (list of them) or "s" (string), also the variable's name.

    phrases: ways to ask for it. code: an expression, or lines that end with the new value assigned. `{c}` < `{d}` are
    numbers within `low`…`high`; `{q}` and `{r}` are two letters.
    """

    name: str
    kind: str
    gives: str
    phrases: tuple[str, ...]
    code: str
    low: int = 2
    high: int = 9


def _all(kind: str, gives: str, rows: Sequence[tuple[Any, ...]]) -> list[Operation]:
    return [Operation(name, kind, gives, tuple(asked.split("|")), code, *limits) for name, asked, code, *limits in rows]


NUMBER = _all(
    "n",
    "n",
    [
        ("add", "add {c}|increase by {c}", "n + {c}"),
        ("subtract", "subtract {c}|decrease by {c}", "n - {c}"),
        ("multiply", "multiply by {c}|take {c} times", "n * {c}"),
        ("divide", "divide by {c}, rounding down|floor-divide by {c}", "n // {c}"),
        ("remainder", "take the remainder by {c}|reduce modulo {c}", "n % {c}"),
        ("most", "cap at {c}|lower to at most {c}", "min(n, {c})"),
        ("least", "raise to at least {c}|make it {c} or more", "max(n, {c})"),
        ("from", "subtract it from {c}|take it away from {c}", "{c} - n"),
        ("clip", "clip to {c} and {d}|keep between {c} and {d}", "max({c}, min(n, {d}))"),
        ("square", "square|multiply by itself", "n * n"),
        ("size", "drop the sign|take the absolute value", "abs(n)"),
        ("digits", "sum the digits|add up the digits", "sum(int(d) for d in str(abs(n)))"),
        ("upto", "sum all numbers below it|add 0, 1, 2 … below it", "t = 0\nfor i in range(n):\n    t += i\nn = t"),
        ("halve", "halve while even|divide by 2 until odd", "while n and n % 2 == 0:\n    n = n // 2"),
    ],
)
LIST = _all(
    "a",
    "a",
    [
        ("reverse", "reverse the list|turn the list around", "a[::-1]"),
        ("sort", "sort the list|order the numbers", "sorted(a)"),
        ("down", "sort downward|order from the largest", "sorted(a, reverse=True)"),
        ("once", "keep each number once|remove repeats", "list(dict.fromkeys(a))"),
        ("first", "keep the first {c}|take {c} from the front", "a[:{c}]", 2, 4),
        ("skip", "drop the first {c}|skip {c} numbers", "a[{c}:]", 1, 3),
        ("append", "append {c}|put {c} at the end", "a + [{c}]"),
        ("prepend", "prepend {c}|put {c} in front", "[{c}] + a"),
        ("without", "remove {c}|delete each {c}", "[n for n in a if n != {c}]"),
        ("change", "replace {c} by {d}|turn each {c} into {d}", "[{d} if n == {c} else n for n in a]"),
        ("within", "keep numbers from {c} to {d}|drop all but {c} to {d}", "[n for n in a if {c} <= n <= {d}]"),
        ("even", "keep even numbers|drop odd numbers", "[n for n in a if n % 2 == 0]"),
        ("above", "keep numbers above {c}|drop numbers up to {c}", "[n for n in a if n > {c}]"),
        ("below", "keep numbers below {c}|drop numbers from {c} on", "[n for n in a if n < {c}]"),
        ("rotate", "move the first {c} to the end|rotate left by {c}", "a[{c}:] + a[:{c}]", 1, 3),
        ("second", "keep every second number|skip every other number", "a[::2]"),
        ("steps", "take neighbour differences|subtract each number from the next", "[m - n for n, m in zip(a, a[1:])]"),
        (
            "totals",
            "make running totals|use partial sums",
            "t, b = 0, []\nfor n in a:\n    t += n\n    b.append(t)\na = b",
        ),
    ],
)
STRING = _all(
    "s",
    "s",
    [
        ("flip", "reverse the text|write it backwards", "s[::-1]"),
        ("upper", "use capitals|make upper case", "s.upper()"),
        ("repeat", "repeat {c} times|write it {c} times", "s * {c}", 2, 4),
        ("head", "keep {c} letters|take the first {c} letters", "s[:{c}]", 2, 4),
        ("tail", "drop {c} letters|skip the first {c} letters", "s[{c}:]", 1, 3),
        ("end", "append '{q}'|put '{q}' at the end", "s + '{q}'"),
        ("start", "prepend '{q}'|put '{q}' in front", "'{q}' + s"),
        ("wrap", "put '{q}' in front and '{r}' at the end|begin with '{q}', end with '{r}'", "'{q}' + s + '{r}'"),
        ("swap", "replace '{q}' by '{r}'|turn each '{q}' into '{r}'", "s.replace('{q}', '{r}')"),
        ("remove", "remove '{q}'|delete each '{q}'", "''.join(c for c in s if c != '{q}')"),
        ("alphabet", "sort the letters|put letters in order", "''.join(sorted(s))"),
        ("double", "double each letter|write each letter twice", "''.join(c + c for c in s)"),
        ("odd", "keep every second letter|skip every other letter", "s[::2]"),
    ],
)
BETWEEN = [
    *_all("n", "s", [("text", "write as text|turn into a string", "str(n)")]),
    *_all("n", "s", [("line", "write so many '{q}'|repeat '{q}' that often", "'{q}' * n")]),
    *_all("n", "a", [("spread", "list its digits|split into digits", "[int(d) for d in str(abs(n))]")]),
    *_all(
        "a",
        "n",
        [
            ("sum", "sum|add up the numbers", "sum(a)"),
            ("largest", "take the largest|find the maximum", "max(a)"),
            ("smallest", "take the smallest|find the minimum", "min(a)"),
            ("count", "count the numbers|take the list's length", "len(a)"),
            ("last", "take the last number|pick the last", "a[-1]"),
            ("many", "count numbers above {c}|count those over {c}", "sum(n > {c} for n in a)"),
            (
                "inside",
                "count numbers from {c} to {d}|count those within {c} to {d}",
                "sum({c} <= n <= {d} for n in a)",
            ),
            ("product", "multiply all|take the product", "t = 1\nfor n in a:\n    t = t * n\nn = t"),
        ],
    ),
    *_all(
        "s",
        "n",
        [
            ("length", "count the letters|take the length", "len(s)"),
            ("letter", "count '{q}'|count how often '{q}' occurs", "s.count('{q}')"),
            ("find", "find '{q}'|take the position of '{q}'", "s.find('{q}')"),
            ("vowels", "count a and e|count letters that are a or e", "sum(c in 'ae' for c in s)"),
        ],
    ),
    *_all("s", "a", [("marks", "write 1 for a or e, else 0|mark a and e by 1", "[int(c in 'ae') for c in s]")]),
]
CONDITIONS = [
    ("even", "if even", "n % 2 == 0"),
    ("odd", "if odd", "n % 2 != 0"),
    ("above", "if above {c}", "n > {c}"),
    ("below", "if below {c}", "n < {c}"),
]
MANY = 8  # different constants
ALL, VALUES = "nas", ("n", "a", "s", "na", "ns", "as", "nas")  # which kinds of value occur
OPERATIONS = {
    (values, kind): [op for op in chain(NUMBER, LIST, STRING, BETWEEN) if op.kind == kind and op.gives in values]
    for values in VALUES
    for kind in values
}
_SIMPLE = [op for op in NUMBER if "\n" not in op.code]  # what may stand inside a condition or a comprehension


@dataclass(frozen=True)
class Step:
    """An operation with its constants filled in. size: operations it composes. bare: its code without the condition."""

    structure: str
    phrase: str
    code: str
    kind: str
    gives: str
    size: int = 1
    bare: str | None = None


@dataclass(frozen=True)
class Problem:
    """A function to write.

    key: its structure, which decides whether it is held out. grade: the number of composed operations. prompt: up to
    the body. solution: the body. calls, expected: the hidden tests, as in Program.
    """

    key: str
    grade: int
    prompt: str
    solution: str
    calls: tuple[str, ...]
    expected: tuple[str, ...]

    def program(self, completion: str) -> Program:
        """The program that a completion of the prompt makes: what follows the function's body is cut off."""
        return Program(self.prompt + body(completion), "f", self.calls, self.expected)


class Programs:
    """Functions composed of 1 … `grades` operations, as HumanEval writes them; the task names the grade.

    values: which kinds of value occur, of "n" (numbers), "a" (lists) and "s" (strings). constants: how many different
    constants an operation may have; with one, nothing is to be copied from the docstring, and smaller models succeed.
    No operation can be left out: without it some test fails. Held out by structure: by which operations are composed,
    whatever their constants; a single operation (grade 1) by its constants too, lest it never be learned.
    """

    name = "programs"
    visual = False

    def __init__(
        self, grades: int = 6, tasks: Sequence[str] | None = None, values: str = ALL, constants: int = MANY
    ) -> None:
        require(is_whole(grades, 1, MOST), "programs.grades", grades, f"a whole number from 1 to {MOST}")
        require(values in VALUES, "programs.values", values, f"one of {', '.join(VALUES)}")
        require(is_whole(constants, 1, MANY), "programs.constants", constants, f"a whole number from 1 to {MANY}")
        self.values, self.constants = values, constants
        self.tasks = subset("programs.tasks", tasks, [f"programs.{grade}" for grade in range(1, grades + 1)])

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        made = make_problem(rng, split, int(task.rpartition(".")[2]), self.values, self.constants)
        return Item(made.key, task, document(task, [Segment(text=made.prompt + made.solution)]))


def problems(
    per_grade: int,
    seed: int = 0,
    split: Split = "heldout",
    grades: Sequence[int] = range(1, 7),
    values: str = ALL,
    constants: int = MANY,
) -> list[Problem]:
    """Different problems, `per_grade` of each grade, easiest first; the first ones are the same for every number.

    Raises RecipeError when a grade has too few, or is none.
    """
    found: list[Problem] = []
    for grade in grades:
        require(is_whole(grade, 1, MOST), "grades", grade, f"whole numbers from 1 to {MOST}")
        rng = random.Random(f"programs/{split}/{seed}/{grade}")
        made: dict[str, Problem] = {}
        tries = 0
        while len(made) < per_grade:
            problem = make_problem(rng, split, grade, values, constants)
            tries = tries + 1 if problem.solution in made else 0
            if tries > 1000:
                raise RecipeError(f"Grade {grade} has about {len(made)} different {split} problems, not {per_grade}.")
            made.setdefault(problem.solution, problem)
        found += made.values()
    return found


def make_problem(rng: random.Random, split: Split, grade: int, values: str = ALL, constants: int = MANY) -> Problem:
    """A problem of the split whose tests tell it from itself with any one step left out."""
    while True:
        steps = draw(rng, split, lambda r: _propose(r, grade, values, constants), lambda steps: _key(steps, grade))
        inputs = _inputs(rng, steps[0].kind)
        given = _values(steps, inputs)
        if given is None or len(set(given[:EXAMPLES])) < EXAMPLES or len(set(given[EXAMPLES:])) < 2:
            continue
        if any((_values(rest, inputs) or [])[EXAMPLES:] == given[EXAMPLES:] for rest in _shorter(steps)):
            continue
        asked = "; ".join(step.phrase for step in steps)
        shown = "".join(f"    >>> f({x!r})\n    {y}\n" for x, y in zip(inputs[:EXAMPLES], given, strict=False))
        prompt = f'def f({steps[0].kind}):\n    """{asked[0].upper()}{asked[1:]}.\n{shown}    """\n'
        calls = tuple(f"({x!r},)" for x in inputs[EXAMPLES:])
        return Problem(_key(steps, grade), grade, prompt, _body(steps), calls, tuple(given[EXAMPLES:]))


def body(completion: str) -> str:
    """The part of a completion that belongs to the function: its lines up to the first that is not indented."""
    lines = completion.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith((" ", "\t"))), len(lines))
    return "".join(lines[:end])


def _propose(rng: random.Random, grade: int, values: str, constants: int) -> list[Step]:
    steps: list[Step] = []
    kind = rng.choice(values)
    while (left := grade - sum(step.size for step in steps)) > 0:
        nested = left > 1 and kind != "s" and rng.random() < 0.25
        step = _nested(rng, kind, constants) if nested else _filled(rng, OPERATIONS[values, kind], constants)
        if not steps or step.structure.split(":")[0] != steps[-1].structure.split(":")[0]:
            steps.append(step)
            kind = step.gives
    return steps


def _filled(rng: random.Random, operations: Sequence[Operation], constants: int) -> Step:
    op = rng.choice(operations)
    pair = max(constants, 2)
    high = min(op.high, op.low + constants - 1)
    numbers = [rng.randint(op.low, high)]
    if "{d}" in op.code:
        numbers = sorted(rng.sample(range(op.low, min(op.high, op.low + pair - 1) + 1), 2))
    letters = rng.sample(LETTERS[:pair], 2) if constants > 1 else LETTERS[:2]
    filled = dict(zip("qrcd", [*letters, *map(str, numbers)], strict=False))
    used = ",".join(value for name, value in sorted(filled.items()) if f"{{{name}}}" in op.code)
    phrase, code = (text.format(**filled) for text in (rng.choice(op.phrases), op.code))
    return Step(f"{op.name}:{used}", phrase, code, op.kind, op.gives)


def _nested(rng: random.Random, kind: str, constants: int) -> Step:
    """An operation on each number of a list, or on a number under a condition."""
    inner = _filled(rng, _SIMPLE, constants)
    if kind == "a":
        code = f"[{inner.code} for n in a]"
        return Step(f"each {inner.structure}", f"for each: {inner.phrase}", code, "a", "a", 2)
    name, asked, test = rng.choice(CONDITIONS)
    c = rng.randint(2, 1 + constants)
    code = f"if {test.format(c=c)}:\n    n = {inner.code}"
    return Step(
        f"if {name} {inner.structure},{c}", f"{asked.format(c=c)}, {inner.phrase}", code, "n", "n", 2, inner.code
    )


def _shorter(steps: list[Step]) -> Iterator[list[Step]]:
    """The steps with one operation or condition left out, wherever that can be run."""
    for i, step in enumerate(steps):
        if step.kind == step.gives:
            yield steps[:i] + steps[i + 1 :]
        if step.bare is not None:
            yield [*steps[:i], replace(step, code=step.bare), *steps[i + 1 :]]


def _key(steps: Sequence[Step], grade: int) -> str:
    names = [step.structure if grade == 1 else step.structure.split(":")[0] for step in steps]
    return f"programs:{steps[0].kind}:{';'.join(names)}"


def _body(steps: Sequence[Step]) -> str:
    """The solution's lines: one assignment a step, the last one returned."""
    lines: list[str] = []
    for i, step in enumerate(steps):
        final = i == len(steps) - 1
        if "\n" in step.code:
            lines += step.code.split("\n") + [f"return {step.gives}"] * final
        else:
            lines.append(f"return {step.code}" if final else f"{step.gives} = {step.code}")
    return "".join(f"    {line}\n" for line in lines)


def _inputs(rng: random.Random, kind: str) -> list[Any]:
    """Different arguments: examples first, then tests."""
    make: Callable[[], Any] = {
        "n": lambda: rng.randint(-9, 40),
        "a": lambda: [rng.randint(-5, 15) for _ in range(rng.randint(4, 7))],
        "s": lambda: "".join(rng.choices(LETTERS, k=rng.randint(4, 8))),
    }[kind]
    made: dict[str, Any] = {}
    while len(made) < EXAMPLES + TESTS:
        value = make()
        made[repr(value)] = value
    return list(made.values())


def _values(steps: Sequence[Step], inputs: Sequence[Any]) -> list[str] | None:
    """`repr` of what the steps return for each input; None where a step fails or a value grows too large."""
    values = []
    for value in inputs:
        for step in steps:
            try:
                value = _function(step.kind, step.code, step.gives)(value)
            except (ValueError, IndexError, ZeroDivisionError):
                return None
            if len(repr(value)) > _LONGEST or (isinstance(value, int) and abs(value) > _LARGEST):
                return None
        values.append(repr(value))
    return values


@lru_cache(maxsize=1 << 14)
def _function(kind: str, code: str, gives: str) -> Callable[[Any], Any]:
    """One step as a function. It runs here, since its code is this module's own."""
    names: dict[str, Any] = {}
    exec(f"def f({kind}):\n{_body([Step('', '', code, kind, gives)])}", names)  # noqa: S102
    function: Callable[[Any], Any] = names["f"]
    return function
