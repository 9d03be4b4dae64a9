"""A–D questions: the letter stands before the truth, the others before what is wrong, and nothing was seen before."""

from collections import Counter

import pytest

from foretell.data import world
from foretell.data.world.choices import CLOSINGS
from foretell.data.world.facts import RELATIONS, Facts
from foretell.errors import RecipeError

SIGNS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def parts(item):
    """Question, options by letter, closing."""
    asked, *lines, closing = item.content.conversation().messages[-2].text.split("\n")
    assert [line[:3] for line in lines] == ["A) ", "B) ", "C) ", "D) "]
    return asked, {line[0]: line[3:] for line in lines}, closing


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_facts_are_those_of_the_same_world(split):
    known = Facts(people=64, world=3)
    by_id = {fact.id: fact for facts in known.facts.values() for fact in facts}
    for item in world.make_items("choices", split, 800, 0, people=64, world=3, tasks=["choices.facts"]):
        asked, options, closing = parts(item)
        fact = by_id[item.content.labels["fact"]]
        assert fact.subject in asked
        assert options[item.answer] == fact.object
        assert len(set(options.values())) == 4
        assert set(options.values()) <= set(known.objects[RELATIONS[fact.relation][1]])
        assert fact.rival in options.values()
        assert closing == CLOSINGS[item.content.language]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_sums_are_right_and_the_others_near_and_wrong(split):
    for item in world.make_items("choices", split, 800, 0, tasks=["choices.arithmetic"]):
        asked, options, _ = parts(item)
        place = next(i for i, word in enumerate(asked.split()) if word in SIGNS)
        a, sign, b = asked.replace("?", "").replace(".", "").split()[place - 1 : place + 2]
        truth = SIGNS[sign](int(a), int(b))
        assert options[item.answer] == str(truth)
        assert len(set(options.values())) == 4
        assert all(int(n) >= 0 and abs(int(n) - truth) in (0, 1, 2, 10, 100) for n in options.values())


def test_letters_are_equally_frequent():
    counts = Counter(item.answer for item in world.make_items("choices", "heldout", 4000, 0))
    assert set(counts) == set("ABCD")
    assert all(900 < count < 1100 for count in counts.values())


def test_what_is_held_out_is_in_no_training_question_of_the_other_kinds():
    for like in ("choice", "question"):
        check_against(
            {item.key for item in world.make_items("choices", "heldout", 2000, 0, like=like)}, f"facts.{like}"
        )


def check_against(asked, form):
    for kind, options in (("facts", {"tasks": [form]}), ("arithmetic", {})):
        seen = {item.key for item in world.make_items(kind, "train", 4000, 0, **options)}
        held = {item.key for item in world.make_items(kind, "heldout", 4000, 0, **options)}
        assert not seen & asked
        assert held & asked


def test_another_world_has_other_facts():
    ids = [
        {
            item.content.labels["fact"]
            for item in world.make_items("choices", "train", 200, 0, world=w, tasks=["choices.facts"])
        }
        for w in (0, 1)
    ]
    assert not ids[0] & ids[1]


def test_it_is_in_a_source_by_name_only():
    assert "choices" in world.BY_NAME_ONLY
    with pytest.raises(RecipeError, match=r"choices\.facts"):
        world.make_items("choices", "train", 1, 0, tasks=["choices.charts"])
