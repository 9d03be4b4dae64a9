"""What tests of arenas share: models that are functions, a judge that reads replies, people who are simulated."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretell.evals.arena import api
from foretell.evals.arena.folder import Arena, Asked, load
from foretell.evals.arena.people import People, Shown


def sums(count: int) -> list[Asked]:
    """Prompts whose truth is known."""
    return [
        Asked([{"role": "user", "content": f"What is {i} + {i}?"}], f"g{i}", str(2 * i), "sum", f"sums, line {i}")
        for i in range(count)
    ]


def adder(right: float, words: str = "It is", fixed: bool = False) -> Any:
    """A model that adds rightly so often. fixed: says the same of a prompt whatever the seed."""

    def adds(prompt: Any, seed: int = 0, **params: Any) -> str:
        number = int(re.findall(r"\d+", prompt[-1]["content"])[0])
        drawn = random.Random(f"{number}" if fixed else f"{seed}/{number}").random()
        return f"{words} {2 * number if drawn < right else 2 * number + 1}"

    adds.__name__ = f"adder-{right}-{words.replace(' ', '')}-{fixed}"
    return adds


def texts_of(prompt: Any) -> tuple[int, str, str]:
    """What a judge is shown: the number that is asked about, and both replies."""
    text = prompt[-1]["content"]
    number = int(re.findall(r"What is (\d+)", text)[0])
    found = re.findall(r"=== \w+ (?:first|second) reply\n(.*)\n", text)
    return number, found[0], found[1]


def honest(prompt: Any, **params: Any) -> str:
    """Prefers the reply that is right."""
    number, first, second = texts_of(prompt)
    right = [text.endswith(f" {2 * number}") for text in (first, second)]
    return "I added.\n" + ("TIE" if right[0] == right[1] else "FIRST" if right[0] else "SECOND")


def made(
    folder: Path, players: Mapping[str, Any], prompts: list[Asked], critic: Any = None, judge: Any = None, **args: Any
) -> Arena:
    """An arena with its replies, and critiques and judgements where they are asked for."""
    models = api.Models(4)
    arena = api.set_up(folder, players, prompts, models, **args)
    api.ask_replies(arena, list(players.values()), models)
    if critic is not None:
        api.ask_critiques(arena, critic, models)
    if judge is not None:
        api.ask_judge(load(folder), judge, models)
    return load(folder)


def simulate(
    arena: Arena, judges: int, alone: float, helped: float, seed: int = 0, most: int = 10**9, seconds: float = 10.0
) -> None:
    """People who name the right reply with these probabilities, without and with a critique beside; where neither or
    both are right they say what comes to mind. A judgement with a critique takes half as long again."""
    rng = random.Random(seed)
    with People(arena) as people:
        for j in range(judges):
            name = f"Judge {chr(65 + j)}"
            skill = rng.gauss(0, 0.05)  # people differ, and are compared with themselves
            for _ in range(most):
                shown = people.next(name)
                if shown is None:
                    break
                took = seconds * rng.lognormvariate(0, 0.3) * (1.5 if shown.assisted else 1)
                chance = (helped if shown.assisted else alone) + skill
                people.judge(name, shown.battle.id, _say(arena, shown, chance, rng), took)


def _say(arena: Arena, shown: Shown, chance: float, rng: random.Random) -> str:
    asked, said = arena.prompts[shown.battle.prompt], arena.replies[shown.battle.prompt]
    right = [said[player].endswith(f" {asked.answer}") for player in (shown.left, shown.right)]
    if right[0] == right[1]:
        return rng.choice("120")
    names_right = rng.random() < chance
    return "1" if right[0] == names_right else "2"
