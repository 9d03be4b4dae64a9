"""Texts of every category from a grammar, and their harmless neighbours: what the packaged classifier learns from."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

_PACKAGED = Path(__file__).with_name("grammar.yaml")
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Example:
    """A text, the categories that hold of it, and its template's number, so that whole templates can be held out."""

    text: str
    labels: tuple[str, ...]
    template: int


@dataclass(frozen=True)
class Grammar:
    """words: what a name may stand for. templates: with the labels of what they make."""

    words: Mapping[str, Sequence[str]]
    templates: Sequence[tuple[tuple[str, ...], str]]

    def draw(self, template: int, rng: random.Random) -> Example:
        """One text of a template, sometimes carelessly typed or with a sentence of no matter beside it."""
        labels, form = self.templates[template]
        text = self._fill(form, rng)
        harmless = [form for labels, form in self.templates if not labels]
        if rng.random() < 0.3:
            beside = self._fill(rng.choice(harmless), rng)
            text = f"{beside} {text}" if rng.random() < 0.5 else f"{text} {beside}"
        return Example(_typed(text, rng), labels, template)

    def _fill(self, form: str, rng: random.Random) -> str:
        while match := _NAME.search(form):
            form = form[: match.start()] + rng.choice(self.words[match.group(1)]) + form[match.end() :]
        return form[:1].upper() + form[1:]


def load_grammar(path: Path = _PACKAGED) -> Grammar:
    """The grammar that comes with the package."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    pairs = [(tuple(labels.split()), form) for labels, forms in raw["templates"].items() for form in forms]
    return Grammar(raw["words"], pairs)


def generate(grammar: Grammar, each: int, seed: int) -> list[Example]:
    """`each` texts of every template, without those that came twice."""
    rng = random.Random(seed)
    found = [grammar.draw(template, rng) for template in range(len(grammar.templates)) for _ in range(each)]
    return list({example.text: example for example in found}.values())


def _typed(text: str, rng: random.Random) -> str:
    """As people type: mostly with care, at times all in one case, or without punctuation."""
    chance = rng.random()
    if chance < 0.15:
        return text.lower()
    if chance < 0.2:
        return text.upper()
    if chance < 0.25:
        return re.sub(r"[.!?,;:]", "", text)
    return text
