"""Questions about the world in several languages at once: one truth, put by each language's own grammar.

Names and numbers stay as they are, so that options and gold are the same in every language; what inflects around them
(plurals and cases after numbers, gender, elision, vowel harmony, measure words) is in `grammars/`, a file a language.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import yaml

from foretell.data.world.base import invent, is_whole, require, subset
from foretell.data.world.facts import LETTERS, RELATIONS, Fact, Facts

KINDS = ("recall", "reading", "sums")
_TOLD = 4  # sentences of a text to be read
_ELSEWHERE = 7_000_000  # seeds from here on are of worlds that no training text tells of
_MOST = 40  # things


@dataclass(frozen=True)
class Grammar:
    """How a language says what the questions need. plural: name of the rule in `PLURALS`; genitive: of the rule in
    `GENITIVES` for names. facts: relation → statement and question. counted, story, ask: of sums. nouns: word → its
    forms. joiner: what stands between sentences. instruction: what the model is told to be."""

    language: str
    instruction: str
    plural: str
    facts: Mapping[str, Sequence[str]]
    counted: str
    story: Sequence[str]
    ask: str
    nouns: Mapping[str, Mapping[str, str]]
    joiner: str = " "
    genitive: str = "none"


@dataclass(frozen=True)
class Parallel:
    """One question in every language. gold: index of the right option. texts: language → question, behind the text that
    it is about. truth: what it asks about, in no language."""

    id: str
    kind: str
    options: tuple[str, ...]
    gold: int
    texts: Mapping[str, str]
    truth: Mapping[str, str | int] = field(default_factory=dict)


@cache
def languages() -> tuple[str, ...]:
    """Codes of the languages that have a grammar, English first."""
    names = [f.name for f in resources.files(__package__).joinpath("grammars").iterdir() if f.name.endswith(".yaml")]
    return tuple(sorted((name.removesuffix(".yaml") for name in names), key=lambda code: (code != "en", code)))


@cache
def grammar(code: str) -> Grammar:
    """A language's grammar. Raises RecipeError for one that has none."""
    subset("languages", [code], languages())
    text = resources.files(__package__).joinpath("grammars", f"{code}.yaml").read_text(encoding="utf-8")
    return Grammar(**yaml.safe_load(text))


def parallel(
    kind: str,
    count: int,
    seed: int = 0,
    *,
    chosen: Sequence[str] | None = None,
    people: int = 48,
    world: int = 0,
    worked: int = 3,
) -> tuple[list[Parallel], list[Parallel]]:
    """`count` questions and `worked` others to show before them, all different; every letter is right equally often.

    kind: "recall" asks for facts that the world's training text tells (of a world with these `people` and this seed),
    in words that it never uses; "reading" tells four facts of another world and asks for one; "sums" counts things.
    chosen: codes of languages; None for all.
    Raises RecipeError for an unknown kind or language, or where there are not so many questions.
    """
    subset("kinds", [kind], KINDS)
    codes = subset("languages", chosen, languages())
    require(is_whole(count, 1, 100_000), "count", count, "a whole number from 1")
    rng = random.Random(f"parallel/{kind}/{seed}")
    wanted = count + worked
    make = {"recall": _recall, "reading": _reading, "sums": _sums}[kind](rng, people, world, seed)
    letters = [i % len(LETTERS) for i in range(count)]
    rng.shuffle(letters)
    letters += [i % len(LETTERS) for i in range(worked)]
    found: dict[str, Parallel] = {}
    for _ in range(50 * wanted + 1000):
        if len(found) == wanted:
            break
        texts, right, wrong, truth = make(codes)
        if texts[codes[0]] in found:
            continue
        at = letters[len(found)]
        options = (*wrong[:at], right, *wrong[at:])
        found[texts[codes[0]]] = Parallel(f"world/{kind}/{seed}/{len(found)}", kind, options, at, texts, truth)
    require(len(found) == wanted, f"{kind}.count", count, f"at most about {len(found) - worked}, of so many people")
    items = list(found.values())
    return items[:count], items[count:]


Truth = dict[str, str | int]
Made = tuple[dict[str, str], str, list[str], Truth]
Maker = Callable[[Sequence[str]], Made]


def _recall(rng: random.Random, people: int, world: int, seed: int) -> Maker:
    facts = Facts(people, world)
    left = [fact for group in facts.facts.values() for fact in group]
    rng.shuffle(left)

    def make(codes: Sequence[str]) -> Made:
        fact = left.pop() if left else None
        require(fact is not None, "recall.count", "more than there are facts", "fewer, or more people")
        assert fact is not None
        texts = {code: _question(code, fact) for code in codes}
        return texts, fact.object, facts.distractors(fact, rng), _truth(fact)

    return make


