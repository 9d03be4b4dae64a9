"""Diagrams: boxes and arrows to follow, labelled parts, and figures with lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset
from foretell.data.world.colors import COLORS
from foretell.data.world.drawing import INK, arrow, centred
from foretell.data.world.scenes import OUTLINES, SHAPES

LETTERS = "ABCDEF"
LABELLED = ("A", "B", "C", "D")
TASKS = ("diagrams.next", "diagrams.steps", "diagrams.part", "diagrams.area", "diagrams.perimeter")
_TINTS = ((226, 236, 250), (250, 236, 222), (228, 244, 228))


@dataclass(frozen=True)
class Cycle:
    """Boxes around a circle, joined by arrows that go once through all. places: letters clockwise from the top; order:
    letters as the arrows go."""

    places: tuple[str, ...]
    order: tuple[str, ...]

    @property
    def key(self) -> str:
        first = self.order.index("A")  # where a cycle begins says nothing
        return f"diagrams:cycle:{''.join(self.places)}:{''.join(self.order[first:] + self.order[:first])}"

    def after(self, letter: str, steps: int) -> str:
        return self.order[(self.order.index(letter) + steps) % len(self.order)]


@dataclass(frozen=True)
class Parts:
    """Four shapes of one colour in the corners, each with a letter in the middle that a line joins to it."""

    shapes: tuple[str, ...]
    letters: tuple[str, ...]
    color: str

    @property
    def key(self) -> str:
        return f"diagrams:parts:{','.join(self.shapes)}:{''.join(self.letters)}:{self.color}"


@dataclass(frozen=True)
class Oblong:
    """A rectangle with its sides written beside it."""

    width: int
    height: int

    @property
    def key(self) -> str:
        return f"diagrams:oblong:{self.width}x{self.height}"


class Diagrams:
    """Diagrams on a square canvas of `side` pixels; `boxes` is how many boxes arrows join.

    Held out by diagram: the cycle and where its boxes stand, the parts with their letters, the two lengths. Answers are
    drawn evenly and without regard to the question's words.
    """

    name = "diagrams"
    visual = True

    def __init__(self, side: int = 96, boxes: int = 5, tasks: Sequence[str] | None = None) -> None:
        require(is_whole(side, 64, 2048), "diagrams.side", side, "a whole number of pixels from 64 to 2048")
        require(is_whole(boxes, 4, 6), "diagrams.boxes", boxes, "4, 5 or 6")
        self.side, self.boxes = side, boxes
        self.tasks = subset("diagrams.tasks", tasks, TASKS)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        if task in ("diagrams.next", "diagrams.steps"):
            return self._follow(task, rng, split)
        if task == "diagrams.part":
            return self._part(task, rng, split)
        return self._measure(task, rng, split)

    def _follow(self, task: str, rng: random.Random, split: Split) -> Item:
        letters = LETTERS[: self.boxes]

        def propose(r: random.Random) -> Cycle:
            return Cycle(tuple(r.sample(letters, len(letters))), tuple(r.sample(letters, len(letters))))

        cycle = draw(rng, split, propose, lambda c: c.key)
        start = rng.choice(letters)
        if task == "diagrams.next":
            ask = rng.choice(("Which box does the arrow from {s} lead to?", "Where does the arrow go from {s}?"))
            asked, reply = ask.format(s=start), cycle.after(start, 1)
        else:
            ask = rng.choice(
                ("Start at {s} and follow two arrows. Where are you?", "Which box is two arrows after {s}?")
            )
            first, second = cycle.after(start, 1), cycle.after(start, 2)
            asked, reply = ask.format(s=start), f"From {start} to {first}, from {first} to {second}."
        choices = tuple(letter for letter in letters if letter != start)
        answer = reply.removesuffix(".")[-1]
        return self._item(task, cycle.key, asked, reply, answer, choices, self._draw_cycle(rng, cycle))

    def _part(self, task: str, rng: random.Random, split: Split) -> Item:
        def propose(r: random.Random) -> Parts:
            return Parts(tuple(r.sample(SHAPES, 4)), tuple(r.sample(LABELLED, 4)), r.choice(list(COLORS)))

        parts = draw(rng, split, propose, lambda p: p.key)
        at = rng.randrange(4)
        ask = rng.choice(
            ("Which letter marks the {s}?", "The {s}: which letter?", "What letter is the {s} labelled with?")
        )
        answer = parts.letters[at]
        asked = ask.format(s=parts.shapes[at])
        return self._item(task, parts.key, asked, answer, answer, LABELLED, self._draw_parts(parts))

    def _measure(self, task: str, rng: random.Random, split: Split) -> Item:
        oblong = draw(rng, split, lambda r: Oblong(r.randint(2, 20), r.randint(2, 20)), lambda o: o.key)
        a, b = oblong.width, oblong.height
        if task == "diagrams.area":
            asked, answer = rng.choice(("What is the area?", "How large is the area of this rectangle?")), str(a * b)
            reply = f"The sides are {a} and {b}, so {a} * {b} = {answer}."
        else:
            asked, answer = rng.choice(("What is the perimeter?", "How long is the way around it?")), str(2 * (a + b))
            reply = f"The sides are {a} and {b}, so 2 * ({a} + {b}) = {answer}."
        return self._item(task, oblong.key, asked, reply, answer, (), self._draw_oblong(oblong))

    @staticmethod
    def _item(task: str, key: str, asked: str, reply: str, answer: str, choices: tuple[str, ...], image: bytes) -> Item:
        return Item(key, task, document(task, dialogue([(asked, reply)], image=image)), answer, choices)

    def _draw_cycle(self, rng: random.Random, cycle: Cycle) -> bytes:
        image, canvas, side = self._blank()
        count, half, tint = len(cycle.places), side * 0.085, rng.choice(_TINTS)
        spots = {
            letter: (
                side * (0.5 + 0.37 * math.sin(2 * math.pi * i / count)),
                side * (0.5 - 0.37 * math.cos(2 * math.pi * i / count)),
            )
            for i, letter in enumerate(cycle.places)
        }
        for letter in cycle.order:
            (x, y), (to_x, to_y) = spots[letter], spots[cycle.after(letter, 1)]
            far = math.hypot(to_x - x, to_y - y)
            gone, left = (half * 1.2) / far, (half * 1.55) / far
            start = (x + (to_x - x) * gone, y + (to_y - y) * gone)
            end = (to_x - (to_x - x) * left, to_y - (to_y - y) * left)
            arrow(canvas, start, end, max(1, side // 90))
        for letter, (x, y) in spots.items():
            canvas.rectangle([x - half, y - half, x + half, y + half], fill=tint, outline=INK)
            centred(canvas, (x, y), letter, int(side * 0.12))
        return png(image)

    def _draw_parts(self, parts: Parts) -> bytes:
        image, canvas, side = self._blank()
        radius = side * 0.13
        for i, (shape, letter) in enumerate(zip(parts.shapes, parts.letters, strict=True)):
            x, y = side * (0.18 + 0.64 * (i % 2)), side * (0.18 + 0.64 * (i // 2))
            near = (side * (0.4 + 0.2 * (i % 2)), side * (0.4 + 0.2 * (i // 2)))
            canvas.line(
                [(x, y), (x + (near[0] - x) * 0.78, y + (near[1] - y) * 0.78)], fill=INK, width=max(1, side // 96)
            )
            outline = OUTLINES[shape]
            if outline is None:
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[parts.color])
            else:
                canvas.polygon([(x + radius * dx, y + radius * dy) for dx, dy in outline], fill=COLORS[parts.color])
            centred(canvas, near, letter, int(side * 0.13))
        return png(image)

    def _draw_oblong(self, oblong: Oblong) -> bytes:
        """Not to scale, as in a school book: the lengths have to be read."""
        image, canvas, side = self._blank()
        wide = oblong.width >= oblong.height
        across, down = (0.56, 0.42) if wide else (0.42, 0.56)
        left, top = side * 0.1, side * 0.1
        right, bottom = left + side * across, top + side * down
        canvas.rectangle([left, top, right, bottom], outline=INK, width=max(1, side // 64), fill=_TINTS[0])
        size = int(side * 0.16)
        centred(canvas, ((left + right) / 2, bottom + side * 0.11), str(oblong.width), size)
        centred(canvas, (right + side * 0.13, (top + bottom) / 2), str(oblong.height), size)
        return png(image)

    def _blank(self) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
        image = Image.new("RGB", (self.side, self.side), "white")
        return image, ImageDraw.Draw(image), self.side
