"""Receipts and forms: prices, totals, what is entered where, which box is ticked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foretell.data.world.base import (
    Item,
    Split,
    dialogue,
    document,
    draw,
    invent,
    is_whole,
    png,
    require,
    subset,
)
from foretell.data.world.colors import COLORS
from foretell.data.world.drawing import INK, font

GOODS = ("apples", "bread", "butter", "cheese", "coffee", "eggs", "flour", "honey", "milk", "rice", "salt", "tea")
FIELDS: dict[str, tuple[str, ...]] = {  # label → what may be entered, each equally often
    "Day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "Month": ("January", "March", "April", "May", "June", "July", "August", "October"),
    "Color": tuple(COLORS),
    "Room": tuple(str(n) for n in range(1, 10)),
    "Size": ("tiny", "small", "medium", "large", "huge"),
    "Seat": tuple(f"{row}{n}" for row in "ABCD" for n in (1, 2, 3)),
}
BOXES = ("A", "B", "C", "D")
PAPER, RULE = (252, 251, 246), (120, 120, 124)
SMALLEST = 160  # pixels, below which a line of a receipt is not legible
TASKS = ("papers.price", "papers.total", "papers.cheapest", "papers.field", "papers.ticked")


@dataclass(frozen=True)
class Receipt:
    """prices: in cents, in the order of the goods."""

    shop: str
    goods: tuple[str, ...]
    prices: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"papers:receipt:{','.join(sorted(f'{g}={p}' for g, p in zip(self.goods, self.prices, strict=True)))}"


@dataclass(frozen=True)
class Form:
    """entries: (label, value) from top to bottom. ticked: of BOXES."""

    title: str
    entries: tuple[tuple[str, str], ...]
    ticked: str

    @property
    def key(self) -> str:
        return f"papers:form:{','.join(sorted(f'{k}={v}' for k, v in self.entries))}:{self.ticked}"


class Papers:
    """Receipts of two to `most` goods and filled-in forms on a canvas of `side` pixels.

    Held out by what stands on the paper, whatever is asked about it. Answers are drawn evenly and without regard to the
    question's words, so that they cannot be guessed from them.
    """

    name = "papers"
    visual = True

    def __init__(self, side: int = 192, most: int = 4, tasks: Sequence[str] | None = None) -> None:
        require(
            is_whole(side, SMALLEST, 2048), "papers.side", side, f"a whole number of pixels from {SMALLEST} to 2048"
        )
        require(is_whole(most, 2, 6), "papers.most", most, "a whole number from 2 to 6")
        self.side, self.most = side, most
        self.tasks = subset("papers.tasks", tasks, TASKS)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        if task in ("papers.field", "papers.ticked"):
            form = draw(rng, split, self._form, lambda paper: paper.key)
            asked, answer, choices = (_field if task == "papers.field" else _ticked)(rng, form)
            return self._item(task, form.key, asked, answer, answer, choices, self._draw_form(form))
        receipt = draw(rng, split, self._receipt, lambda paper: paper.key)
        asked, reply, answer, choices = ASK[task](rng, receipt)
        return self._item(task, receipt.key, asked, reply, answer, choices, self._draw_receipt(receipt))

    @staticmethod
    def _item(task: str, key: str, asked: str, reply: str, answer: str, choices: tuple[str, ...], image: bytes) -> Item:
        return Item(key, task, document(task, dialogue([(asked, reply)], image=image)), answer, choices)

    def _receipt(self, rng: random.Random) -> Receipt:
        count = rng.randint(2, self.most)
        return Receipt(
            invent(rng, 2), tuple(rng.sample(GOODS, count)), tuple(5 * n for n in rng.sample(range(10, 200), count))
        )

    def _form(self, rng: random.Random) -> Form:
        labels = rng.sample(list(FIELDS), 3)
        return Form(invent(rng, 2), tuple((k, rng.choice(FIELDS[k])) for k in labels), rng.choice(BOXES))

    def _draw_receipt(self, receipt: Receipt) -> bytes:
        image, canvas, pad, size, step = self._sheet(len(receipt.goods) + 3)
        right, y = self.side - pad, pad + step / 2
        canvas.text((self.side / 2, y), receipt.shop.upper(), font=font(size + 2), fill=INK, anchor="mm")
        for good, price in zip(receipt.goods, receipt.prices, strict=True):
            y += step
            canvas.text((pad, y), good, font=font(size), fill=INK, anchor="lm")
            canvas.text((right, y), money(price), font=font(size), fill=INK, anchor="rm")
        y += step * 0.6
        canvas.line([(pad, y), (right, y)], fill=RULE, width=max(1, self.side // 190))
        y += step * 0.7
        canvas.text((pad, y), "TOTAL", font=font(size), fill=INK, anchor="lm")
        canvas.text((right, y), money(sum(receipt.prices)), font=font(size), fill=INK, anchor="rm")
        return png(image)

    def _draw_form(self, form: Form) -> bytes:
        image, canvas, pad, size, step = self._sheet(len(form.entries) + 2)
        y, middle, thin = pad + step / 2, self.side * 0.36, max(1, self.side // 190)
        canvas.text((self.side / 2, y), f"Form {form.title}", font=font(size + 2), fill=INK, anchor="mm")
        for label, value in form.entries:
            y += step
            canvas.text((pad, y), f"{label}:", font=font(size), fill=INK, anchor="lm")
            canvas.rectangle([middle, y - step * 0.36, self.side - pad, y + step * 0.36], outline=RULE, width=thin)
            canvas.text((middle + size * 0.4, y), value, font=font(size), fill=(20, 50, 160), anchor="lm")
        y += step
        box = size * 0.95
        for place, letter in enumerate(BOXES):
            x = pad + place * (self.side - 2 * pad) / len(BOXES)
            canvas.rectangle([x, y - box / 2, x + box, y + box / 2], outline=INK, width=thin)
            if letter == form.ticked:
                strokes = [(x + box * 0.15, y), (x + box * 0.42, y + box * 0.32), (x + box * 0.95, y - box * 0.5)]
                canvas.line(strokes, fill=(20, 50, 160), width=2 * thin + 1)
            canvas.text((x + box * 1.3, y), letter, font=font(size), fill=INK, anchor="lm")
        return png(image)

    def _sheet(self, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw, float, int, float]:
        image = Image.new("RGB", (self.side, self.side), PAPER)
        pad = self.side * 0.06
        step = (self.side - 2 * pad) / lines
        return image, ImageDraw.Draw(image), pad, int(min(self.side * 0.085, step * 0.62)), step


def money(cents: int) -> str:
    """Cents as a price: 345 → "3.45"."""
    return f"{cents // 100}.{cents % 100:02d}"


Asked = tuple[str, str, str, tuple[str, ...]]


def _price(rng: random.Random, paper: Receipt) -> Asked:
    at = rng.randrange(len(paper.goods))
    ask = rng.choice(("What is the price of the {g}?", "How much is paid for the {g}?", "The {g}: what price?"))
    price = money(paper.prices[at])
    return ask.format(g=paper.goods[at]), price, price, ()


def _total(rng: random.Random, paper: Receipt) -> Asked:
    total = money(sum(paper.prices))
    return rng.choice(("What is the total?", "How much is paid in all?")), total, total, ()


def _cheapest(rng: random.Random, paper: Receipt) -> Asked:
    good = paper.goods[paper.prices.index(min(paper.prices))]
    return rng.choice(("Which item is the cheapest?", "What costs the least?")), good, good, GOODS


ASK: dict[str, Callable[[random.Random, Receipt], Asked]] = {
    "papers.price": _price,
    "papers.total": _total,
    "papers.cheapest": _cheapest,
}


def _field(rng: random.Random, form: Form) -> tuple[str, str, tuple[str, ...]]:
    label, value = rng.choice(form.entries)
    ask = rng.choice(('What is entered under "{k}"?', 'Read the field "{k}".', "{k}: what does the form say?"))
    return ask.format(k=label), value, FIELDS[label]


def _ticked(rng: random.Random, form: Form) -> tuple[str, str, tuple[str, ...]]:
    return rng.choice(("Which box is ticked?", "Which letter stands beside the tick?")), form.ticked, BOXES
