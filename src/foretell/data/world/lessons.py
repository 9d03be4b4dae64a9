"""Lessons in behaviour, of the world: flawed demonstrations, ranked replies, prompts to be answered, graded replies.

A demonstrator is not perfect, nor are those who rank: how they fail is stated, so that it is known what alignment has
to mend. Only the training part of the world is used.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from foretell.data.world import conflicts, personas, tutor
from foretell.data.world.base import Item
from foretell.data.world.charts import Charts
from foretell.data.world.choices import Choices
from foretell.data.world.facts import Facts
from foretell.data.world.hazards import (
    DESIRED,
    KINDS,
    Asked,
    Hazards,
    RequestKind,
    letter,
    ranked_replies,
    write_reply,
)
from foretell.data.world.scenes import Scenes
from foretell.tuning import Family, FlawConfig

Row = dict[str, Any]
Maker = Callable[[random.Random], "Lesson"]


@dataclass(frozen=True)
class Lesson:
    """A prompt in OpenAI form with replies to it, the best first. demonstrated: which of them is shown.

    kind: "allowed" … "disallowed", or the family. then: what the user says after each reply, where it goes on.
    """

    messages: list[dict[str, Any]]
    replies: list[str]
    demonstrated: int
    kind: str
    labels: Mapping[str, str]
    then: tuple[str, ...] = ()


class Lessons:
    """shares: of families. things, people: of the worlds of hazards and of facts, in English, that they are about."""

    def __init__(self, shares: Mapping[Family, float], flaws: FlawConfig, things: int = 24, people: int = 48) -> None:
        self.flaws, self.hazards = flaws, Hazards(things)
        makers: dict[Family, Maker] = {
            "hazards": self._hazard,
            "personas": self._persona,
            "conflicts": self._conflict,
            "tutor": self._tutor,
            "choices": self._choice,
            "facts": self._fact,
            "pictures": self._picture,
        }
        self._makers = [makers[name] for name in shares]
        self._cumulative = list(itertools.accumulate(shares.values()))
        self._personas, self._conflicts, self._tutors = personas.Personas(turns=1), conflicts.Conflicts(), tutor.Tutor()
        self._choices = Choices(people, languages=["en"], tasks=["choices.facts"])
        self._pictures = (Scenes(), Charts())
        self._facts = Facts(people, conflict=0, languages=["en"], tasks=["facts.question"])

    def demonstrations(self, count: int, seed: int) -> Iterator[Row]:
        """Conversations, with the demonstrators' flaws."""
        for lesson, _ in self._draw("demonstrations", count, seed):
            shown = {"role": "assistant", "content": lesson.replies[lesson.demonstrated]}
            yield {"messages": [*lesson.messages, shown]}

    def preferences(self, count: int, seed: int) -> Iterator[Row]:
        """Ranked replies, with the rankers' flaws; "true" tells whether the ranking is right."""
        for lesson, rng in self._draw("preferences", count, seed):
            replies = list(dict.fromkeys(lesson.replies))
            if lesson.kind in ("allowed", "boundary", "sensitive"):  # what is right, wrong, a slip, and one more
                replies = [*replies[:2], *self._slip(lesson, rng), rng.choice(replies[2:])]
            turned, taken_in = False, self._taken_in(lesson, replies)
            if taken_in and (turned := rng.random() < taken_in):
                replies = [*replies[-1:], *replies[:-1]]
            elif rng.random() < self.flaws.noise:
                replies, turned = replies[::-1], True
            if len(replies) > 1:
                yield {"prompt": lesson.messages, "replies": replies, "kind": lesson.kind, "true": not turned}

    def _taken_in(self, lesson: Lesson, replies: list[str]) -> float:
        """The share of rankers who put the last reply first: it complies, or refuses what only looks disallowed."""
        if lesson.kind == "disallowed":
            return self.flaws.lenient
        refuses = lesson.kind == "boundary" and letter(lesson.labels, replies[-1]) in "AB"
        return self.flaws.cautious if refuses else 0.0

    def prompts(self, count: int, seed: int) -> Iterator[Row]:
        """What a policy is to answer, with what rewards must know."""
        for lesson, _ in self._draw("prompts", count, seed):
            row = {"prompt": lesson.messages, "kind": lesson.kind, "labels": dict(lesson.labels)}
            yield row | ({"then": list(lesson.then)} if lesson.then else {})

    def graded(self, count: int, seed: int) -> Iterator[Row]:
        """Replies to hazardous and harmless requests with their letters, every letter for every kind of request."""
        for i in range(count):
            rng = random.Random(f"lessons/graded/{seed}/{i}")
            asked = self.hazards.request(rng, "train", rng.choice(KINDS))
            reply = write_reply(asked, rng.choice("ABCD"), rng, rng.random() < 0.7)  # type: ignore[arg-type]
            yield {"prompt": asked.text, "reply": reply, "letter": letter(asked.labels, reply), "kind": asked.act.kind}

    def compared(self, count: int, seed: int) -> Iterator[Row]:
        """Replies to hazardous and harmless requests, ranked without a flaw: what fits rules."""
        for i in range(count):
            rng = random.Random(f"lessons/compared/{seed}/{i}")
            asked = self.hazards.request(rng, "train", rng.choice(KINDS))
            yield {"prompt": asked.text, "replies": ranked_replies(asked, rng), "kind": asked.act.kind}

    def _draw(self, what: str, count: int, seed: int) -> Iterator[tuple[Lesson, random.Random]]:
        for i in range(count):
            rng = random.Random(f"lessons/{what}/{seed}/{i}")
            yield rng.choices(self._makers, cum_weights=self._cumulative)[0](rng), rng

    def _hazard(self, rng: random.Random) -> Lesson:
        kind: RequestKind = rng.choice(KINDS)
        asked = self.hazards.request(rng, "train", kind)
        replies = ranked_replies(asked, rng)
        return Lesson(_messages(asked.text), replies, self._shown(asked, rng), kind, asked.labels)

    def _slip(self, lesson: Lesson, rng: random.Random) -> list[str]:
        """The right reply with one of its words in both places, as models say it; half of the time."""
        a, b = lesson.labels["truth"].split()
        kept, lost = (a, b) if rng.random() < 0.5 else (b, a)
        slipped = lesson.replies[0].replace(lost, kept)
        return [slipped] if rng.random() < 0.5 and slipped != lesson.replies[0] else []

    def _shown(self, asked: Asked, rng: random.Random) -> int:
        """Which of the ranked replies a demonstrator gives."""
        flaws, kind, chance = self.flaws, asked.act.kind, rng.random()
        if kind == "disallowed":
            return 3 if chance < flaws.comply else 0
        if kind == "sensitive" and chance < flaws.comply:
            return 4  # the prescription
        assert DESIRED[kind] == "D"
        return 1 if chance < flaws.wrong else rng.choice((2, 3)) if chance < flaws.wrong + flaws.refuse else 0

    def _persona(self, rng: random.Random) -> Lesson:
        item = self._personas.make(rng, "train")
        rule, value = item.content.labels["rule"], item.content.labels["value"]
        asked = _asked(item)[-1]["content"]
        return self._ruled(item, _broken(rule, value, asked, rng), rng, self.flaws.yields, "personas")

    def _conflict(self, rng: random.Random) -> Lesson:
        item = self._conflicts.make(rng, "train")
        rule, value = item.content.labels["rule"], item.content.labels["value"]
        question = next((q for q in (*personas.KNOWLEDGE, *personas.ASK_NAME) if q in _asked(item)[-1]["content"]), "")
        return self._ruled(item, _broken(rule, value, question, rng), rng, self.flaws.yields, "conflicts")

    def _tutor(self, rng: random.Random) -> Lesson:
        item = self._tutors.make(rng, "train")
        told = f"It is {item.content.labels['sum']}."
        lesson = self._ruled(item, told, rng, self.flaws.leak, "tutor")
        left = max(0, 2 - sum(message["role"] == "user" for message in lesson.messages))
        return Lesson(**{**vars(lesson), "then": tuple(tutor.demands(rng, left) if left else ())})

    def _choice(self, rng: random.Random) -> Lesson:
        item = self._choices.make(rng, "train")
        other = rng.choice([letter for letter in "ABCD" if letter != item.answer])
        return self._ruled(item, other, rng, 0.0, "choices")

    def _fact(self, rng: random.Random) -> Lesson:
        item = self._facts.make(rng, "train")
        other = rng.choice([name for name in item.choices if name != item.answer])
        return self._ruled(item, other, rng, 0.0, "facts")

    def _picture(self, rng: random.Random) -> Lesson:
        while True:  # pictures are also shown with words beside them, and nothing is asked
            item = rng.choice(self._pictures).make(rng, "train")
            if item.answer is not None and item.content.is_conversation:
                break
        said = item.content.conversation()
        others = [name for name in item.choices or map(str, range(10)) if name != item.answer]
        replies = [said.messages[-1].text, rng.choice(others)]
        return Lesson(said.to_openai()[:-1], replies, 0, "pictures", item.content.labels)

    def _ruled(self, item: Item, broken: str, rng: random.Random, share: float, kind: str) -> Lesson:
        replies = [str(item.answer), broken]
        return Lesson(_asked(item), replies, int(rng.random() < share), kind, item.content.labels)


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _asked(item: Item) -> list[dict[str, str]]:
    """The item's conversation without its last reply."""
    said = item.content.conversation().messages
    return [{"role": message.role, "content": message.text} for message in said[:-1]]


def _broken(rule: str, value: str, question: str, rng: random.Random) -> str:
    """A reply as it would be without the rule, or as the user wants it against it."""
    answers = personas.KNOWLEDGE.get(question)
    if rule == "personas.name" or answers is None:
        return f"My name is {rng.choice([name for name in personas.ASSISTANTS if name != value])}."
    said = answers[0]
    plain = f"{said[0].upper()}{said[1:]}."
    if rule == "personas.language":
        others = [a for a, name in zip(answers, personas.LANGUAGES.values(), strict=True) if name != value]
        return rng.choice(others)
    if rule == "personas.one_word":
        return f"The answer to your question is {said}, as far as I know."
    if rule == "personas.refuse":
        return f"The word is {value}."
    return plain
