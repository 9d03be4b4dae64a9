"""Screenshots of simple pages: what the heading and a button say, how long a list is, and the page's HTML."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from foretell.data.world.base import Item, Split, dialogue, document, draw, invent, is_whole, png, require, subset
from foretell.data.world.colors import COLORS
from foretell.data.world.drawing import INK, font, text_size

VERBS = ("Save", "Send", "Open", "Close", "Print", "Share", "Search", "Delete")
WORDS = ("bread", "garden", "letters", "music", "paint", "rivers", "stamps", "trains", "weather", "winter")
SHADES = tuple(name for name in COLORS if name != "yellow")  # white text is legible on them
LONGEST = 4  # entries of a list
SMALLEST = 160
LINK = (30, 80, 230)
TASKS = ("screens.heading", "screens.button", "screens.list", "screens.html")


@dataclass(frozen=True)
class Page:
    """heading, then a list and a link in the order of `parts`, then two buttons: (colour, what it says)."""

    heading: str
    entries: tuple[str, ...]
    link: str
    parts: tuple[str, ...]
    buttons: tuple[tuple[str, str], ...]

    @property
    def html(self) -> str:
        """The page's source, which `render` draws: one line, without what a browser does not need."""
        listed = "<ul>" + "".join(f"<li>{escape(entry)}</li>" for entry in self.entries) + "</ul>"
        written = {"list": listed, "link": f'<a href="#">{escape(self.link)}</a>'}
        buttons = "".join(f'<button class="{color}">{escape(text)}</button>' for color, text in self.buttons)
        return f"<h1>{escape(self.heading)}</h1>" + "".join(written[part] for part in self.parts) + buttons

    @property
    def key(self) -> str:
        return f"screens:{self.html}"


class Screens:
    """Pages on a square canvas of `side` pixels, as a plain browser shows them.

    Held out by the page. Answers are drawn evenly and without regard to the question's words. The reply to
    `screens.html` is the page's source, which is one way of many to write it: spaces and attributes count.
    """

    name = "screens"
    visual = True

    def __init__(self, side: int = 192, tasks: Sequence[str] | None = None) -> None:
        require(
            is_whole(side, SMALLEST, 2048), "screens.side", side, f"a whole number of pixels from {SMALLEST} to 2048"
        )
        self.side = side
        self.tasks = subset("screens.tasks", tasks, TASKS)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        page = draw(rng, split, _page, lambda page: page.key)
        asked, answer, choices = _asked(task, rng, page)
        segments = dialogue([(asked, answer)], image=self.render(page))
        return Item(page.key, task, document(task, segments), answer, choices)

    def render(self, page: Page) -> bytes:
        """The page as PNG."""
        side, pad, size = self.side, self.side * 0.06, int(self.side * 0.075)
        image = Image.new("RGB", (side, side), "white")
        canvas = ImageDraw.Draw(image)
        step = size * 1.45
        y = pad + size
        canvas.text((pad, y), page.heading, font=font(int(size * 1.6)), fill=INK, anchor="lm")
        y += step * 1.5
        for part in page.parts:
            if part == "list":
                for entry in page.entries:
                    dot = size * 0.14
                    canvas.ellipse([pad + size * 0.5 - dot, y - dot, pad + size * 0.5 + dot, y + dot], fill=INK)
                    canvas.text((pad + size * 1.1, y), entry, font=font(size), fill=INK, anchor="lm")
                    y += step
            else:
                width = text_size(page.link, size)[0]
                canvas.text((pad, y), page.link, font=font(size), fill=LINK, anchor="lm")
                canvas.line(
                    [(pad, y + size * 0.55), (pad + width, y + size * 0.55)], fill=LINK, width=max(1, side // 190)
                )
                y += step
        x, low = pad, side - pad
        for color, text in page.buttons:
            width = text_size(text, size)[0] + size * 1.2
            canvas.rounded_rectangle([x, low - step, x + width, low], radius=size * 0.3, fill=COLORS[color])
            canvas.text((x + width / 2, low - step / 2), text, font=font(size), fill="white", anchor="mm")
            x += width + size * 0.6
        return png(image)


def _page(rng: random.Random) -> Page:
    words = rng.sample(WORDS, LONGEST + 1)
    count = rng.randint(1, LONGEST)
    parts = tuple(rng.sample(("list", "link"), 2))
    buttons = tuple(zip(rng.sample(SHADES, 2), rng.sample(VERBS, 2), strict=True))
    return Page(invent(rng, 2), tuple(words[:count]), words[-1].capitalize(), parts, buttons)


def _asked(task: str, rng: random.Random, page: Page) -> tuple[str, str, tuple[str, ...]]:
    """Question, answer and choices."""
    if task == "screens.heading":
        return rng.choice(("What does the heading say?", "What is the title of this page?")), page.heading, ()
    if task == "screens.button":
        color, text = rng.choice(page.buttons)
        ask = rng.choice(("What does the {c} button say?", "Which word is on the {c} button?"))
        return ask.format(c=color), text, VERBS
    if task == "screens.list":
        numbers = tuple(str(n) for n in range(1, LONGEST + 1))
        return (
            rng.choice(("How many entries has the list?", "Count the list's entries.")),
            str(len(page.entries)),
            numbers,
        )
    return rng.choice(("Write this page as HTML.", "Give the HTML of this page.")), page.html, ()
