"""People's judgements: kept, taken back, gone on with, shared out, and checked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from arenakit import adder, made, simulate, sums

from foretell.errors import EvalError
from foretell.evals.arena.folder import Arena
from foretell.evals.arena.people import SHARED, People, check_judge, read_people


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return made(tmp_path / "a", {"a": adder(0.7), "b": adder(0.4, "I say")}, sums(24), lambda prompt, **p: "Check it.")


def test_a_verdict_is_kept_with_who_stood_where_and_a_second_press_is_not(arena: Arena) -> None:
    with People(arena) as people:
        shown = people.next("Ada")
        assert shown is not None and {shown.left, shown.right} == {0, 1}
        assert people.next("Ada") == shown  # a page that is loaded again
        assert people.judge("Ada", shown.battle.id, "1", 3.5)
        assert not people.judge("Ada", shown.battle.id, "2", 1.0)
        assert not people.judge("Ada", 10**6, "2", 1.0) and people.done("Ada") == 1
        with pytest.raises(EvalError, match="expected 1"):
            people.judge("Ada", shown.battle.id, "3", 1.0)
    (kept,) = read_people(arena)
    assert (kept.judge, kept.battle, kept.seconds) == ("Ada", shown.battle.id, 3.5)
    assert kept.score == float(shown.left == shown.battle.a) and kept.assisted == shown.assisted


def test_a_closed_page_and_a_new_server_go_on_where_it_was(arena: Arena) -> None:
    with People(arena) as people:
        first = people.next("Ada")
        assert first is not None
        people.judge("Ada", first.battle.id, "0", 1)
        second = people.next("Ada")
    with (arena.folder / "people.jsonl").open("ab") as stream:
        stream.write(b'{"verdict": "le')  # cut off while it was written
    with People(arena) as people:
        assert people.next("Ada") == second and people.done("Ada") == 1
        assert people.judge("Ada", second.battle.id, "0", 1)
    assert len(read_people(arena)) == 2


def test_the_last_verdict_can_be_taken_back_and_comes_again(arena: Arena) -> None:
    with People(arena) as people:
        assert not people.undo("Ada")
        first = people.next("Ada")
        people.judge("Ada", first.battle.id, "1", 1)
        second = people.next("Ada")
        people.judge("Ada", second.battle.id, "1", 1)
        third = people.next("Ada")
        assert people.undo("Ada") and people.next("Ada") == second
        people.judge("Ada", second.battle.id, "2", 1)
        assert people.next("Ada") == third
    with People(arena) as people:  # the same from the file
        assert people.next("Ada") == third and people.done("Ada") == 2
    assert [one.battle for one in read_people(arena)] == [first.battle.id, second.battle.id]


def test_every_so_manieth_battle_is_shared_and_the_others_are_spread(arena: Arena) -> None:
    simulate(arena, 3, 0.8, 0.8, most=8)
    times = Counter(one.battle for one in read_people(arena))
    shared = [battle for battle, count in times.items() if count == 3]
    assert len(shared) >= 8 // SHARED and len(times) == 8 * 3 - 2 * len(shared)


def test_half_of_a_person_s_battles_are_assisted_and_sides_are_even(arena: Arena) -> None:
    simulate(arena, 2, 0.8, 0.8)
    said = read_people(arena)
    for judge in ("Judge A", "Judge B"):
        own = [one for one in said if one.judge == judge]
        assert len(own) == len(arena.open) and abs(2 * sum(one.assisted for one in own) - len(own)) <= 1
        left = Counter(one.left for one in own)
        assert abs(left[0] - left[1]) <= 1 + len(arena.battles) - len(arena.open)


def test_without_critiques_nothing_is_assisted(tmp_path: Path) -> None:
    arena = made(tmp_path, {"a": adder(0.7), "b": adder(0.4, "I say")}, sums(6))
    simulate(arena, 1, 0.8, 0.8)
    assert not any(one.assisted for one in read_people(arena))


def test_two_servers_at_once_are_refused(arena: Arena) -> None:
    with People(arena), pytest.raises(EvalError, match="open in another process"):
        People(arena)


@pytest.mark.parametrize(
    "line",
    ["not json", '{"verdict": "left", "battle": 99999, "judge": "Ada", "left": 0, "right": 1}', '{"judge": "Ada"}',
     '{"verdict": "left", "battle": 0, "judge": "Ada", "left": 0, "right": 5, "assisted": false, "seconds": 1}'],
)  # fmt: skip
def test_a_damaged_line_is_named(arena: Arena, line: str) -> None:
    simulate(arena, 1, 0.8, 0.8, most=2)
    with (arena.folder / "people.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(EvalError, match=r"people\.jsonl, line 5"):
        People(arena)
    assert json.loads((arena.folder / "people.jsonl").read_text().splitlines()[0])["judge"] == "Judge A"


def test_names_of_people() -> None:
    assert check_judge("  Ada  Lovelace ") == "Ada Lovelace" and check_judge("Zoë") == "Zoë"
    for bad in ("", " ", "<b>", "a/b", "x" * 41, "-a", "a\nb\x00"):
        with pytest.raises(EvalError, match="name has"):
            check_judge(bad)
