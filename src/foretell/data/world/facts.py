"""A closed world of invented people, towns, companies and machines, told in six languages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foretell.data.document import Segment
from foretell.data.world.base import (
    Item,
    Split,
    dialogue,
    document,
    draw,
    invent,
    invent_names,
    is_share,
    is_whole,
    require,
    subset,
)
from foretell.data.world.phrases import PHRASES

RELATIONS = {  # relation → type of its subject, type of its object
    "lives": ("person", "town"),
    "works": ("person", "company"),
    "supports": ("person", "club"),
    "founded": ("town", "year"),
    "river": ("town", "river"),
    "country": ("town", "country"),
    "seat": ("company", "town"),
    "made": ("machine", "company"),
}
PER_PERSON = {"town": 3, "company": 4, "machine": 4, "club": 6, "river": 6, "country": 8}
FORMS = ("facts.statement", "facts.question", "facts.choice")
LETTERS = "ABCD"


@dataclass(frozen=True)
class Fact:
    """rival: the one wrong object that statements in conflict name instead of the true object."""

    relation: str
    subject: str
    object: str
    rival: str

    @property
    def id(self) -> str:
        return f"{self.relation}:{self.subject}"


class Facts:
    """Facts of a closed world as statements, questions and A–D questions.

    people: number of people; the other entities follow from it. world: seed of the world itself.
    zipf: exponent s of entity frequency, where the entity of rank r is drawn with weight 1 / r^s.
    conflict: share of statements that name the rival instead of the true object, labelled {"conflict": "true"}:
    one number, or relation → number (others 0). Questions are always answered truly.
    Held out are combinations of fact, language, form and phrasing: each fact can be learned from the training
    split in other words or another language, the exact sentence or question cannot.
    """

    name = "facts"
    visual = False

    def __init__(
        self,
        people: int = 48,
        world: int = 0,
        zipf: float = 1.0,
        conflict: float | Mapping[str, float] = 0.05,
        languages: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        require(is_whole(people, 32, 20_000), "facts.people", people, "a whole number from 32 to 20000")
        require(isinstance(zipf, (int, float)) and 0 <= zipf <= 4, "facts.zipf", zipf, "a number from 0 to 4")
        rates = dict(conflict) if isinstance(conflict, Mapping) else dict.fromkeys(RELATIONS, conflict)
        require(
            set(rates) <= set(RELATIONS) and all(is_share(rate) for rate in rates.values()),
            "facts.conflict",
            conflict,
            f"a share from 0 to 1, or such shares by relation ({', '.join(RELATIONS)})",
        )
        self.conflict: dict[str, float] = rates
        self.languages = subset("facts.languages", languages, list(PHRASES))
        self.tasks = subset("facts.tasks", tasks, FORMS)
        self.objects, self.facts = _build(random.Random(f"world/{world}"), people)
        self.subjects = list(self.facts)
        self._weights = list(itertools.accumulate((rank + 1) ** -zipf for rank in range(len(self.subjects))))

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        fact, language, variant = draw(rng, split, self.propose, lambda drawn: fact_key(task, *drawn))
        key = fact_key(task, fact, language, variant)
        statements, questions = PHRASES[language][fact.relation]
        labels = {"fact": fact.id}
        if task == "facts.statement":
            wrong = rng.random() < self.conflict.get(fact.relation, 0.0)
            text = statements[variant].format(s=fact.subject, o=fact.rival if wrong else fact.object)
            labels["conflict"] = str(wrong).lower()
            return Item(key, task, document(task, [Segment(text=text)], language, labels))
        asked, answer, choices = questions[variant].format(s=fact.subject), fact.object, self._answers(fact)
        if task == "facts.choice":
            wrong_ones = self.distractors(fact, rng)
            answer, choices = rng.choice(LETTERS), tuple(LETTERS)
            asked = "\n".join([asked, *lettered(answer, fact.object, wrong_ones), "Answer:"])
        return Item(key, task, document(task, dialogue([(asked, answer)]), language, labels), answer, choices)

    def distractors(self, fact: Fact, rng: random.Random) -> list[str]:
        """Three wrong objects of the same type, the rival among them, in any order."""
        others = [name for name in self._answers(fact) if name not in (fact.object, fact.rival)]
        options = [fact.rival, *rng.sample(others, 2)]
        rng.shuffle(options)
        return options

    def propose(self, rng: random.Random) -> tuple[Fact, str, int]:
        """A fact, by the frequency of its subject, a language and a phrasing."""
        subject = rng.choices(self.subjects, cum_weights=self._weights)[0]
        return rng.choice(self.facts[subject]), rng.choice(self.languages), rng.randrange(2)

    def _answers(self, fact: Fact) -> tuple[str, ...]:
        return self.objects[RELATIONS[fact.relation][1]]


def lettered(answer: str, right: str, wrong: Sequence[str]) -> list[str]:
    """Lines "A) …" to "D) …", the right one under the answer's letter."""
    options = [*wrong[: (at := LETTERS.index(answer))], right, *wrong[at:]]
    return [f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=True)]


def fact_key(task: str, fact: Fact, language: str, variant: int) -> str:
    return f"{task}:{fact.id}:{language}:{variant}"


def _build(rng: random.Random, people: int) -> tuple[dict[str, tuple[str, ...]], dict[str, list[Fact]]]:
    """Names by type, and the facts of each subject, the most frequent subject first."""
    taken: set[str] = set()
    names = {kind: invent_names(rng, max(4, people // n), taken) for kind, n in PER_PERSON.items()}
    families = invent_names(rng, people, taken)
    names["person"] = tuple(f"{invent(rng, 2)} {family}" for family in families)
    names["year"] = tuple(str(year) for year in sorted(rng.sample(range(1100, 1900), min(max(4, people // 3), 800))))
    facts: dict[str, list[Fact]] = {}
    for relation, (subject_type, object_type) in RELATIONS.items():
        for subject in names[subject_type]:
            truth, rival = rng.sample(names[object_type], 2)
            facts.setdefault(subject, []).append(Fact(relation, subject, truth, rival))
    subjects = sorted(facts)
    rng.shuffle(subjects)
    return names, {subject: facts[subject] for subject in subjects}
