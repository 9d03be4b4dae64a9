"""Which pairs of players meet on which prompts, who stands on which side, and which judgements are assisted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from foretell.errors import EvalError


@dataclass(frozen=True)
class Battle:
    """Two players' replies to one prompt. id: its place in the schedule. a, b: players, a < b."""

    id: int
    prompt: int
    a: int
    b: int


def draw_battles(players: int, prompts: int, count: int | None, seed: int) -> list[Battle]:
    """A random schedule in which pairs, and prompts, occur equally often but for one.

    count: battles; None takes every pair on every prompt. Pairs and prompts are put in a random order and walked round
    together, a step aside after each full round, so that every beginning of the schedule is balanced, too.
    Raises EvalError for fewer than two players, no prompts, or more battles than there are.
    """
    pairs = list(combinations(range(players), 2))
    most = len(pairs) * prompts
    if not most:
        raise EvalError(f"{players} players and {prompts} prompts give no battle. Give two models and one prompt.")
    if count is not None and not 1 <= count <= most:
        raise EvalError(f"{count} battles are asked for; {players} players on {prompts} prompts allow 1 to {most}.")
    rng = random.Random(f"arena/{seed}")
    order = list(range(prompts))
    rng.shuffle(pairs)
    rng.shuffle(order)
    found: list[Battle] = []
    place, shift = 0, 0
    seen: set[tuple[int, int]] = set()
    while len(found) < (count or most):
        cell = order[place % prompts], (place + shift) % len(pairs)
        if cell in seen:  # a full round of both: the next one begins a pair further
            shift += 1
            continue
        seen.add(cell)
        found.append(Battle(len(found), cell[0], *pairs[cell[1]]))
        place += 1
    return found


def sides(battles: Sequence[Battle], judge: str, seed: int) -> dict[int, bool]:
    """By battle: whether player a stands on the left for this judge. Of each pair, half do, but for one."""
    rng = random.Random(f"sides/{seed}/{judge}")
    turns: dict[tuple[int, int], list[bool]] = {}
    found = {}
    for battle in battles:
        left = turns.setdefault((battle.a, battle.b), [])
        if not left:
            left += [True, False]
            rng.shuffle(left)
        found[battle.id] = left.pop()
    return found


def assisted(place: int, judge: str, seed: int) -> bool:
    """Whether the judgement at this place of a judge's sequence is assisted: one of every two in turn, at random."""
    first = random.Random(f"assist/{seed}/{judge}/{place // 2}").random() < 0.5
    return first == (place % 2 == 0)
