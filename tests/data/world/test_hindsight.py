"""Hindsight: verdicts by expected value, recomputed from the words; outcomes that mislead as often as is stated."""

import math
import re

import pytest

from foretell.data.world import make_items
from foretell.errors import RecipeError

BET = re.compile(r"(\d+) percent to (win|lose) (\d+)")


def read(item):
    """(right by expected value, won, the larger expectation over the smaller) from the text alone."""
    text = item.content.segments[0].text
    sides = {side: int(percent) * int(amount) for percent, side, amount in BET.findall(text)}
    percents = [int(percent) for percent, *_ in BET.findall(text)]
    assert sum(percents) == 100 and len(sides) == 2
    won = re.search(r"plays and (wins|loses) (\d+)", text)
    amounts = {side: amount for _, side, amount in BET.findall(text)}
    assert amounts["win" if won[1] == "wins" else "lose"] == won[2]
    return sides["win"] > sides["lose"], won[1] == "wins", max(sides.values()) / min(sides.values())


@pytest.mark.parametrize("lucky", [0.1, 0.5])
def test_verdicts_follow_the_expected_value_and_outcomes_mislead_as_often_as_stated(lucky):
    n, misled, yes = 4000, 0, 0
    for item in make_items("hindsight", "train", n, 0, lucky=lucky):
        right, won, ratio = read(item)
        assert item.task == ("hindsight.agree" if right == won else "hindsight.neglect")
        assert ratio >= 1.5
        if item.answer is None:
            told = re.search(r"(\d+) \* (\d+) = (\d+) ([<>]) (\d+) = (\d+) \* (\d+)", item.content.segments[0].text)
            a, b, ab, sign, cd, c, d = (part if part in "<>" else int(part) for part in told.groups())
            assert (a * b, c * d) == (ab, cd)
            assert right == (sign == ">") == item.content.segments[0].text.endswith("so it was right to play.")
        else:
            assert item.answer == ("yes" if right else "no")
        misled += right != won
        yes += right
    assert abs(misled - lucky * n) < 4 * math.sqrt(n * lucky * (1 - lucky))
    assert abs(yes - n / 2) < 4 * math.sqrt(n) / 2


def test_a_task_alone_is_all_luck_or_none_and_forms_are_kept():
    for task, misled in (("hindsight.neglect", True), ("hindsight.agree", False)):
        items = make_items("hindsight", "heldout", 200, 0, tasks=[task], forms=["question"])
        assert {item.task for item in items} == {task}
        assert all(item.answer and (read(item)[0] != read(item)[1]) == misled for item in items)


def test_a_held_out_bet_is_held_out_in_every_form_and_outcome():
    keys = {split: {item.key for item in make_items("hindsight", split, 3000, 0)} for split in ("train", "heldout")}
    assert not keys["train"] & keys["heldout"]
    for item in make_items("hindsight", "heldout", 100, 1):
        text = item.content.segments[0].text
        sides = {side: (percent, amount) for percent, side, amount in BET.findall(text)}
        assert item.key == f"hindsight:{sides['win'][0]},{sides['win'][1]},{sides['lose'][1]}"


@pytest.mark.parametrize(
    ("options", "named"),
    [({"lucky": 1.5}, "0 to 1"), ({"step": 0}, "1 to 20"), ({"margin": 1.0}, "above 1"), ({"forms": ["x"]}, "story")],
)
def test_a_bad_option_is_told_what_is_allowed(options, named):
    with pytest.raises(RecipeError, match=named):
        make_items("hindsight", "train", 1, 0, **options)
