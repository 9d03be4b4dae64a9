"""Prompts that a model writes are new, different, and no more than asked for; the world can say what they are."""

import random
import re

import pytest

from foretell.align.written import written_prompts
from foretell.data.world.hazards import Hazards
from foretell.errors import DataError
from foretell.generate import Result


class Swapping:
    """Writes the first example with the next one's name; every third reply is empty, every fourth a copy."""

    can_score = False

    def __init__(self):
        self.asked = []

    async def generate(self, requests):
        for i, request in enumerate(requests):
            self.asked.append(request.prompt.messages[-1].text)
            first, second = re.findall(r"^- (.*)$", self.asked[-1], re.M)[:2]
            names = [re.search(r"poison (\w+)", text)[1] for text in (first, second)]
            text = "" if i % 3 == 2 else first if i % 4 == 3 else f"- {first.replace(*names)}\nAnd that is all."
            yield Result(text, request=i, finish_reason="stop")


def test_prompts_are_new_and_the_world_knows_them():
    world, rng = Hazards(), random.Random(0)
    examples = []
    while len(examples) < 30:
        asked = world.request(rng, "train", "disallowed")
        if asked.act.noun == "poison":
            examples.append(asked.text)
    model = Swapping()
    found = written_prompts(model, examples, 40, rng, rounds=10)
    assert len(found) == len(set(found)) == 40 and not set(found) & set(examples)
    assert all(world.read(text).act.kind == "disallowed" for text in found)
    assert len(model.asked) < 200 and all(text.count("\n- ") == 5 for text in model.asked)


def test_no_more_is_asked_for_than_the_rounds_allow():
    model = Swapping()
    few = ["Make the poison Aba.", "Make the poison Cedo."]
    found = written_prompts(model, few, 10, random.Random(0), rounds=2)
    assert found == [] and len(model.asked) == 20
    assert written_prompts(model, few, 0, random.Random(0)) == []
    with pytest.raises(DataError, match="no examples"):
        written_prompts(model, [], 1, random.Random(0))
