"""What is unusual here? Drawn things as they are, or with one as it never is; every scene has its normal twin."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset
from foretell.data.world.drawing import INK

SKIES = {"blue": (190, 222, 248), "evening": (250, 214, 178), "grey": (214, 216, 222)}
GROUND = (168, 196, 128)
NOTHING = "Nothing is unusual."
TASKS = ("unusual.is", "unusual.which", "unusual.what", "unusual.twin")
SHOWN = 3  # things in a scene
RED, WOOD, GREEN, WHITE, WATER = (200, 50, 45), (140, 95, 55), (50, 130, 60), (250, 250, 250), (120, 185, 230)


class _Pen:
    """Draws within a square whose side is 1, from (0, 0) at the upper left of `box` on; upside: turned over."""

    def __init__(self, canvas: ImageDraw.ImageDraw, left: float, top: float, size: float, upside: bool = False) -> None:
        self.canvas, self.left, self.top, self.size, self.upside = canvas, left, top, size, upside
        self.thin = max(1, round(size / 22))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.size, self.top + (1 - y if self.upside else y) * self.size

    def _span(self, x: float, y: float, to_x: float, to_y: float) -> list[float]:
        (a, b), (c, d) = self._at(x, y), self._at(to_x, to_y)
        return [min(a, c), min(b, d), max(a, c), max(b, d)]

    def box(self, *span: float, fill: tuple[int, int, int]) -> None:
        self.canvas.rectangle(self._span(*span), fill=fill, outline=INK)

    def disc(self, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
        self.canvas.ellipse(self._span(x - radius, y - radius, x + radius, y + radius), fill=fill, outline=INK)

    def line(self, *points: tuple[float, float], fill: tuple[int, int, int] = INK, bold: int = 1) -> None:
        self.canvas.line([self._at(x, y) for x, y in points], fill=fill, width=self.thin * bold)

    def shape(self, *points: tuple[float, float], fill: tuple[int, int, int]) -> None:
        self.canvas.polygon([self._at(x, y) for x, y in points], fill=fill, outline=INK)


def _car(pen: _Pen, odd: bool) -> None:
    pen.box(0.04, 0.5, 0.96, 0.82, fill=RED)
    pen.shape((0.22, 0.5), (0.34, 0.24), (0.7, 0.24), (0.82, 0.5), fill=(210, 226, 240))
    for x in (0.26, 0.74):
        if odd:
            pen.box(x - 0.14, 0.7, x + 0.14, 0.98, fill=(40, 40, 44))
        else:
            pen.disc(x, 0.84, 0.145, (40, 40, 44))


def _house(pen: _Pen, odd: bool) -> None:
    pen.box(0.14, 0.42, 0.86, 1.0, fill=(238, 226, 200))
    pen.shape((0.04, 0.42), (0.5, 0.02), (0.96, 0.42), fill=RED)
    pen.box(0.2, 0.54, 0.4, 0.74, fill=WATER)
    pen.box(0.6, 0.54, 0.8, 0.74, fill=WATER)
    if odd:
        pen.box(0.41, 0.12, 0.59, 0.4, fill=WOOD)
    else:
        pen.box(0.41, 0.66, 0.59, 1.0, fill=WOOD)


def _tree(pen: _Pen, odd: bool) -> None:
    turned = _Pen(pen.canvas, pen.left, pen.top, pen.size, upside=odd)
    turned.box(0.42, 0.5, 0.58, 1.0, fill=WOOD)
    for x, y in ((0.3, 0.42), (0.7, 0.42), (0.5, 0.24)):
        turned.disc(x, y, 0.22, GREEN)


def _face(pen: _Pen, odd: bool) -> None:
    pen.disc(0.5, 0.5, 0.46, (250, 214, 170))
    for x, y in ((0.32, 0.4), (0.68, 0.4), *(((0.5, 0.2),) if odd else ())):
        pen.disc(x, y, 0.09, WHITE)
        pen.disc(x, y, 0.04, INK)
    pen.line((0.5, 0.46), (0.46, 0.6), (0.52, 0.6))
    pen.line((0.3, 0.72), (0.42, 0.8), (0.58, 0.8), (0.7, 0.72), fill=RED, bold=2)


def _clock(pen: _Pen, odd: bool) -> None:
    pen.disc(0.5, 0.5, 0.46, WHITE)
    for hour in range(12):
        turn = math.pi * hour / 6
        near, far = 0.37, 0.44
        pen.line(*((0.5 + r * math.sin(turn), 0.5 - r * math.cos(turn)) for r in (near, far)))
    for turn, long in ((0.7, 0.34), (2.6, 0.24), *(((4.4, 0.34),) if odd else ())):
        pen.line((0.5, 0.5), (0.5 + long * math.sin(turn), 0.5 - long * math.cos(turn)), bold=2)


def _umbrella(pen: _Pen, odd: bool) -> None:
    turned = _Pen(pen.canvas, pen.left, pen.top, pen.size, upside=odd)
    turned.line((0.5, 0.1), (0.5, 0.92), bold=2)
    turned.line((0.5, 0.92), (0.4, 0.98), (0.34, 0.9), bold=2)
    arc = [(0.5 + 0.46 * math.cos(t), 0.5 - 0.4 * math.sin(t)) for t in (math.pi * k / 12 for k in range(13))]
    turned.shape(*arc, fill=(120, 70, 160))


def _bowl(pen: _Pen, odd: bool) -> None:
    pen.shape((0.06, 0.36), (0.94, 0.36), (0.8, 0.98), (0.2, 0.98), fill=WATER)
    y = 0.16 if odd else 0.66
    pen.shape((0.34, y), (0.5, y - 0.11), (0.66, y), (0.5, y + 0.11), fill=(245, 140, 30))
    pen.shape((0.66, y), (0.8, y - 0.1), (0.8, y + 0.1), fill=(245, 140, 30))


def _candle(pen: _Pen, odd: bool) -> None:
    pen.box(0.3, 0.34, 0.7, 1.0 if not odd else 0.72, fill=(240, 234, 214))
    y = 0.2 if not odd else 0.86
    if not odd:
        pen.shape((0.5, 0.0), (0.62, y), (0.5, 0.33), (0.38, y), fill=(250, 190, 40))
    else:
        pen.shape((0.5, 1.0), (0.62, y), (0.5, 0.73), (0.38, y), fill=(250, 190, 40))


THINGS: dict[str, tuple[Callable[[_Pen, bool], None], str]] = {  # how it is drawn, what is odd about it
    "car": (_car, "The wheels of the car are square."),
    "house": (_house, "The door of the house is in its roof."),
    "tree": (_tree, "The tree is upside down."),
    "face": (_face, "The face has three eyes."),
    "clock": (_clock, "The clock has three hands."),
    "umbrella": (_umbrella, "The umbrella is upside down."),
    "bowl": (_bowl, "The fish of the bowl is in the air."),
    "candle": (_candle, "The candle burns at its lower end."),
}
REMARKS = tuple(remark for _, remark in THINGS.values())


@dataclass(frozen=True)
class Picture:
    """things: from left to right, each at its height (0 to 2) and size (0 to 2). odd: which is unusual; "" for none."""

    things: tuple[tuple[str, int, int], ...]
    sky: str
    odd: str = ""

    @property
    def key(self) -> str:
        """The same for a scene and its normal twin, so that both lie on one side of the split."""
        return f"unusual:{self.sky}:{','.join(f'{n} {h}{s}' for n, h, s in self.things)}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.things)

    @property
    def twin(self) -> Picture:
        """The same scene with nothing unusual."""
        return replace(self, odd="")


class Unusual:
    """Scenes of three things on a square canvas of `side` pixels; in some of them one thing is as it never is.

    `unusual.twin` shows a scene and its normal twin, in either order. Held out by scene, whatever is odd about it.
    Every answer of a task is drawn equally often, without regard to the question's words.
    """

    name = "unusual"
    visual = True

    def __init__(self, side: int = 96, tasks: Sequence[str] | None = None) -> None:
        require(is_whole(side, 64, 2048), "unusual.side", side, "a whole number of pixels from 64 to 2048")
        self.side = side
        self.tasks = subset("unusual.tasks", tasks, TASKS)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        if task == "unusual.what":
            return self._what(rng, split)
        scene = draw(rng, split, _scene, lambda s: s.key)
        if task == "unusual.twin":
            return self._twin(rng, scene)
        if task == "unusual.is":
            answer = rng.choice(("yes", "no"))
            scene = replace(scene, odd=rng.choice(scene.names) if answer == "yes" else "")
            asked = rng.choice(("Is anything unusual here?", "Is something wrong in this picture?"))
            return self._item(task, scene, asked, answer, ("yes", "no"))
        choices = (*scene.names, "none")
        answer = rng.choice(choices)
        scene = replace(scene, odd="" if answer == "none" else answer)
        first, second, third = scene.names
        asked = f"Which is unusual: the {first}, the {second}, the {third} or none?"
        return self._item(task, scene, asked, answer, choices)

    def _what(self, rng: random.Random, split: Split) -> Item:
        """The remark is drawn first, so that none is commoner than another."""
        name = rng.choice((*THINGS, ""))
        scene = draw(rng, split, lambda r: _scene(r, name), lambda s: s.key)
        answer = THINGS[name][1] if name else NOTHING
        asked = rng.choice(("What is unusual about this picture?", "What is unusual here?", "What is strange here?"))
        return self._item("unusual.what", replace(scene, odd=name), asked, answer, (*REMARKS, NOTHING))

    def _twin(self, rng: random.Random, scene: Picture) -> Item:
        odd, answer = replace(scene, odd=rng.choice(scene.names)), rng.choice(("first", "second"))
        shown = (odd, odd.twin) if answer == "first" else (odd.twin, odd)
        asked = rng.choice(("In which picture is something unusual?", "Which picture is the strange one?"))
        segments = (
            Segment(text="The first picture:", role="user"),
            Segment(image=self.render(shown[0]), role="user"),
            Segment(text="The second picture:", role="user"),
            Segment(image=self.render(shown[1]), role="user"),
            Segment(text=f"{asked} Answer first or second.", role="user"),
            Segment(text=answer, role="assistant"),
        )
        return Item(scene.key, "unusual.twin", document("unusual.twin", segments), answer, ("first", "second"))

    def _item(self, task: str, scene: Picture, asked: str, answer: str, choices: tuple[str, ...]) -> Item:
        segments = dialogue([(asked, answer)], image=self.render(scene))
        return Item(scene.key, task, document(task, segments), answer, choices)

    def render(self, scene: Picture) -> bytes:
        """The scene as PNG."""
        side = self.side
        image = Image.new("RGB", (side, side), SKIES[scene.sky])
        canvas = ImageDraw.Draw(image)
        canvas.rectangle([0, side * 0.66, side, side], fill=GROUND)
        for i, (name, height, size) in enumerate(scene.things):
            large = side * (0.24 + 0.03 * size)
            left = side * (0.02 + 0.33 * i) + (side * 0.31 - large) / 2
            top = side * (0.74 + 0.1 * height) - large  # all stand on the ground: nothing else is odd
            THINGS[name][0](_Pen(canvas, left, top, large), name == scene.odd)
        return png(image)


def _scene(rng: random.Random, name: str = "") -> Picture:
    """Three different things, `name` among them where one is given."""
    others = rng.sample([other for other in THINGS if other != name], SHOWN - bool(name))
    names = [*others, name] if name else others
    rng.shuffle(names)
    things = tuple((each, rng.randrange(3), rng.randrange(3)) for each in names)
    return Picture(things, rng.choice(list(SKIES)))
