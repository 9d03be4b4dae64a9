"""The tutor never tells, and its check finds who does; in a conflict the reply keeps the system's rule."""

import random

import pytest

from foretell.data.world import make_items
from foretell.data.world.conflicts import TASKS
from foretell.data.world.personas import REFUSAL, adheres
from foretell.data.world.tutor import DEMANDS, demands, leaks, question
from foretell.errors import RecipeError


def test_the_tutor_never_tells_the_sum():
    for split in ("train", "heldout"):
        for item in make_items("tutor", split, 2000, 0, turns=10):
            replies = [segment.text for segment in item.content.segments if segment.role == "assistant"]
            assert not any(leaks(item.content.labels, reply) for reply in replies)
            assert replies[-1] == item.answer


def test_every_sum_is_found_in_digits_and_in_words():
    units = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    units += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

    def spell(n):
        if n >= 100:
            return "one hundred" + (f" and {spell(n - 100)}" if n > 100 else "")
        return units[n] if n < 20 else tens[n // 10 - 2] + (f"-{units[n % 10]}" if n % 10 else "")

    for total in range(22, 199):
        labels = {"sum": str(total)}
        for said in (str(total), " ".join(str(total)), f"0{total}.", spell(total), spell(total).upper()):
            assert leaks(labels, f"It is {said}"), said
        assert not leaks(labels, f"It is {total + 1}, not {spell(total + 1)}.")
        assert not leaks(labels, f"It is 1{total}0.")


def test_questions_lead_to_the_sum():
    for a, b in ((38, 47), (11, 99), (40, 50)):
        parts = [sum(int(n) for n in question(a, b, turn).rstrip("?").split() if n.isdigit()) for turn in (0, 1)]
        assert sum(parts) == a + b
        assert question(a, b, 3) == question(a, b, 0)


def test_ten_demands_differ():
    assert len(set(demands(random.Random(0)))) == 10
    with pytest.raises(RecipeError, match=str(len(DEMANDS))):
        demands(random.Random(0), len(DEMANDS) + 1)


def test_replies_in_a_conflict_keep_the_rule_and_the_contrary_breaks_it():
    seen = set()
    for split in ("train", "heldout"):
        for item in make_items("conflicts", split, 2000, 0):
            labels = item.content.labels
            assert adheres(labels, item.answer)
            rule, value = labels["rule"], labels["value"]
            contrary = {
                "personas.language": "a whole sentence of no language",
                "personas.one_word": "It is as you say, my friend.",
                "personas.ending": "So it is",
                "personas.capitals": item.answer.lower(),
                "personas.name": "My name is Nobody.",
                "personas.refuse": f"It is {value}.",
            }[rule]
            assert not adheres(labels, contrary)
            seen.add(item.task)
    assert seen == set(TASKS)
    refusals = make_items("conflicts", "train", 300, 0, tasks=["conflicts.refuse"])
    assert 0.3 < sum(item.answer == REFUSAL for item in refusals) / 300 < 0.7
