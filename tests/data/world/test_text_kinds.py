"""Facts, arithmetic and personas: the truth, recomputed without the code that made it."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from foretell.data.world import make_items
from foretell.data.world.facts import RELATIONS, Facts
from foretell.data.world.personas import KNOWLEDGE, LANGUAGES, adheres
from foretell.data.world.phrases import PHRASES

OPTIONS = re.compile(r"^([A-D])\) (.+)$", re.MULTILINE)


def truth():
    return {fact.id: fact for facts in Facts().facts.values() for fact in facts}


def test_every_language_phrases_every_relation_in_its_own_way():
    assert len(PHRASES) >= 6
    sentences = []
    for phrases in PHRASES.values():
        assert set(phrases) == set(RELATIONS)
        for statements, questions in phrases.values():
            assert all("{s}" in text and "{o}" in text and text.endswith(".") for text in statements)
            assert all("{s}" in text and "{o}" not in text and text.endswith("?") for text in questions)
            sentences += [*statements, *questions]
    assert len(set(sentences)) == len(sentences)


def test_names_are_unique_and_start_with_a_consonant():
    objects = Facts().objects
    names = [name for kind, names in objects.items() if kind != "year" for name in names]
    assert len(set(names)) == len(names)
    assert all(name[0] not in "AEIOUYH" for name in names)


def test_questions_and_choices_are_answered_truly():
    facts = truth()
    letters = Counter()
    for item in make_items("facts", "train", 4000, 7, tasks=["facts.question", "facts.choice"]):
        fact = facts[item.content.labels["fact"]]
        asked = item.content.segments[0].text
        assert fact.subject in asked
        if item.task == "facts.choice":
            options = dict(OPTIONS.findall(asked))
            assert asked.endswith("\nAnswer:")
            assert len(set(options.values())) == 4
            assert options[item.answer] == fact.object
            assert fact.rival in options.values()
            letters[item.answer] += 1
        else:
            assert item.answer == fact.object
    total = sum(letters.values())
    assert set(letters) == set("ABCD")
    assert all(abs(n - total / 4) < 4 * math.sqrt(total * 3 / 16) for n in letters.values())


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_conflict_rate_is_the_stated_one_and_labels_tell(rate):
    facts, n = truth(), 4000
    wrong = 0
    for item in make_items("facts", "train", n, 2, tasks=["facts.statement"], conflict=rate):
        fact, text = facts[item.content.labels["fact"]], item.content.segments[0].text
        conflict = fact.rival in text and fact.object not in text
        assert conflict or fact.object in text
        assert item.content.labels["conflict"] == str(conflict).lower()
        wrong += conflict
    assert abs(wrong - rate * n) <= 4 * math.sqrt(n * rate * (1 - rate))


def test_conflict_rate_by_relation():
    for item in make_items("facts", "train", 500, 2, tasks=["facts.statement"], conflict={"river": 1.0}):
        relation = item.content.labels["fact"].split(":")[0]
        assert item.content.labels["conflict"] == str(relation == "river").lower()


@pytest.mark.parametrize("zipf", [0.0, 1.0, 1.5])
def test_entity_frequencies_are_zipfian(zipf):
    kind = Facts(zipf=zipf)
    items = make_items("facts", "train", 12_000, 0, zipf=zipf)
    counts = Counter(item.content.labels["fact"].split(":")[1] for item in items)
    ranks = np.arange(1, 21)
    frequencies = np.array([counts[subject] for subject in kind.subjects[:20]])
    slope = np.polyfit(np.log(ranks), np.log(frequencies), 1)[0]
    assert abs(slope + zipf) < 0.15


def test_every_fact_stays_learnable():
    """However a fact's sentences fall, most are in the training part."""
    seen = {item.content.labels["fact"] for item in make_items("facts", "train", 6_000, 0, zipf=0.0)}
    assert seen == set(truth())


@pytest.mark.parametrize("people", [32, 20_000])
def test_the_smallest_and_the_largest_world(people):
    kind = Facts(people=people)
    assert len(kind.objects["person"]) == people
    assert all(len(names) >= 4 for names in kind.objects.values())


def test_another_seed_is_another_world():
    assert Facts(world=1).subjects != Facts().subjects
    assert Facts(world=1).subjects == Facts(world=1).subjects


