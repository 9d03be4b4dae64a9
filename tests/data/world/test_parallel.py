"""Questions in several languages: the same truth and gold in each, and right forms of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from foretell.data.world.facts import RELATIONS, Facts
from foretell.data.world.parallel import (
    KINDS,
    PLURALS,
    Parallel,
    counted,
    grammar,
    languages,
    parallel,
    turkish_genitive,
)
from foretell.data.world.phrases import PHRASES
from foretell.errors import RecipeError

COUNT = 40


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> tuple[list[Parallel], list[Parallel]]:
    return parallel(request.param, COUNT, seed=3)


def pattern(template: str) -> re.Pattern[str]:
    """What finds a sentence's subject and object again."""
    plain = re.escape(template).replace(re.escape("{s}"), "(?P<s>[A-Z][a-z]+(?: [A-Z][a-z]+)?)")
    return re.compile(plain.replace(re.escape("{o}"), "(?P<o>[A-Z][a-z]+|[0-9]{4})"))


def test_there_are_more_languages_than_six_with_every_sentence() -> None:
    assert len(languages()) >= 6 and languages()[0] == "en" and set(PHRASES) <= set(languages())
    nouns = set(grammar("en").nouns)
    for code in languages():
        g = grammar(code)
        assert set(g.facts) == set(RELATIONS) and set(g.nouns) == nouns and len(g.story) == 3
        categories = {PLURALS[g.plural](n) for n in range(200)}
        for forms in g.nouns.values():
            assert categories <= set(forms) and forms["ask"]
        for statement, question in g.facts.values():
            assert statement.count("{s}") == statement.count("{o}") == question.count("{s}") == 1
            assert "{o}" not in question


def test_no_question_is_worded_as_in_training() -> None:
    for code, phrases in PHRASES.items():
        for relation, (_, questions) in phrases.items():
            assert grammar(code).facts[relation][1] not in questions


def test_a_truth_has_the_same_gold_in_every_language(made: tuple[list[Parallel], list[Parallel]]) -> None:
    """Read back by each language's own grammar: text and question tell of the same people, things and numbers, and the
    option that they make right is the gold."""
    for item in [*made[0], *made[1]]:
        assert set(item.texts) == set(languages()) and len(set(item.options)) == 4
        for code, text in item.texts.items():
            assert solve(item, code, text) == item.options[item.gold], (code, text)


def solve(item: Parallel, code: str, text: str) -> str:
    """The answer, by nothing but the text and the grammar (of facts to recall, by the world)."""
    g = grammar(code)
    if item.kind == "sums":
        a, b, c = map(int, re.findall(r"\d+", text))
        return str(a + b - c)
    told, _, asked = text.rpartition("\n")
    found = [(relation, m["s"]) for relation in RELATIONS if (m := pattern(g.facts[relation][1]).fullmatch(asked))]
    assert len(found) == 1
    relation, subject = found[0]
    if item.kind == "recall":
        world = Facts(48, 0).facts
        return next(fact.object for fact in world[subject] if fact.relation == relation)
    statements = list(pattern(g.facts[relation][0]).finditer(told))
    assert len(statements) == 4 and sorted(m["o"] for m in statements) == sorted(item.options)
    return next(m["o"] for m in statements if m["s"] == subject)


def test_letters_are_right_equally_often_and_shots_are_others(made: tuple[list[Parallel], list[Parallel]]) -> None:
    asked, worked = made
    assert Counter(item.gold for item in asked) == {i: COUNT // 4 for i in range(4)}
    texts = [item.texts["en"] for item in (*asked, *worked)]
    assert len(worked) == 3 and len(set(texts)) == len(texts) == len({item.id for item in (*asked, *worked)})


def test_questions_do_not_depend_on_which_languages_are_wanted() -> None:
    few, _ = parallel("reading", 5, seed=3, chosen=["pl", "ja"])
    every, _ = parallel("reading", 5, seed=3)
    assert [(i.options, i.gold, i.texts["ja"]) for i in few] == [(i.options, i.gold, i.texts["ja"]) for i in every]


def test_texts_to_read_are_of_no_world_that_training_tells() -> None:
    names = {s for facts in (Facts(48, 0),) for s in facts.facts}
    asked, _ = parallel("reading", 60)
    assert sum(str(item.truth["s"]) in names for item in asked) <= 1  # a short name may fall together


@pytest.mark.parametrize(
    ("code", "noun", "forms"),
    [
        ("en", "knife", {1: "1 knife", 2: "2 knives"}),
        ("de", "apple", {1: "1 Apfel", 21: "21 Äpfel"}),
        ("fr", "knife", {1: "1 couteau", 2: "2 couteaux"}),
        ("es", "key", {1: "1 llave", 5: "5 llaves"}),
        ("it", "orange", {1: "1 arancia", 3: "3 arance"}),
        ("pl", "book", {1: "1 książkę", 2: "2 książki", 5: "5 książek", 12: "12 książek", 21: "21 książek",
                        22: "22 książki"}),
        ("ru", "book", {1: "1 книгу", 3: "3 книги", 5: "5 книг", 11: "11 книг", 21: "21 книгу",
                        24: "24 книги"}),
        ("tr", "book", {1: "1 kitap", 9: "9 kitap"}),
        ("zh", "book", {3: "3本书"}),
        ("ja", "key", {3: "鍵を3本"}),
        ("id", "ball", {7: "7 bola"}),
    ],
)  # fmt: skip
def test_a_number_gives_the_noun_its_form(code: str, noun: str, forms: dict[int, str]) -> None:
    assert {n: counted(code, noun, n) for n in forms} == forms


def test_what_is_had_takes_another_form_where_the_language_asks_for_it() -> None:
    assert counted("ru", "book", 1, "has_") == "1 книга" and counted("ru", "book", 2, "has_") == "2 книги"
    assert counted("tr", "knife", 4, "has_") == "4 bıçağı" and counted("en", "knife", 4, "has_") == "4 knives"


@pytest.mark.parametrize(
    ("name", "genitive"),
    [("Gozi", "Gozi'nin"), ("Tebapan", "Tebapan'ın"), ("Kozar", "Kozar'ın"), ("Rufo", "Rufo'nun"),
     ("Zupul", "Zupul'un"),
     ("Mesel", "Mesel'in")],
)  # fmt: skip
def test_turkish_endings_follow_the_last_vowel(name: str, genitive: str) -> None:
    assert turkish_genitive(name) == genitive


@pytest.mark.parametrize(
    ("rule", "ones", "fews"),
    [
        ("one-other", [1], []),
        ("french", [0, 1], []),
        ("polish", [1], [2, 3, 4, 22, 23, 24, 32, 33, 34, 102, 103, 104]),
        ("russian", [1, 21, 31, 101], [2, 3, 4, 22, 23, 24, 32, 33, 34, 102, 103, 104]),
    ],
)
def test_plural_rules_are_those_of_cldr(rule: str, ones: Sequence[int], fews: Sequence[int]) -> None:
    upto = (*range(35), *range(100, 115))
    assert [n for n in upto if PLURALS[rule](n) == "one"] == ones
    assert [n for n in upto if PLURALS[rule](n) == "few"] == fews


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match=r"languages is \['xx'\]; allowed is one or more of en, de"):
        parallel("sums", 4, chosen=["xx"])
    with pytest.raises(RecipeError, match=r"kinds is \['riddles'\]"):
        parallel("riddles", 4)
    with pytest.raises(RecipeError, match="fewer, or more people"):
        parallel("recall", 5000)
