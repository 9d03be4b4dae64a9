"""The package as a whole: splits, determinism, options, numbering."""

import dataclasses
import random
from io import BytesIO

import pytest
from PIL import Image

from foretell.data import world
from foretell.data.world.base import HELDOUT_SHARE, draw, final_answer, is_heldout, is_right
from foretell.errors import RecipeError
from foretell.recipe import WorldSource

SIDE = {"papers": 192, "screens": 192, "unusual": 96, "panels": 96, "diagrams": 96}  # 64 for others
SEVERAL = ("unusual.twin", "panels.later")  # tasks with two pictures
COUNT = {
    **{"facts": 4000, "arithmetic": 4000, "scenes": 800, "charts": 100, "reading": 500, "personas": 3000},
    **{"programs": 1000, "hindsight": 1000, "hazards": 2000, "tutor": 1500, "conflicts": 3000, "choices": 2000},
    **{"papers": 300, "screens": 300, "unusual": 300, "panels": 300, "diagrams": 300, "stacks": 1500},
}


@pytest.fixture(scope="module")
def items():
    return {
        (kind, split): world.make_items(kind, split, COUNT[kind], seed=1)
        for kind in world.KINDS
        for split in ("train", "heldout")
    }


@pytest.mark.parametrize("kind", list(world.KINDS))
def test_train_and_heldout_keys_never_meet(items, kind):
    train, heldout = ({item.key for item in items[kind, split]} for split in ("train", "heldout"))
    assert not train & heldout
    assert len(heldout) >= 40
    assert all(is_heldout(key) for key in heldout)


@pytest.mark.parametrize("kind", list(world.KINDS))
def test_every_task_of_both_splits_is_named_after_its_kind_and_answers_rightly(items, kind):
    tasks = [{item.task for item in items[kind, split]} for split in ("train", "heldout")]
    assert tasks[0] == tasks[1]
    assert all(task.split(".")[0] == kind for task in tasks[0])
    for item in items[kind, "train"] + items[kind, "heldout"]:
        document = item.content
        assert document.kind == item.task
        assert document.source == "foretell.world"
        assert (item.answer is not None) == document.is_conversation
        if item.answer is not None:
            last = document.segments[-1]
            assert last.role == "assistant"
            assert is_right(last.text, item.answer)
            assert not item.choices or item.answer in item.choices
            assert document.conversation().messages[-2].role == "user"


@pytest.mark.parametrize("kind", list(world.KINDS))
def test_exactly_the_visual_kinds_hold_pngs_of_the_asked_side(items, kind):
    side = SIDE.get(kind, 64)
    for item in items[kind, "train"][:100]:
        images = [segment.image for segment in item.content.segments if segment.image is not None]
        assert len(images) == world.make_kind(kind).visual * (2 if item.task in SEVERAL else 1)
        for data in images:
            with Image.open(BytesIO(data)) as image:
                image.load()
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))


@pytest.mark.parametrize("kind", ["scenes", "charts", "reading", "unusual", "panels", "diagrams"])
def test_side_is_the_side_of_the_image(kind):
    for side in (96, 256):
        for item in world.make_items(kind, "heldout", 6, seed=0, side=side):
            data = next(segment.image for segment in item.content.segments if segment.image is not None)
            assert Image.open(BytesIO(data)).size == (side, side)


def test_item_i_does_not_depend_on_how_many_are_asked_for():
    few, many = (WorldSource(documents=n, heldout_documents=n) for n in (20, 60))
    for split in ("train", "heldout"):
        a, b = list(world.generate(few, split, seed=3)), list(world.generate(many, split, seed=3))
        assert (len(a), len(b)) == (20, 60)
        assert a == b[:20]
        assert len({item.content.id for item in b}) == 60
    assert list(world.generate(few, "train", 4)) != list(world.generate(few, "train", 3))


def test_shares_are_kept():
    source = WorldSource(documents=3000, kinds={"facts": 3, "arithmetic": 1})
    made = [item.task.split(".")[0] for item in world.generate(source, "train", 0)]
    assert set(made) == {"facts", "arithmetic"}
    assert 0.71 < made.count("facts") / len(made) < 0.79


def test_two_sources_do_not_repeat_one_another():
    a, b = (WorldSource(name=name, documents=50, kinds={"arithmetic": 1}) for name in "ab")
    ids = {item.content.id for source in (a, b) for item in world.generate(source, "train", 0)}
    assert len(ids) == 100
    assert [i.key for i in world.generate(a, "train", 0)] != [i.key for i in world.generate(b, "train", 0)]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"kinds": {"sceens": 1}}, "scenes"),
        ({"kinds": {"scenes": 1}, "options": {"scenes": {"sides": 64}}}, "side, most"),
        ({"kinds": {"scenes": 1}, "options": {"charts": {"side": 64}}}, "charts"),
        ({"options": {"scenes": {"side": "64"}}}, "32 to 2048"),
        ({"options": {"scenes": {"tasks": ["scenes.colour"]}}}, "scenes.color"),
        ({"options": {"scenes": {"tasks": []}}}, "scenes.color"),
        ({"options": {"scenes": {"tasks": 3}}}, "scenes.color"),
        ({"options": {"facts": {"conflict": 1.5}}}, "from 0 to 1"),
        ({"options": {"facts": {"languages": ["xx"]}}}, "en, de"),
        ({"options": {"arithmetic": {"digits": True}}}, "1, 2 or 3"),
    ],
)
def test_a_bad_recipe_is_told_what_is_allowed(source, named):
    with pytest.raises(RecipeError, match=named):
        world.generate(WorldSource(**source), "train", 0)


def test_too_few_keys_is_an_error_and_not_an_endless_loop():
    key = next(str(n) for n in range(1000) if not is_heldout(str(n)))
    with pytest.raises(RecipeError, match="Widen"):
        draw(random.Random(0), "heldout", lambda rng: key, str)


def test_heldout_share():
    share = sum(is_heldout(f"key {n}") for n in range(20_000)) / 20_000
    assert abs(share * HELDOUT_SHARE - 1) < 0.1


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Red is 3, blue is 4, so 3 + 4 = 7.", "7"),
        ("So 5 - 2 = 3.", "3"),
        ("The answer is: Żółty!", "żółty"),
        ("It is 2.5.", "2.5"),
        ("minus: -4", "-4"),
        ("...", ""),
    ],
)
def test_final_answer(reply, answer):
    assert final_answer(reply) == answer


def test_is_right_needs_the_whole_answer():
    assert is_right(" RED. ", "red")
    assert is_right("apo zin", "apo zin")
    assert not is_right("zin", "apo zin")
    assert not is_right("17", "7")
    assert not is_right("", "7")


def test_items_are_values():
    item = world.make_items("facts", "train", 1, 0)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.task = "other"
