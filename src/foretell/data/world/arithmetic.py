"""Sums, differences and products, worked step by step: right, and, labelled, wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, dialogue, document, draw, is_share, is_whole, require, subset

OPERATIONS = {"arithmetic.sum": "+", "arithmetic.difference": "-", "arithmetic.product": "*"}
FORMS = ("document", "worked", "short")
ASK = ("What is {e}?", "{e} = ?", "Work out {e}.", "How much is {e}?")
ASK_WORKED = ("What is {e}? Show the steps.", "Work out {e} step by step.")
Mistake = Callable[[int], int]


class Arithmetic:
    """Arithmetic of whole numbers of one to `digits` digits; differences are never negative.

    wrong: share of worked documents with one mistake that is carried on to the result, labelled
    {"correct": "false"}. Questions are always answered rightly.
    forms: document (worked, plain text), worked (a question answered with steps), short (with the number alone).
    Held out by pair of operands, whatever their order and operation. Single steps of longer work may
    still hold a held-out pair of small numbers.
    """

    name = "arithmetic"
    visual = False

    def __init__(
        self,
        digits: int = 3,
        wrong: float = 0.2,
        tasks: Sequence[str] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        require(is_whole(digits, 1, 3), "arithmetic.digits", digits, "1, 2 or 3")
        require(is_share(wrong), "arithmetic.wrong", wrong, "a share from 0 to 1")
        self.digits, self.wrong = digits, wrong
        self.tasks = subset("arithmetic.tasks", tasks, list(OPERATIONS))
        self.forms = subset("arithmetic.forms", forms, FORMS)

    def make(self, rng: random.Random, split: Split) -> Item:
        task, form = rng.choice(self.tasks), rng.choice(self.forms)
        a, b = draw(rng, split, self.propose, pair_key)
        if task == "arithmetic.difference":
            a, b = max(a, b), min(a, b)
        sign = OPERATIONS[task]
        expression, truth = f"{a} {sign} {b}", str(value_of(a, sign, b))
        if form == "short":
            segments = dialogue([(rng.choice(ASK).format(e=expression), truth)])
            return Item(pair_key((a, b)), task, document(task, segments, labels={"correct": "true"}), truth)
        wrong = form == "document" and rng.random() < self.wrong
        text = _wrong(rng, a, sign, b) if wrong else work(rng, a, sign, b)
        labels = {"correct": str(not wrong).lower()}
        if form == "document":
            return Item(pair_key((a, b)), task, document(task, [Segment(text=text)], labels=labels))
        segments = dialogue([(rng.choice(ASK_WORKED).format(e=expression), text)])
        return Item(pair_key((a, b)), task, document(task, segments, labels=labels), truth)

    def propose(self, rng: random.Random) -> tuple[int, int]:
        """Two operands."""
        return self._number(rng), self._number(rng)

    def _number(self, rng: random.Random) -> int:
        length = rng.randint(1, self.digits)
        return rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length)


def pair_key(pair: tuple[int, int]) -> str:
    return f"arithmetic:{min(pair)},{max(pair)}"


def value_of(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def work(rng: random.Random, a: int, sign: str, b: int, mistake: Mistake = lambda value: value) -> str:
    """The steps of a calculation, ending "So a + b = c."; every stated result goes through `mistake`."""
    if sign == "+" and rng.random() < 0.5:
        steps, result = _columns(a, b, mistake)
    else:
        steps, result = _parts(a, sign, b, mistake)
    return " ".join([*(f"{step}." for step in steps), f"So {a} {sign} {b} = {result}."])


def _wrong(rng: random.Random, a: int, sign: str, b: int) -> str:
    """Work with a mistake in one step; tried again until the mistake reaches the result."""
    while True:
        text = work(rng, a, sign, b, _slip(rng, rng.randint(1, 3)))
        if not text.endswith(f" = {value_of(a, sign, b)}."):
            return text


def _slip(rng: random.Random, target: int) -> Mistake:
    """A mistake in the `target`-th result that goes through it."""
    steps = itertools.count(1)
    return lambda value: max(0, value + rng.choice((1, -1, 2, 10))) if next(steps) == target else value


def _columns(a: int, b: int, mistake: Mistake) -> tuple[list[str], int]:
    """Addition digit by digit from the right, with carries."""
    steps, carry, result, place = [], 0, 0, 1
    while a >= place or b >= place or place == 1:
        x, y = a // place % 10, b // place % 10
        total = mistake(x + y + carry)
        steps.append(f"{x} + {y}" + (f" + {carry}" if carry else "") + f" = {total}")
        carry = total // 10
        result += total % 10 * place
        if carry:
            steps[-1] += f", write {total % 10}, carry {carry}"
        place *= 10
    return steps, result + carry * place


def _parts(a: int, sign: str, b: int, mistake: Mistake) -> tuple[list[str], int]:
    """By the parts of b (hundreds, tens, ones): added or taken away in turn, or multiplied and added up."""
    parts = [part for place in (100, 10, 1) if (part := b // place % 10 * place)] or [0]
    steps = []
    if sign != "*":
        result = a
        for part in parts:
            before, result = result, mistake(value_of(result, sign, part))
            steps.append(f"{before} {sign} {part} = {result}")
        return steps, result
    result = 0
    for n, part in enumerate(parts):
        product = mistake(a * part)
        steps.append(f"{a} * {part} = {product}")
        if n:
            before, result = result, mistake(result + product)
            steps.append(f"{before} + {product} = {result}")
        else:
            result = product
    return steps, result
