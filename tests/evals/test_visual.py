"""The visual examination tells a model that looks from one that guesses."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO

import pytest
from PIL import Image

from foretell.chat import Conversation, Message, TextPart
from foretell.data.document import Document, Segment
from foretell.data.world.base import Item
from foretell.evals.visual import examine_visual, majority_answers, sample_texts
from foretell.generate import Request, Result

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
GREY = (128, 128, 128)


class Fake:
    """A Generator from a function of the conversation."""

    can_score = False

    def __init__(self, answer: Callable[[Conversation], str]) -> None:
        self.answer = answer
        self.seen: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        self.seen += requests
        for i, request in enumerate(requests):
            yield Result(self.answer(request.prompt), finish_reason="stop", request=i)

    async def score(self, prompt: Conversation, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


def picture(color: tuple[int, int, int], size: tuple[int, int] = (12, 8), form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, color).save(buffer, form)
    return buffer.getvalue()


def pixel(conversation: Conversation) -> tuple[int, int, int]:
    image = Image.open(BytesIO(conversation.images[-1].data))
    assert image.size == (12, 8)
    return image.convert("RGB").getpixel((3, 3))


def item(i: int, color: str, task: str = "color", earlier: bool = False, form: str = "PNG") -> Item:
    turns = [Segment(image=picture(COLORS[color], form=form), role="user")]
    if earlier:
        turns += [Segment(text="Hello.", role="user"), Segment(text="Hi.", role="assistant")]
    turns += [Segment(text="Which color?", role="user"), Segment(text=f"It is {color}.", role="assistant")]
    return Item(f"{task}{i}", task, Document(str(i), tuple(turns), "w", "CC0-1.0", kind="scene"), color)


def draw(n: int, seed: int = 0, task: str = "color") -> list[Item]:
    rng = random.Random(seed)
    return [item(i, rng.choices(list(COLORS), (3, 2, 2))[0], task) for i in range(n)]


def look(conversation: Conversation) -> str:
    names = {rgb: name for name, rgb in COLORS.items()}
    return f"It is {names.get(pixel(conversation), 'blue')}."


PRIOR = majority_answers(draw(300, seed=1))


def test_a_model_that_looks_is_above_every_control() -> None:
    (task,) = examine_visual(Fake(look), draw(60), PRIOR)["tasks"]
    assert task["task"] == "color" and task["kind"] == "scene" and task["questions"] == 60
    assert task["accuracy"] == 1 and task["low"] > 0.9 and task["high"] == 1
    assert 0.1 < task["shuffled"] < 0.6  # another picture may have the same truth
    assert 0.1 < task["blind"] < 0.5 and 0.3 < task["majority"] < 0.6
    assert task["above_blind"] == pytest.approx(1 - task["blind"])
    assert task["above_blind_low"] > 0 and task["above_majority_low"] > 0 and task["sees"]


@pytest.mark.parametrize("guess", ["red", "green", "hash"])
def test_a_model_that_never_looks_is_not_above_blind(guess: str) -> None:
    fake = Fake(lambda conversation: guess)
    (task,) = examine_visual(fake, draw(60), PRIOR)["tasks"]
    assert task["above_blind"] == 0 and task["accuracy"] == task["blind"] == task["shuffled"]
    assert task["above_blind_low"] < 0 < task["above_blind_high"] and not task["sees"]


def test_a_model_put_off_by_grey_but_no_better_than_the_majority_does_not_see() -> None:
    fake = Fake(lambda conversation: "nothing" if pixel(conversation) == GREY else "red")
    (task,) = examine_visual(fake, draw(60), PRIOR)["tasks"]
    assert task["above_blind_low"] > 0 and task["above_majority"] == 0 and not task["sees"]


def test_only_the_last_question_is_asked_greedily_in_one_go_and_equal_prompts_once() -> None:
    fake = Fake(look)
    examine_visual(fake, [item(i, "red", earlier=True) for i in range(5)], PRIOR, max_tokens=9)
    assert len(fake.seen) == 2  # the picture, also as the shuffled one, and the grey one
    for request in fake.seen:
        assert isinstance(request.prompt, Conversation)
        assert [m.role for m in request.prompt.messages] == ["user", "assistant", "user"]
        assert request.prompt.messages[-1].text == "Which color?"
        assert request.sampling.temperature == 0 and request.sampling.max_tokens == 9
    assert pixel(fake.seen[1].prompt) == GREY


def test_majority_knows_the_question_then_the_task() -> None:
    train = [item(0, "red"), item(1, "red"), item(2, "blue")]
    prior = majority_answers(train)
    assert prior == {("color", "Which color?"): "red", ("color", ""): "red"}
    (task,) = examine_visual(Fake(look), train, {("color", ""): "blue"})["tasks"]
    assert task["majority"] == pytest.approx(1 / 3)
    (task,) = examine_visual(Fake(look), train, {})["tasks"]
    assert task["majority"] == 0


def test_shown_is_balanced_over_tasks_by_index_and_holds_png() -> None:
    items = [*draw(20), *draw(3, 5, "shape"), *[item(i, "green", "jpeg", form="WEBP") for i in range(9)]]
    report = examine_visual(Fake(look), items, PRIOR)
    assert [s["task"] for s in report["shown"]] == ["color", "shape", "jpeg"] * 3 + ["color", "jpeg", "color"]
    assert [t["task"] for t in report["tasks"]] == ["color", "shape", "jpeg"]
    first = report["shown"][0]
    assert first["truth"] == items[0].answer and first["correct"] and first["question"] == "Which color?"
    for entry in report["shown"]:
        head, data = entry["image"].split(",")
        assert head == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
    json.dumps(report)


def test_what_is_no_visual_question_is_passed_over() -> None:
    text = Document("t", (Segment(text="q", role="user"), Segment(text="a", role="assistant")), "w", "CC0-1.0")
    plain = Document("p", (Segment(image=picture(GREY)), Segment(text="grey")), "w", "CC0-1.0")
    items = [Item("t", "t", text, "a"), Item("p", "p", plain, "grey"), Item("n", "n", item(0, "red").content)]
    assert examine_visual(Fake(look), items, {}) == {"tasks": [], "shown": []}
    (task,) = examine_visual(Fake(look), [*items, item(0, "red")], {})["tasks"]  # alone in its task: no stand-in
    assert task["questions"] == 1 and task["shuffled"] == task["blind"]


def test_samples_keep_their_prompts() -> None:
    ask = Conversation((Message("user", (TextPart("Name one."),)),))
    fake = Fake(lambda conversation: conversation.messages[-1].text.upper())
    assert sample_texts(fake, {"shown as": ask}, 7) == [{"prompt": "shown as", "text": "NAME ONE.", "chat": True}]
    assert fake.seen[0].sampling.max_tokens == 7 and fake.seen[0].sampling.seed == 0