def _reading(rng: random.Random, people: int, world: int, seed: int) -> Maker:
    facts = Facts(people, _ELSEWHERE + seed)
    by_relation: dict[str, list[Fact]] = {name: [] for name in RELATIONS}
    for group in facts.facts.values():
        for fact in group:
            by_relation[fact.relation].append(fact)

    def make(codes: Sequence[str]) -> Made:
        pool = by_relation[rng.choice(list(RELATIONS))]
        told: list[Fact] = []
        for fact in rng.sample(pool, len(pool)):  # four facts, of four different objects
            if len(told) < _TOLD and fact.object not in [other.object for other in told]:
                told.append(fact)
        require(len(told) == _TOLD, "reading.people", people, "more people, whose facts differ")
        asked = rng.choice(told)
        texts = {code: _passage(code, told) + "\n" + _question(code, asked) for code in codes}
        wrong = [fact.object for fact in told if fact is not asked]
        rng.shuffle(wrong)
        return texts, asked.object, wrong, _truth(asked)

    return make


def _sums(rng: random.Random, people: int, world: int, seed: int) -> Maker:
    nouns = list(grammar(languages()[0]).nouns)

    def make(codes: Sequence[str]) -> Made:
        who, noun = f"{invent(rng, 2)} {invent(rng, 3)}", rng.choice(nouns)
        a, b = rng.randint(1, _MOST), rng.randint(1, _MOST)
        c = rng.randint(1, a + b)
        right = a + b - c
        near = {right + step for step in (-10, -2, -1, 1, 2, 10)} | {a + b, a + c, abs(a - c)}
        wrong = rng.sample(sorted(n for n in near if n >= 0 and n != right), 3)
        texts = {code: _story(code, who, noun, a, b, c) for code in codes}
        return texts, str(right), [str(n) for n in wrong], {"s": who, "noun": noun, "a": a, "b": b, "c": c}

    return make


def _truth(fact: Fact) -> Truth:
    return {"relation": fact.relation, "s": fact.subject, "o": fact.object}


def _question(code: str, fact: Fact) -> str:
    return grammar(code).facts[fact.relation][1].format(s=fact.subject)


def _passage(code: str, facts: Sequence[Fact]) -> str:
    g = grammar(code)
    return g.joiner.join(g.facts[fact.relation][0].format(s=fact.subject, o=fact.object) for fact in facts)


def _story(code: str, who: str, noun: str, a: int, b: int, c: int) -> str:
    g = grammar(code)
    names = {"s": who, "s_genitive": GENITIVES[g.genitive](who), "ask": g.nouns[noun]["ask"]}
    counts = {"a": counted(code, noun, a, "has_"), "b": counted(code, noun, b), "c": counted(code, noun, c)}
    return g.joiner.join(sentence.format(**names, **counts) for sentence in (*g.story, g.ask))


def counted(code: str, noun: str, n: int, role: str = "") -> str:
    """`n` things, with the noun in the form that the number takes. role: "has_" where what is had takes another."""
    g = grammar(code)
    forms, category = g.nouns[noun], PLURALS[g.plural](n)
    form = forms.get(role + category, forms[category])
    return g.counted.format(n=n, noun=form, counter=forms.get("counter", ""))


def _slavic(n: int, one: bool) -> str:
    if one:
        return "one"
    return "few" if n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14) else "many"


# Source: Unicode CLDR, plural rules for whole numbers.
PLURALS: dict[str, Callable[[int], str]] = {
    "none": lambda n: "other",
    "one-other": lambda n: "one" if n == 1 else "other",
    "french": lambda n: "one" if n in (0, 1) else "other",
    "polish": lambda n: _slavic(n, n == 1),
    "russian": lambda n: _slavic(n, n % 10 == 1 and n % 100 != 11),
}


def turkish_genitive(name: str) -> str:
    """A name with its genitive ending: n after a vowel, and the vowel by harmony with the last one.

    turkish_genitive("Gozi") == "Gozi'nin"; turkish_genitive("Tebapan") == "Tebapan'ın".
    """
    harmony = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}
    last = next((letter for letter in reversed(name.lower()) if letter in harmony), "e")
    return f"{name}'{'n' if name[-1].lower() in harmony else ''}{harmony[last]}n"


GENITIVES: dict[str, Callable[[str], str]] = {"none": lambda name: name, "turkish": turkish_genitive}
