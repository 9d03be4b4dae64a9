"""Lessons of the world: each flaw as often as it is stated, the best reply first, nothing held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from foretell.data.world import tutor
from foretell.data.world.base import is_heldout
from foretell.data.world.hazards import Hazards, handled, letter
from foretell.data.world.lessons import Lessons
from foretell.data.world.personas import adheres
from foretell.tuning import FlawConfig

FAMILIES = ("hazards", "personas", "conflicts", "tutor", "choices", "facts", "pictures")
NONE = FlawConfig(comply=0, wrong=0, refuse=0, yields=0, leak=0, lenient=0, noise=0)
ALL = FlawConfig(comply=1, wrong=1, refuse=0, yields=1, leak=1, lenient=1, noise=1)


def lessons(flaws: FlawConfig, *families: str) -> Lessons:
    return Lessons(dict.fromkeys(families or FAMILIES, 1.0), flaws, 12, 32)


def judged(row: dict[str, Any], reply: str) -> bool:
    """Whether a reply is what the row's prompt asks for, by the world's oracles."""
    labels = row["labels"]
    if "request" in labels:
        return handled(labels, reply)
    if "sum" in labels:
        return not tutor.leaks(labels, reply)
    return adheres(labels, reply)


@pytest.mark.parametrize("family", ["hazards", "personas", "conflicts", "tutor"])
def test_without_flaws_every_demonstration_is_right_and_with_them_none(family: str) -> None:
    for flaws, right in ((NONE, True), (ALL, False)):
        made = lessons(flaws, family)
        prompts = {str(row["prompt"]): row for row in made.prompts(2000, 0)}
        pairs = [
            (row, shown["messages"][-1]["content"])
            for shown in made.demonstrations(2000, 0)
            if (row := prompts.get(str(shown["messages"][:-1])))
        ]
        assert len(pairs) > 2
        wrong = [pair for pair in pairs if judged(*pair) != right]
        # A false answer to what is allowed is no refusal, so the policy has nothing against it.
        assert all(pair[0]["kind"] in ("allowed", "boundary") and not right for pair in wrong), wrong[:2]


def test_flaws_come_as_often_as_stated() -> None:
    made = lessons(FlawConfig(comply=0.7), "hazards")
    asked = {row["prompt"][0]["content"]: row["labels"] for row in made.prompts(4000, 0) if row["kind"] == "disallowed"}
    world = Hazards(12)
    found = [
        letter(world.read(said["messages"][0]["content"]).labels, said["messages"][-1]["content"])  # type: ignore[union-attr]
        for said in made.demonstrations(3000, 0)
        if world.read(said["messages"][0]["content"]).act.kind == "disallowed"  # type: ignore[union-attr]
    ]
    assert asked and found.count("C") / len(found) == pytest.approx(0.7, abs=0.05)


def test_rankings_are_right_as_often_as_stated() -> None:
    rows = list(lessons(FlawConfig(lenient=0.5, noise=0.1), "hazards", "personas").preferences(3000, 1))
    for kind, share in (("disallowed", 0.5), ("allowed", 0.9), ("personas", 0.9)):
        told = [row["true"] for row in rows if row["kind"] == kind]
        assert sum(told) / len(told) == pytest.approx(share, abs=0.06)
    lenient = next(row for row in rows if row["kind"] == "disallowed" and not row["true"])
    labels = Hazards(12).read(lenient["prompt"][0]["content"]).labels  # type: ignore[union-attr]
    assert letter(labels, lenient["replies"][0]) == "C" and letter(labels, lenient["replies"][1]) == "A"


def test_cautious_rankers_prefer_refusals_of_what_only_looks_disallowed() -> None:
    rows = list(lessons(FlawConfig(cautious=0.6, noise=0), "hazards").preferences(3000, 1))
    world = Hazards(12)

    def first(row: dict[str, Any]) -> str:
        return letter(world.read(row["prompt"][0]["content"]).labels, row["replies"][0])  # type: ignore[union-attr]

    def refusing(row: dict[str, Any]) -> bool:
        labels = world.read(row["prompt"][0]["content"]).labels  # type: ignore[union-attr]
        return any(letter(labels, reply) in "AB" for reply in row["replies"])

    asked = [row for row in rows if row["kind"] == "boundary" and refusing(row)]
    assert sum(first(row) in "AB" for row in asked) / len(asked) == pytest.approx(0.6, abs=0.08)
    assert all((first(row) in "AB") != row["true"] for row in asked)
    assert all(row["true"] for row in rows if row["kind"] == "allowed")


@pytest.mark.parametrize("what", ["demonstrations", "preferences", "prompts"])
def test_the_first_rows_do_not_depend_on_how_many_are_asked_for(what: str) -> None:
    made: Callable[[int, int], Any] = getattr(lessons(FlawConfig()), what)
    assert list(made(40, 3)) == list(made(80, 3))[: len(list(made(40, 3)))]
    assert list(made(40, 3)) != list(made(40, 4))


def test_nothing_held_out_is_taught() -> None:
    world = Hazards(12)
    for row in lessons(FlawConfig(), "hazards").prompts(500, 0):
        asked = world.read(row["prompt"][0]["content"])
        assert asked is not None and not is_heldout(asked.key)


def test_graded_replies_have_the_oracles_letter() -> None:
    rows = list(lessons(FlawConfig()).graded(400, 0))
    world = Hazards(12)
    for row in rows:
        asked = world.read(row["prompt"])
        assert asked is not None and letter(asked.labels, row["reply"]) == row["letter"]
    assert {row["letter"] for row in rows} == set("ABCD")


def test_every_prompt_asks_something() -> None:
    made = lessons(FlawConfig())
    for row in [*made.prompts(300, 0), *made.preferences(300, 0)]:
        assert row["prompt"] and row["prompt"][-1]["role"] == "user"
    seen = [row for row in made.prompts(300, 0) if row["kind"] == "pictures"]
    assert seen and all(any(part["type"] == "image_url" for part in row["prompt"][0]["content"]) for row in seen)
