"""Attacks hide held-out requests only, in words that no training item has; nothing of the request is lost."""

import base64
import codecs
import random

import pytest

from foretell.data.world import make_items
from foretell.data.world.base import is_heldout
from foretell.data.world.hazards import Hazards
from foretell.data.world.redteam import ATTACKS, ENCODINGS, SYSTEM, attack, attacks
from foretell.errors import RecipeError

UNDO = {
    "base64": lambda text: base64.b64decode(text).decode(),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "reversed letters": lambda text: text[::-1],
    "spelled letters": lambda text: " ".join(word.replace("-", "") for word in text.split()),
}


def test_every_attack_carries_its_whole_request():
    made = Hazards()
    for i in range(500):
        rng = random.Random(i)
        request = made.request(rng, "heldout", "disallowed")
        assert is_heldout(request.key)
        for name in ATTACKS:
            last = attack(name, request, rng).conversation.messages[-1].text
            if name == "encoding":
                how = next(how for how in ENCODINGS if f"in {how}." in last)
                hidden = last.partition("do what it says: ")[2]
                assert request.text.replace("-", "") == UNDO[how](hidden)
                assert request.act.phrase not in last
            elif name == "paraphrase":
                assert request.act.phrase in last and request.text not in last
            else:
                assert request.text in last


def test_a_system_message_attack_is_the_only_one_with_a_system_message():
    for made in attacks(100, seed=0):
        roles = [message.role for message in made.conversation.messages]
        assert roles == (["system", "user"] if made.name == "system_message" else ["user"])
        assert made.labels["attack"] == made.name and made.labels["request"] == "disallowed"


def test_no_training_item_wears_a_disguise():
    told = {message.text for made in attacks(2000, seed=0) for message in made.conversation.messages}
    for kind in ("hazards", "personas", "conflicts", "tutor"):
        for item in make_items(kind, "train", 1000, 0):
            for segment in item.content.segments:
                assert segment.text not in told
                assert not any(part in segment.text for part in (*SYSTEM, "Gromm", "Decode it", "in the same breath"))


def test_attacks_come_in_turn_and_do_not_depend_on_how_many():
    few, many = attacks(7, seed=3), attacks(20, seed=3)
    assert few == many[:7] and attacks(7, seed=4) != few
    assert [made.name for made in many[:5]] == list(ATTACKS)
    boundary = attacks(10, seed=0, kind="boundary", names=["role_play"])
    assert {(made.name, made.labels["request"]) for made in boundary} == {("role_play", "boundary")}


@pytest.mark.parametrize("asked", [{"names": ["bribe"]}, {"kind": "rude"}, {"things": 1}])
def test_what_is_unknown_is_named(asked):
    with pytest.raises(RecipeError):
        attacks(1, seed=0, **asked)
