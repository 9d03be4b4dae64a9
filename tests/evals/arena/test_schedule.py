"""Schedules: balanced from any beginning, drawn at random, the same for a seed."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.errors import EvalError
from foretell.evals.arena.schedule import assisted, draw_battles, sides


@given(st.integers(2, 6), st.integers(1, 12), st.integers(0, 3), st.data())
def test_every_beginning_is_balanced(players: int, prompts: int, seed: int, data: st.DataObject) -> None:
    pairs = list(combinations(range(players), 2))
    count = data.draw(st.integers(1, len(pairs) * prompts))
    found = draw_battles(players, prompts, count, seed)
    assert len({(b.prompt, b.a, b.b) for b in found}) == count == len(found)
    assert [b.id for b in found] == list(range(count)) and all(b.a < b.b for b in found)
    by_prompt = Counter(b.prompt for b in found)
    assert max(by_prompt.values()) - min(by_prompt[p] for p in range(prompts)) <= 1
    by_pair = Counter((b.a, b.b) for b in found)
    assert max(by_pair.values()) - min(by_pair[p] for p in pairs) <= 1


def test_all_battles_are_every_pair_on_every_prompt_in_an_order_by_seed() -> None:
    found = draw_battles(3, 4, None, 1)
    assert {(b.prompt, b.a, b.b) for b in found} == {(p, *pair) for p in range(4) for pair in combinations(range(3), 2)}
    assert draw_battles(3, 4, None, 1) == found != draw_battles(3, 4, None, 2)


@pytest.mark.parametrize(("players", "prompts", "count"), [(1, 4, None), (3, 0, None), (2, 4, 5), (2, 4, 0)])
def test_what_gives_no_battle_is_refused(players: int, prompts: int, count: int | None) -> None:
    with pytest.raises(EvalError):
        draw_battles(players, prompts, count, 0)


def test_each_player_of_a_pair_stands_left_in_half_of_the_battles() -> None:
    battles = draw_battles(4, 21, None, 0)
    left = sides(battles, "Ada", 0)
    for pair in combinations(range(4), 2):
        of = [left[b.id] for b in battles if (b.a, b.b) == pair]
        assert abs(2 * sum(of) - len(of)) <= 1
    assert sides(battles, "Ada", 0) == left != sides(battles, "Ben", 0)


def test_one_of_every_two_judgements_is_assisted_at_random() -> None:
    told = [assisted(place, "Ada", 0) for place in range(400)]
    assert all(told[i] != told[i + 1] for i in range(0, 400, 2))
    assert 60 < sum(told[::2]) < 140 and told != [assisted(place, "Ben", 0) for place in range(400)]
