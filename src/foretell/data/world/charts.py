"""Bar, line and pie charts by matplotlib: largest, value, sum with reasoning, trend."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset
from foretell.data.world.colors import COLORS
from foretell.errors import MissingExtraError

HIGHEST = 9  # values are whole numbers from 1 to 9
LABELLED = 192  # from this side on, tick labels and a legend are legible
COLOR_NAMES = tuple(COLORS)
NUMBERS = tuple(str(n) for n in range(1, HIGHEST + 1))
FORM = {
    "charts.tallest": "bar",
    "charts.value": "bar",
    "charts.sum": "bar",
    "charts.pie": "pie",
    "charts.line": "line",
}


@dataclass(frozen=True)
class Chart:
    """One value for each colour, from left to right (a pie: clockwise from the top)."""

    form: str
    colors: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def key(self) -> str:
        return (
            f"charts:{self.form}:{','.join(sorted(f'{c}={v}' for c, v in zip(self.colors, self.values, strict=True)))}"
        )


@dataclass(frozen=True)
class Question:
    task: str
    text: str
    reply: str
    answer: str
    choices: tuple[str, ...]


class Charts:
    """Charts of `side` pixels with two to `most` values.

    questions_per_image: turns asked of one chart in a conversation; None means 2 in training, 1 held out.
    The item's task, answer and choices are those of the last turn.
    Held out by chart (form, colours and their values, in whatever order), whatever is asked about it.
    Raises MissingExtraError when matplotlib is not installed.
    """

    name = "charts"
    visual = True

    def __init__(
        self,
        side: int = 64,
        most: int = 4,
        questions_per_image: int | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        require(is_whole(side, 48, 2048), "charts.side", side, "a whole number of pixels from 48 to 2048")
        require(is_whole(most, 2, 6), "charts.most", most, "a whole number from 2 to 6")
        asked = questions_per_image
        require(asked is None or is_whole(asked, 1, 4), "charts.questions_per_image", asked, "1, 2, 3 or 4")
        self.side, self.most, self.questions_per_image = side, most, asked
        self.tasks = subset("charts.tasks", tasks, list(FORM))
        self._canvas: _Canvas | None = None

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        chart = draw(rng, split, lambda r: self._propose(r, FORM[task]), lambda chart: chart.key)
        asked = [ASK[task](rng, chart)]
        turns = self.questions_per_image or (2 if split == "train" else 1)
        same_form = [name for name in self.tasks if FORM[name] == chart.form]
        for _ in range(8 * (turns - 1)):
            other = ASK[rng.choice(same_form)](rng, chart)
            if len(asked) < turns and all((other.task, other.answer) != (known.task, known.answer) for known in asked):
                asked.insert(0, other)
        last = asked[-1]
        self._canvas = self._canvas or _Canvas(self.side)
        segments = dialogue([(q.text, q.reply) for q in asked], image=self._canvas.render(chart))
        return Item(chart.key, last.task, document(last.task, segments), last.answer, last.choices)

    def _propose(self, rng: random.Random, form: str) -> Chart:
        """Distinct colours and values; the largest slice of a pie stands out by two."""
        count = rng.randint(2, self.most)
        while True:
            values = rng.sample(range(1, HIGHEST + 1), count)
            top = sorted(values)
            if form != "pie" or top[-1] - top[-2] >= 2:
                return Chart(form, tuple(rng.sample(COLOR_NAMES, count)), tuple(values))


def _largest(chart: Chart) -> str:
    return chart.colors[chart.values.index(max(chart.values))]


def _tallest(rng: random.Random, chart: Chart) -> Question:
    asked = rng.choice(("Which bar is the tallest?", "What color is the tallest bar?"))
    return _short("charts.tallest", asked, _largest(chart), COLOR_NAMES)


def _value(rng: random.Random, chart: Chart) -> Question:
    at = rng.randrange(len(chart.values))
    ask = rng.choice(("What is the value of the {c} bar?", "How high is the {c} bar?"))
    return _short("charts.value", ask.format(c=chart.colors[at]), str(chart.values[at]), NUMBERS)


def _sum(rng: random.Random, chart: Chart) -> Question:
    i, j = rng.sample(range(len(chart.values)), 2)
    (a, x), (b, y) = (chart.colors[i], chart.values[i]), (chart.colors[j], chart.values[j])
    ask = rng.choice(("What is {a} plus {b}?", "What do the {a} and the {b} bar add up to?"))
    reply = f"{a.capitalize()} is {x}, {b} is {y}, so {x} + {y} = {x + y}."
    choices = tuple(str(n) for n in range(2, 2 * HIGHEST + 1))
    return Question("charts.sum", ask.format(a=a, b=b), reply, str(x + y), choices)


def _pie(rng: random.Random, chart: Chart) -> Question:
    asked = rng.choice(("Which slice is the largest?", "What color is the largest slice?"))
    return _short("charts.pie", asked, _largest(chart), COLOR_NAMES)


def _line(rng: random.Random, chart: Chart) -> Question:
    if rng.random() < 0.5:
        asked = rng.choice(("Which point is the highest?", "What color is the highest point?"))
        return _short("charts.line", asked, _largest(chart), COLOR_NAMES)
    asked = rng.choice(
        ("From the first point to the last, does the line go up or down?", "Overall, does the line go up or down?")
    )
    return _short("charts.line", asked, "up" if chart.values[-1] > chart.values[0] else "down", ("up", "down"))


def _short(task: str, asked: str, answer: str, choices: tuple[str, ...]) -> Question:
    return Question(task, asked, answer, answer, choices)


ASK: dict[str, Callable[[random.Random, Chart], Question]] = {
    "charts.tallest": _tallest,
    "charts.value": _value,
    "charts.sum": _sum,
    "charts.pie": _pie,
    "charts.line": _line,
}


class _Canvas:
    """One Figure with one Axes per form, made once: most of matplotlib's time goes into making them."""

    def __init__(self, side: int) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("The generated world's chart kind", "torch") from error
        self.side, self.labelled = side, side >= LABELLED
        self.dpi = 100 if self.labelled else 72  # at 72 dpi a point is a pixel
        self.figure: Any = Figure(figsize=(side / self.dpi, side / self.dpi), dpi=self.dpi)
        self.canvas: Any = FigureCanvasAgg(self.figure)
        room = (0.12, 0.05, 0.86, 0.82) if self.labelled else (0.0, 0.0, 1.0, 1.0)
        self.axes: dict[str, Any] = {form: self.figure.add_axes(room) for form in ("bar", "line", "pie")}
        unit = int(side * room[3] / (HIGHEST + 1))
        for form in ("bar", "line"):
            self._grid(self.axes[form], top=side * room[3] / unit)
        self.axes["pie"].set_axis_off()

    def _grid(self, axes: Any, top: float) -> None:
        """A line at every whole value, whole pixels apart; 5 is dark, so that values can be read without labels."""
        axes.set_ylim(0, top)
        axes.set_autoscale_on(False)
        axes.set_xticks([])
        axes.set_yticks(range(0, HIGHEST + 1))
        axes.tick_params(length=0, labelleft=self.labelled, labelsize=self.side * 3.2 / self.dpi)
        for value in range(1, HIGHEST + 1):
            axes.axhline(value, color="black" if value == 5 else "0.72", linewidth=1, zorder=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    def render(self, chart: Chart) -> bytes:
        """The chart as PNG."""
        from PIL import Image

        for form, axes in self.axes.items():
            axes.set_visible(form == chart.form)
        axes = self.axes[chart.form]
        shades = [tuple(part / 255 for part in COLORS[color]) for color in chart.colors]
        count = len(chart.values)
        drawn: list[Any]
        if chart.form == "pie":
            drawn = list(axes.pie(chart.values, colors=shades, startangle=90, counterclock=False, radius=1.15)[0])
        else:
            axes.set_xlim(-0.6, count - 0.4)
            if chart.form == "bar":
                drawn = list(axes.bar(range(count), chart.values, width=0.6, color=shades, zorder=2))
            else:
                line = axes.plot(range(count), chart.values, color="0.35", linewidth=1.5, zorder=2)
                size = (10 * 72 / self.dpi) ** 2 if not self.labelled else 90
                drawn = [*line, axes.scatter(range(count), chart.values, c=shades, s=size, zorder=3, clip_on=False)]
        if self.labelled:
            handles = drawn if chart.form != "line" else [self._dot(shade) for shade in shades]
            drawn.append(
                self.figure.legend(
                    handles,
                    chart.colors,
                    loc="upper center",
                    ncols=min(count, 3),
                    fontsize=self.side * 3.2 / self.dpi,
                    handlelength=1,
                    columnspacing=1,
                    handletextpad=0.4,
                    frameon=False,
                )
            )
        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        for artist in drawn:
            artist.remove()
        return png(Image.fromarray(np.ascontiguousarray(pixels)))

    @staticmethod
    def _dot(shade: Any) -> Any:
        from matplotlib.lines import Line2D

        return Line2D([], [], marker="o", linestyle="", color=shade)
