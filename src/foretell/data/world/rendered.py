"""Rendered text to read: digits, short words, and lines of words where there is room."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from foretell.data.world.base import Item, Split, dialogue, document, draw, is_whole, png, require, subset

INKS = ((0, 0, 0), (150, 20, 20), (20, 50, 160), (20, 90, 40))
PAPERS = ((255, 255, 255), (240, 236, 220), (215, 225, 235))
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
ROOMY = 192  # from this side on, several lines are legible
ASK = {
    "reading.digits": ("What number is written here?", "Read the number.", "Which number is this?"),
    "reading.word": ("What word is written here?", "Read the word.", "Which word is this?"),
    "reading.text": ("What is written here?", "Read the text."),
}


class Reading:
    """Text drawn with the font that ships with Pillow on a canvas of `side` pixels.

    digits: most digits of a number (a leading zero is allowed). letters: most letters of a word; words are invented and
    pronounceable, so they are read and not guessed. reading.text, of two to six words, is there from 192 pixels on.
    Held out by the text that is read.
    """

    name = "reading"
    visual = True

    def __init__(self, side: int = 64, digits: int = 3, letters: int = 3, tasks: Sequence[str] | None = None) -> None:
        require(is_whole(side, 48, 2048), "reading.side", side, "a whole number of pixels from 48 to 2048")
        require(is_whole(digits, 2, 6), "reading.digits", digits, "a whole number from 2 to 6")
        require(is_whole(letters, 2, 6), "reading.letters", letters, "a whole number from 2 to 6")
        self.side, self.digits, self.letters = side, digits, letters
        self.tasks = subset("reading.tasks", tasks, [task for task in ASK if task != "reading.text" or side >= ROOMY])
        self._fonts: dict[int, Any] = {}

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        propose = {"reading.digits": self._number, "reading.word": self._word, "reading.text": self._text}[task]
        text = draw(rng, split, propose, lambda text: f"reading:{text}")
        segments = dialogue([(rng.choice(ASK[task]), text)], image=self.render(rng, text))
        return Item(f"reading:{text}", task, document(task, segments), text)

    def _number(self, rng: random.Random) -> str:
        lengths = range(1, self.digits + 1)  # longer ones more often, since there are more of them
        return "".join(rng.choices("0123456789", k=rng.choices(lengths, weights=lengths)[0]))

    def _word(self, rng: random.Random) -> str:
        length, start = rng.randint(2, self.letters), rng.randrange(2)
        return "".join(rng.choice((CONSONANTS, VOWELS)[(start + n) % 2]) for n in range(length))

    def _text(self, rng: random.Random) -> str:
        return " ".join(self._word(rng) for _ in range(rng.randint(2, 6)))

    def render(self, rng: random.Random, text: str) -> bytes:
        """The text as PNG, as large as fits by a random share, somewhere on the paper; three words to a line."""
        words = text.split()
        lines = [" ".join(words[n : n + 3]) for n in range(0, len(words), 3)]
        longest = max(len(line) for line in lines)
        size = int(self.side * min(0.5, 1.35 / longest) * rng.uniform(0.8, 1.0))
        font = self._font(size)
        image = Image.new("RGB", (self.side, self.side), rng.choice(PAPERS))
        canvas = ImageDraw.Draw(image)
        block = "\n".join(lines)
        left, top, right, bottom = canvas.multiline_textbbox((0, 0), block, font=font)
        x = rng.uniform(2, max(2, self.side - 2 - (right - left))) - left
        y = rng.uniform(2, max(2, self.side - 2 - (bottom - top))) - top
        canvas.multiline_text((x, y), block, font=font, fill=rng.choice(INKS))
        return png(image)

    def _font(self, size: int) -> Any:
        if size not in self._fonts:
            self._fonts[size] = ImageFont.load_default(size=size)
        return self._fonts[size]