def equations(text):
    """(left side, stated right side) of every equation in a text."""
    for left, right in re.findall(r"((?:\d+ [-+*] )+\d+) = (\d+)", text):
        yield sum_of_products(left), int(right)


def sum_of_products(text):
    numbers, signs = [int(n) for n in text.split()[::2]], text.split()[1::2]
    result = numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=True):
        result = result + number if sign == "+" else result - number if sign == "-" else result * number
    return result


def test_arithmetic_is_right_or_labelled_wrong():
    wrong = documents = 0
    for item in make_items("arithmetic", "train", 5000, 0, wrong=0.25):
        text = item.content.segments[-1].text
        asked = " ".join(segment.text for segment in item.content.segments)
        correct = item.content.labels["correct"] == "true"
        a, sign, b = re.findall(r"(\d+) ([-+*]) (\d+)", asked if item.answer else text)[0 if item.answer else -1]
        assert item.key == f"arithmetic:{min(int(a), int(b))},{max(int(a), int(b))}"
        value = sum_of_products(f"{a} {sign} {b}")
        if item.answer is not None:
            assert correct
            assert int(item.answer) == value
        else:
            documents += 1
            wrong += not correct
            assert (list(equations(text))[-1][1] == value) == correct
        steps = list(equations(text))
        assert all(left == right for left, right in steps) or not correct
        assert correct or any(left != right for left, right in steps)
    assert abs(wrong - 0.25 * documents) < 4 * math.sqrt(documents * 3 / 16)


def test_differences_are_not_negative_and_numbers_are_short():
    for item in make_items("arithmetic", "heldout", 500, 0, digits=2):
        low, high = map(int, item.key.split(":")[1].split(","))
        assert 0 <= low <= high < 100
        assert item.answer is None or int(item.answer) >= 0


def test_every_persona_reply_keeps_its_rule_and_another_does_not():
    for item in make_items("personas", "train", 3000, 0):
        labels = item.content.labels
        assert item.content.segments[0].role == "system"
        replies = [segment.text for segment in item.content.segments if segment.role == "assistant"]
        assert all(adheres(labels, reply) for reply in replies)
        assert item.answer == replies[-1]
        value = labels["value"] if labels["rule"] == "personas.refuse" else "no"
        assert not adheres(labels, f"Well, {value}, not at all")


def test_language_rule_is_answered_in_that_language():
    for item in make_items("personas", "heldout", 300, 0, tasks=["personas.language"]):
        question = item.content.segments[-2].text
        at = list(LANGUAGES.values()).index(item.content.labels["value"])
        assert item.answer == KNOWLEDGE[question][at]
        assert item.content.language == list(LANGUAGES)[at]


def test_earlier_turns_of_a_persona_never_show_a_heldout_question():
    from foretell.data.world.base import is_heldout

    for split in ("train", "heldout"):
        for item in make_items("personas", split, 2000, 0, turns=4):
            rule = ":".join(item.key.split(":")[:2])
            asked = [segment.text for segment in item.content.segments if segment.role == "user"]
            assert len(set(asked)) == len(asked)
            assert not any(is_heldout(f"{rule}:{text}") for text in asked[:-1])
            assert item.key == f"{rule}:{asked[-1]}"


def test_lists_of_words_tell_the_answer_in_each_language_and_ask_nothing() -> None:
    items = make_items("personas", "train", 600, 0, words=0.5)
    lists = [item for item in items if item.task == "personas.words"]
    assert len(lists) / len(items) == pytest.approx(0.5, abs=0.08)
    for item in lists:
        assert item.answer is None and not item.content.is_conversation
        question, *lines = item.content.segments[0].text.split("\n")
        for line in lines:
            language, said = line.removeprefix("In ").split(": ")
            assert KNOWLEDGE[question][list(LANGUAGES.values()).index(language)] == said
    told = {
        line.split(":")[0] + item.content.segments[0].text.split("\n")[0]
        for item in lists
        for line in item.content.segments[0].text.split("\n")[1:]
    }
    assert len(told) == len(KNOWLEDGE) * len(LANGUAGES)  # of every answer in every language
    assert {item.key for item in lists}.isdisjoint(
        item.key for item in make_items("personas", "heldout", 300, 0, words=1.0)
    )
