"""The tiers file: what it may say, and what is told of one that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.errors import RecipeError
from foretell.serve.accounts.account import DEFAULT_TIER
from foretell.serve.limits.tiers import Cap, Quota, load_tiers


def test_the_packaged_file() -> None:
    tiers = load_tiers()
    assert DEFAULT_TIER in tiers.tiers
    plus = tiers.tiers["plus"].caps[0]
    assert (plus.messages, plus.window, plus.span, plus.floor) == (50, 3 * 3_600_000, "3 hours", 25)
    standard = tiers.tiers["standard"]
    assert (standard.requests_per_minute, standard.tokens_per_minute) == (200, 40_000)
    assert tiers.price("any") is tiers.prices["*"] and tiers.tiers["unlimited"].budget is None


GOOD = "prices: {'*': {prompt: 1, completion: 2}}\ntiers: {t: {%s}}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD % "request_per_minute: 3", "did you mean 'requests_per_minute'"),
        (GOOD % "requests_per_minute: 0", "tiers.t.requests_per_minute is 0; allowed: 1 or more"),
        (GOOD % "requests_per_minute: '3'", "tiers.t.requests_per_minute is '3'; allowed: a whole number"),
        (GOOD % "requests_per_minute: 3.0", "tiers.t.requests_per_minute is 3.0"),
        (GOOD % "images: 'no'", "tiers.t.images is 'no'"),
        (GOOD % "budget: -1", "tiers.t.budget is -1"),
        (GOOD % "budget: 0.0000001", "more than 6 decimals"),
        (GOOD % "budget: .nan", "tiers.t.budget"),
        (GOOD % "caps: [{messages: 5, every: 3 hours}]", "'3 hours' is no span of time; allowed are such as 30s"),
        (GOOD % "caps: [{messages: 5, every: 3h, floor: 6}]", "floor 6 is above messages 5"),
        (GOOD % "caps: [{messages: 5, every: 3h, models: []}]", "models"),
        (
            GOOD % "caps: [{messages: 5, every: 3h, models: [a, b]}, {messages: 6, every: 3h, models: [b, a]}]",
            "two caps have the same span and models",
        ),
        (GOOD % "" + "more: 1\n", "unknown key more"),
        ("prices: {large: {prompt: 1, completion: 2}}\ntiers: {t: {}}\n", 'prices has no "\\*"'),
        ("prices: {'*': {prompt: 1}}\ntiers: {t: {}}\n", "completion is missing"),
        ("prices: {'*': {prompt: 1, completion: 2}}\ntiers: {}\n", "tiers is {}"),
        ("- a list\n", "must be a mapping with the keys prices, images, tiers"),
        ("tiers: {t: {}\n", "not valid YAML at line"),
        ("tiers: {t: {}, t: {}}\n", "key 't' stands twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "tiers.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=told):
        load_tiers(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_tiers(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_tiers(tmp_path / "binary")


def test_an_adaptive_cap_goes_from_its_ceiling_to_its_floor() -> None:
    cap = Cap(messages=50, every="3h", floor=25)
    assert [cap.at(load) for load in (-1.0, 0.0, 0.5, 0.98, 1.0, 9.0)] == [50, 50, 38, 26, 25, 25]
    assert Cap(messages=50, every="3h").at(1.0) == 50


def test_a_cap_keeps_its_count_under_other_numbers() -> None:
    one, other = Cap(messages=50, every="3h", models=("a", "b")), Cap(messages=9, every="3h", models=("b", "a", "b"))
    assert one.id == other.id and one.covers("a") and not one.covers("c")
    assert Quota(messages=1).covers("anything")
