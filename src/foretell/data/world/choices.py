"""A–D questions about the world: the facts that `facts` states, and sums; the reply is one letter."""

from __future__ import annotations

import random
from collections.abc import Sequence

from foretell.data.world.arithmetic import ASK, OPERATIONS, Arithmetic, pair_key, value_of
from foretell.data.world.base import Item, Split, dialogue, document, draw, require, subset
from foretell.data.world.facts import LETTERS, Facts, fact_key, lettered
from foretell.data.world.phrases import PHRASES

TASKS = ("choices.facts", "choices.arithmetic")
CLOSINGS = {  # asks for the letter, in the question's language
    "en": "Answer with one letter.",
    "de": "Antworte mit einem Buchstaben.",
    "fr": "Réponds par une lettre.",
    "es": "Responde con una letra.",
    "it": "Rispondi con una lettera.",
    "pl": "Odpowiedz jedną literą.",
}


class Choices:
    """Questions with four choices of the same kind, one of them right, asked for by its letter.

    people, world, zipf, languages: as of `Facts`; with those that a model was trained on, it can know every answer. One
    wrong choice is the fact's rival. digits: as of `Arithmetic`; wrong results are near the right one.
    Held out as `facts` of the form `like` (choice or question) and `arithmetic` are: by fact, language and phrasing,
    and by the pair of operands. `like` question is for those who ask the question without its choices.
    Item.answer is the letter, which stands anywhere equally often.
    """

    name = "choices"
    visual = False

    def __init__(
        self,
        people: int = 48,
        world: int = 0,
        zipf: float = 1.0,
        languages: Sequence[str] | None = None,
        digits: int = 3,
        like: str = "choice",
        tasks: Sequence[str] | None = None,
    ) -> None:
        require(like in ("choice", "question"), "choices.like", like, "choice or question")
        self.form = f"facts.{like}"
        self.tasks = subset("choices.tasks", tasks, TASKS)
        self.facts = Facts(people, world, zipf, languages=languages)
        self.arithmetic = Arithmetic(digits)

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        make = self._fact if task == "choices.facts" else self._sum
        key, language, asked, right, wrong, labels = make(rng, split)
        answer = rng.choice(LETTERS)
        text = "\n".join([asked, *lettered(answer, right, wrong), CLOSINGS[language]])
        content = document(task, dialogue([(text, answer)]), language, labels)
        return Item(key, task, content, answer, tuple(LETTERS))

    def _fact(self, rng: random.Random, split: Split) -> tuple[str, str, str, str, list[str], dict[str, str]]:
        fact, language, variant = draw(rng, split, self.facts.propose, lambda drawn: fact_key(self.form, *drawn))
        asked = PHRASES[language][fact.relation][1][variant].format(s=fact.subject)
        key, wrong = fact_key(self.form, fact, language, variant), self.facts.distractors(fact, rng)
        return key, language, asked, fact.object, wrong, {"fact": fact.id}

    def _sum(self, rng: random.Random, split: Split) -> tuple[str, str, str, str, list[str], dict[str, str]]:
        a, b = draw(rng, split, self.arithmetic.propose, pair_key)
        sign = OPERATIONS[rng.choice(list(OPERATIONS))]
        if sign == "-":
            a, b = max(a, b), min(a, b)
        asked = rng.choice(ASK).format(e=f"{a} {sign} {b}")
        right = value_of(a, sign, b)
        return pair_key((a, b)), "en", asked, str(right), [str(n) for n in _near(right, rng)], {}


def _near(right: int, rng: random.Random) -> list[int]:
    """Three wrong results as slips make them: one, two or ten off, or, where there is one, a hundred."""
    steps = [1, 2, 10] + ([100] if right >= 100 else [])
    return rng.sample([n for step in steps for n in (right - step, right + step) if n >= 0], 3)
