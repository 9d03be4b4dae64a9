"""What a model is asked when alignment is measured: held-out prompts of the world, each with what its oracle needs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from foretell.chat import Conversation, Message, TextPart
from foretell.data.world import make_kind
from foretell.data.world.hazards import Hazards, RequestKind
from foretell.data.world.redteam import ATTACKS, attack
from foretell.data.world.tutor import demands

Options = Mapping[str, Mapping[str, Any]]
_TRIES = 8  # draws for each prompt that is wanted, since equal ones are passed over


@dataclass(frozen=True)
class Probe:
    """One prompt. task: what a rate is reported under. key: what is held out; prompts of one key are not independent.

    labels: what the oracle of its kind has to know; "answer" is the truth, where there is one. then: what the user
    says after each reply.
    """

    task: str
    key: str
    prompt: Conversation
    labels: Mapping[str, str]
    then: tuple[str, ...] = field(default=())


def hazard_probes(n: int, seed: int, options: Options) -> list[Probe]:
    """n requests of each kind, all different; fewer where the world has no more."""
    world = _hazards(options)

    def make(kind: RequestKind, i: int) -> Probe:
        asked = world.request(random.Random(f"outcomes/{kind}/{seed}/{i}"), "heldout", kind)
        return Probe(f"hazards.{kind}", asked.key, _said(asked.text), asked.labels)

    kinds: tuple[RequestKind, ...] = get_args(RequestKind)
    return [probe for kind in kinds for probe in _distinct(n, partial(make, kind))]


def attack_probes(n: int, seed: int, options: Options) -> list[Probe]:
    """n disallowed requests under each attack (redteam.ATTACK), and their harmless rewrites in the same disguise
    (disguised.ATTACK)."""
    world = _hazards(options)

    def make(name: str, harmless: bool, i: int) -> Probe:
        rng = random.Random(f"outcomes/{name}/{seed}/{i}")
        asked = world.request(rng, "heldout", "disallowed")
        if harmless:
            asked = world.rewrite(asked, rng)
        made = attack(name, asked, random.Random(f"outcomes/{name}/disguise/{seed}/{i}"))
        return Probe(f"{'disguised' if harmless else 'redteam'}.{name}", asked.key, made.conversation, made.labels)

    return [
        probe for harmless in (False, True) for name in ATTACKS for probe in _distinct(n, partial(make, name, harmless))
    ]


def item_probes(kind: str, n: int, seed: int, **options: Any) -> list[Probe]:
    """n different held-out questions of a kind of the world; fewer where it has no more."""
    world = make_kind(kind, options)

    def make(i: int) -> Probe:
        item = world.make(random.Random(f"outcomes/{kind}/{seed}/{i}"), "heldout")
        asked = Conversation(item.content.conversation().messages[:-1])
        return Probe(item.task, item.key, asked, item.content.labels | {"answer": item.answer or ""})

    return _distinct(n, make)


def tutor_probes(n: int, seed: int, rounds: int) -> list[Probe]:
    """n sums for the tutor, and so many demands for the result to follow each."""
    return [
        Probe(p.task, p.key, p.prompt, p.labels, tuple(demands(random.Random(f"outcomes/demands/{seed}/{i}"), rounds)))
        for i, p in enumerate(item_probes("tutor", n, seed, turns=0))
    ]


def choice_probes(n: int, seed: int, options: Options, letters: bool = True) -> list[Probe]:
    """n A–D questions; about facts of the world that the options of `facts` describe, unless `choices` has its own.

    letters: False holds out questions that `facts` asks without choices, for they will be asked in the same words.
    """
    known = ("people", "world", "zipf", "languages")
    chosen = options.get("choices") or {key: v for key, v in options.get("facts", {}).items() if key in known}
    return item_probes("choices", n, seed, **{"like": "choice" if letters else "question", **chosen})


def _hazards(options: Options) -> Hazards:
    return Hazards(**{key: value for key, value in options.get("hazards", {}).items() if key in ("things", "world")})


def _said(text: str) -> Conversation:
    return Conversation((Message("user", (TextPart(text),)),))


def _distinct(n: int, make: Callable[[int], Probe]) -> list[Probe]:
    """The first n prompts that differ; the first m of them are the same for every n >= m."""
    found: dict[Conversation, Probe] = {}
    for i in range(_TRIES * n):
        if len(found) == n:
            break
        probe = make(i)
        found.setdefault(probe.prompt, probe)
    return list(found.values())
