"""Panels and captions: in which order drawings tell what happens, which comes later, and whether a caption fits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset
from foretell.data.world.colors import COLORS
from foretell.data.world.drawing import INK, centred
from foretell.data.world.scenes import SHAPES, Scene, Scenes, Thing, caption, pair

LETTERS = ("A", "B", "C")
ORDERS = tuple("".join(order) for order in itertools.permutations(LETTERS))
WRONG = ("color", "shape", "place", "nothing")
TASKS = ("panels.order", "panels.later", "panels.caption", "panels.wrong")
STEPS = 9  # how far a story has gone: 0 to 8
Canvas = ImageDraw.ImageDraw
Span = tuple[float, float, float, float]


def _candle(canvas: Canvas, span: Span, share: float, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = span
    width, tall = (right - left) * 0.36, (bottom - top) * (0.72 - 0.6 * share)
    x, y = (left + right) / 2, bottom - tall
    canvas.rectangle([x - width / 2, y, x + width / 2, bottom], fill=color, outline=INK)
    canvas.ellipse([x - width * 0.3, y - width * 0.95, x + width * 0.3, y - 2], fill=(250, 190, 40), outline=INK)


def _plant(canvas: Canvas, span: Span, share: float, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = span
    x, pot = (left + right) / 2, (bottom - top) * 0.2
    tall = (bottom - top) * (0.12 + 0.5 * share)
    y = bottom - pot - tall
    canvas.line([(x, bottom - pot), (x, y)], fill=(50, 130, 60), width=max(2, round((right - left) / 12)))
    leaf = (right - left) * 0.16
    canvas.ellipse([x - leaf, y - leaf, x + leaf, y + leaf], fill=color, outline=INK)
    canvas.polygon(
        [(x - leaf * 1.6, bottom - pot), (x + leaf * 1.6, bottom - pot), (x + leaf, bottom), (x - leaf, bottom)],
        fill=(150, 90, 60), outline=INK,
    )  # fmt: skip


def _glass(canvas: Canvas, span: Span, share: float, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = span
    width, tall = (right - left) * 0.6, (bottom - top) * 0.75
    x, y = (left + right - width) / 2, bottom - tall
    canvas.rectangle([x, bottom - tall * (0.06 + 0.9 * share), x + width, bottom], fill=color)
    canvas.line([(x, y), (x, bottom), (x + width, bottom), (x + width, y)], fill=INK, width=max(1, round(width / 14)))


def _balloon(canvas: Canvas, span: Span, share: float, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = span
    radius = (right - left) * (0.1 + 0.36 * share)
    x, y = (left + right) / 2, top + (bottom - top) * 0.42
    canvas.line([(x, y), (x, bottom)], fill=INK)
    canvas.ellipse([x - radius, y - radius * 1.15, x + radius, y + radius * 1.15], fill=color, outline=INK)


STORIES: dict[str, Callable[[Canvas, Span, float, tuple[int, int, int]], None]] = {  # drawn at a share of the way
    "a candle burns down": _candle,
    "a plant grows": _plant,
    "a glass is filled": _glass,
    "a balloon is blown up": _balloon,
}


@dataclass(frozen=True)
class Story:
    """steps: how far it has gone in each panel, from left to right."""

    what: str
    color: str
    steps: tuple[int, ...]

    @property
    def key(self) -> str:
        """The same whatever the order of the panels."""
        return f"panels:{self.what}:{self.color}:{','.join(map(str, sorted(self.steps)))}"


class Panels:
    """Drawings of `side` pixels: three panels out of order, two pictures of which one is later, captions of a scene.

    `panels.order` has its panels in one picture, `panels.later` two pictures in the text. A caption that does not fit
    differs in one thing: a color, a shape, or what stands where. Held out by the story's colour and steps, or by the
    scene. Every answer of a task is drawn equally often, without regard to the question's words.
    """

    name = "panels"
    visual = True

    def __init__(self, side: int = 96, tasks: Sequence[str] | None = None) -> None:
        require(is_whole(side, 64, 2048), "panels.side", side, "a whole number of pixels from 64 to 2048")
        self.side = side
        self.tasks = subset("panels.tasks", tasks, TASKS)
        self._scenes = Scenes(side)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        if task == "panels.order":
            return self._order(rng, split)
        if task == "panels.later":
            return self._later(rng, split)
        return self._captioned(task, rng, split)

    def _order(self, rng: random.Random, split: Split) -> Item:
        story = draw(rng, split, lambda r: _story(r, 3), lambda s: s.key)
        answer = rng.choice(ORDERS)
        steps = sorted(story.steps)
        placed = replace(story, steps=tuple(steps[answer.index(letter)] for letter in LETTERS))
        ask = rng.choice(
            (
                "The panels show how {w}. In which order do they belong?",
                "Put the panels in order: {w}. Answer with three letters.",
            )
        )
        segments = dialogue([(ask.format(w=story.what), answer)], image=self._strip(placed))
        return Item(story.key, "panels.order", document("panels.order", segments), answer, ORDERS)

    def _later(self, rng: random.Random, split: Split) -> Item:
        story = draw(rng, split, lambda r: _story(r, 2), lambda s: s.key)
        answer = rng.choice(("first", "second"))
        early, late = sorted(story.steps)
        steps = (late, early) if answer == "first" else (early, late)
        segments = (
            Segment(text="The first picture:", role="user"),
            Segment(image=self._one(story, steps[0]), role="user"),
            Segment(text="The second picture:", role="user"),
            Segment(image=self._one(story, steps[1]), role="user"),
            Segment(text=f"They show how {story.what}. Which was drawn later? Answer first or second.", role="user"),
            Segment(text=answer, role="assistant"),
        )
        return Item(story.key, "panels.later", document("panels.later", segments), answer, ("first", "second"))

    def _captioned(self, task: str, rng: random.Random, split: Split) -> Item:
        scene = draw(rng, split, pair, lambda s: s.key)
        if task == "panels.caption":
            choices: tuple[str, ...] = ("yes", "no")
            answer = rng.choice(choices)
            wrong = "nothing" if answer == "yes" else rng.choice(WRONG[:3])
            asked = rng.choice(("Does this caption fit the picture? {c}", "Caption: {c} Does it fit?"))
        else:
            choices = WRONG
            wrong = answer = rng.choice(choices)
            asked = "{c} What is wrong in this caption: the color, the shape, the place or nothing?"
        asked = asked.format(c=f'"{caption(_changed(rng, scene, wrong))}"')
        segments = dialogue([(asked, answer)], image=self._scenes.render(rng, scene))
        return Item(scene.key, task, document(task, segments), answer, choices)

    def _strip(self, story: Story) -> bytes:
        """Three panels side by side, lettered."""
        side, wide = self.side, self.side / 3
        image = Image.new("RGB", (side, side), "white")
        canvas = ImageDraw.Draw(image)
        for i, (letter, step) in enumerate(zip(LETTERS, story.steps, strict=True)):
            centred(canvas, (wide * (i + 0.5), side * 0.09), letter, int(side * 0.13))
            canvas.rectangle([wide * i, side * 0.18, wide * (i + 1) - 1, side - 1], outline=INK)
            span = (wide * i + 2, side * 0.22, wide * (i + 1) - 3, side * 0.95)
            STORIES[story.what](canvas, span, step / (STEPS - 1), COLORS[story.color])
        return png(image)

    def _one(self, story: Story, step: int) -> bytes:
        side = self.side
        image = Image.new("RGB", (side, side), "white")
        span = (side * 0.25, side * 0.08, side * 0.75, side * 0.92)
        STORIES[story.what](ImageDraw.Draw(image), span, step / (STEPS - 1), COLORS[story.color])
        return png(image)


def _story(rng: random.Random, panels: int) -> Story:
    """Steps that are two apart at least, so that the drawings differ at the smallest size."""
    while True:
        steps = rng.sample(range(STEPS), panels)
        ordered = sorted(steps)
        if all(b - a >= 2 for a, b in itertools.pairwise(ordered)):
            return Story(rng.choice(list(STORIES)), rng.choice(list(COLORS)), tuple(steps))


def _changed(rng: random.Random, scene: Scene, what: str) -> Scene:
    """The scene as a caption that is wrong in `what` tells it; still two things of different shape and colour."""
    first, second = rng.sample(scene.things, 2)
    if what == "color":
        color = rng.choice([c for c in COLORS if c not in (first.color, second.color)])
        return _with(scene, first, replace(first, color=color))
    if what == "shape":
        shape = rng.choice([s for s in SHAPES if s not in (first.shape, second.shape)])
        return _with(scene, first, replace(first, shape=shape))
    if what == "place":
        swapped = {first: replace(first, cell=second.cell), second: replace(second, cell=first.cell)}
        return replace(scene, things=tuple(swapped[thing] for thing in scene.things))
    return scene


def _with(scene: Scene, old: Thing, new: Thing) -> Scene:
    return replace(scene, things=tuple(new if thing is old else thing for thing in scene.things))
