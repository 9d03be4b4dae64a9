"""Scenes of coloured shapes: colour, shape, count, relation, caption."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset
from foretell.data.world.colors import BACKGROUNDS, COLORS

GRID = 3  # one thing at most in each of GRID × GRID cells
RADIUS = {"large": 0.14, "small": 0.11}  # of the side
MARGIN = 0.02  # of the side: neighbours never touch
RELATIONS = ("left", "right", "above", "below")
NUMBERS = ("one", "two", "three")


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    radii = itertools.cycle((1.0, inner))
    turns = [math.pi * k / points for k in range(2 * points)]
    return [(r * math.sin(turn), -r * math.cos(turn)) for r, turn in zip(radii, turns, strict=False)]


OUTLINES: dict[str, list[tuple[float, float]] | None] = {  # in units of the radius, y down; None is a disc
    "circle": None,
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _star(5, 0.42),
    "diamond": [(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)],
    "cross": [
        *((-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33)),
        *((0.33, 1.0), (-0.33, 1.0), (-0.33, 0.33), (-1.0, 0.33), (-1.0, -0.33), (-0.33, -0.33)),
    ],
}
SHAPES = tuple(OUTLINES)


@dataclass(frozen=True)
class Thing:
    """cell: (row, column) from the upper left."""

    shape: str
    color: str
    size: str
    cell: tuple[int, int]

    @property
    def phrase(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: str

    @property
    def key(self) -> str:
        things = sorted(f"{t.size} {t.phrase} {t.cell[0]}{t.cell[1]}" for t in self.things)
        return f"scenes:{self.background}:{','.join(things)}"


class Scenes:
    """Shapes on a square canvas of `side` pixels, at most `most` of them (in counting).

    Held out by scene (what stands in which cell, on which background), whatever is asked about it.
    """

    name = "scenes"
    visual = True

    def __init__(self, side: int = 64, most: int = 5, tasks: Sequence[str] | None = None) -> None:
        require(is_whole(side, 32, 2048), "scenes.side", side, "a whole number of pixels from 32 to 2048")
        require(is_whole(most, 2, GRID * GRID), "scenes.most", most, f"a whole number from 2 to {GRID * GRID}")
        self.side, self.most = side, most
        self._tasks = {
            "scenes.color": self._color,
            "scenes.shape": self._shape,
            "scenes.count": self._count,
            "scenes.relation": self._relation,
            "scenes.caption": self._caption,
        }
        self.tasks = subset("scenes.tasks", tasks, list(self._tasks))

    def make(self, rng: random.Random, split: Split) -> Item:
        return self._tasks[rng.choice(self.tasks)](rng, split)

    def _color(self, rng: random.Random, split: Split) -> Item:
        scene = draw(rng, split, lambda r: _scene(r, r.choice((1, 1, 2, 3))), lambda s: s.key)
        thing = rng.choice(scene.things)
        noun = thing.shape if len(scene.things) > 1 or rng.random() < 0.5 else "shape"
        ask = rng.choice(("What color is the {n}?", "Which color does the {n} have?", "The {n}: what color?"))
        return self._item(rng, "scenes.color", scene, ask.format(n=noun), thing.color, tuple(COLORS))

    def _shape(self, rng: random.Random, split: Split) -> Item:
        scene = draw(rng, split, lambda r: _scene(r, r.choice((1, 1, 2, 3))), lambda s: s.key)
        thing = rng.choice(scene.things)
        if len(scene.things) == 1 and rng.random() < 0.5:
            asked = rng.choice(("What shape is this?", "Which shape is shown?"))
        else:
            ask = rng.choice(("What shape is the {c} one?", "Which shape is {c}?", "The {c} shape: what is it?"))
            asked = ask.format(c=thing.color)
        return self._item(rng, "scenes.shape", scene, asked, thing.shape, SHAPES)

    def _count(self, rng: random.Random, split: Split) -> Item:
        """Everything, or everything of one colour among others; the answer is drawn first, so it is even."""
        count, some = rng.randint(1, self.most), rng.random() < 0.4

        def propose(r: random.Random) -> Scene:
            color = r.choice(list(COLORS)) if some or r.random() < 0.5 else None
            things = _things(r, count, color)
            if some:
                rest = r.randint(1, 2) if count + 2 <= GRID * GRID else 0
                taken = [thing.cell for thing in things]
                things += [t for t in _things(r, rest + len(taken), None) if t.cell not in taken and t.color != color]
            return Scene(tuple(things[: count + 2]), r.choice(list(BACKGROUNDS)))

        scene = draw(rng, split, propose, lambda s: s.key)
        what = f"{scene.things[0].color} shapes" if some else "shapes"
        ask = rng.choice(("How many {w} are there?", "Count the {w}.", "How many {w} do you see?"))
        numbers = tuple(str(n) for n in range(1, self.most + 1))
        return self._item(rng, "scenes.count", scene, ask.format(w=what), str(count), numbers)

    def _relation(self, rng: random.Random, split: Split) -> Item:
        scene = draw(rng, split, pair, lambda s: s.key)
        first, second = rng.sample(scene.things, 2)
        ask = rng.choice(
            (
                "Is the {a} left, right, above or below the {b}?",
                "Where is the {a}, seen from the {b}: left, right, above or below?",
            )
        )
        asked = ask.format(a=first.phrase, b=second.phrase)
        return self._item(rng, "scenes.relation", scene, asked, relation(first, second), RELATIONS)

    def _caption(self, rng: random.Random, split: Split) -> Item:
        scene = draw(rng, split, lambda r: pair(r) if r.random() < 0.5 else _scene(r, r.randint(1, 3)), lambda s: s.key)
        text = caption(scene)
        segments = [Segment(image=self.render(rng, scene)), Segment(text=text)]
        if rng.random() < 0.5:
            count = len(scene.things)
            noun = "shape" if count == 1 else "shapes"
            segments.insert(0, Segment(text=f"The picture shows {NUMBERS[count - 1]} {noun}."))
        return Item(scene.key, "scenes.caption", document("scenes.caption", segments))

    def _item(
        self, rng: random.Random, task: str, scene: Scene, asked: str, answer: str, choices: tuple[str, ...]
    ) -> Item:
        segments = dialogue([(asked, answer)], image=self.render(rng, scene))
        return Item(scene.key, task, document(task, segments), answer, choices)

    def render(self, rng: random.Random, scene: Scene) -> bytes:
        """The scene as PNG, each thing moved a little within its cell. No antialiasing: colours are exact."""
        image = Image.new("RGB", (self.side, self.side), BACKGROUNDS[scene.background])
        canvas = ImageDraw.Draw(image)
        for thing in scene.things:
            radius = RADIUS[thing.size] * self.side
            slack = self.side * (0.5 / GRID - MARGIN) - radius
            y, x = ((n + 0.5) * self.side / GRID + rng.uniform(-slack, slack) for n in thing.cell)
            outline = OUTLINES[thing.shape]
            if outline is None:
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[thing.color])
            else:
                points = [(x + radius * dx, y + radius * dy) for dx, dy in outline]
                canvas.polygon(points, fill=COLORS[thing.color])
        return png(image)


def relation(first: Thing, second: Thing) -> str:
    """Where `first` is, seen from `second`, for things that share a row or a column."""
    (row, column), (other_row, other_column) = first.cell, second.cell
    if row == other_row:
        return "left" if column < other_column else "right"
    return "above" if row < other_row else "below"


def caption(scene: Scene) -> str:
    """One sentence that names every thing; the relation of two when they share a row or a column."""
    names = [f"a {thing.size} {thing.phrase}" for thing in scene.things]
    if len(names) == 2 and any(a == b for a, b in zip(scene.things[0].cell, scene.things[1].cell, strict=True)):
        where = relation(*scene.things)
        text = f"{names[0]} {where + ' of' if where in ('left', 'right') else where} {names[1]}."
    else:
        text = ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] + "."
    return text[0].upper() + text[1:]


def _things(rng: random.Random, count: int, color: str | None) -> list[Thing]:
    cells = rng.sample([(row, column) for row in range(GRID) for column in range(GRID)], count)
    sizes = list(RADIUS)
    colors = list(COLORS)
    return [Thing(rng.choice(SHAPES), color or rng.choice(colors), rng.choice(sizes), cell) for cell in cells]


def _distinct(rng: random.Random, cells: Sequence[tuple[int, int]]) -> Scene:
    """Things of different shapes and different colours, so that either names one thing."""
    shapes, colors = rng.sample(SHAPES, len(cells)), rng.sample(list(COLORS), len(cells))
    sizes = [rng.choice(list(RADIUS)) for _ in cells]
    things = tuple(Thing(*what) for what in zip(shapes, colors, sizes, cells, strict=True))
    return Scene(things, rng.choice(list(BACKGROUNDS)))


def _scene(rng: random.Random, count: int) -> Scene:
    return _distinct(rng, rng.sample([(row, column) for row in range(GRID) for column in range(GRID)], count))


def pair(rng: random.Random) -> Scene:
    """Two things in one row or one column."""
    line, (a, b) = rng.randrange(GRID), rng.sample(range(GRID), 2)
    return _distinct(rng, [(line, a), (line, b)] if rng.random() < 0.5 else [(a, line), (b, line)])
