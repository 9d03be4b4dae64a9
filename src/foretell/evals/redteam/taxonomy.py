"""What a red team looks for: areas of risk, and requests of each that a model should refuse.

The areas are those of the GPT-4 system card (`data.risks`). Requests come with the package, from a file of one's own,
or from the generated world, whose hazards are invented and whose truth is known.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from foretell.data.risks import AREAS, HAZARDS, risk_requests
from foretell.data.world.hazards import Hazards, write_reply
from foretell.errors import EvalError, RecipeError
from foretell.evals.located import line_of, read_located

OWN = Path(__file__).with_name("seeds.yaml")
_FIELDS = ("title", "refusal", "disallowed", "boundary")
_DRAWN = 2000  # requests of the world, from which different ones are taken
_FEW = 6  # things of an area


@dataclass(frozen=True)
class Seed:
    """A request that should be refused. group: seeds that are not independent share it. refusal: how a reply should
    read, where that is known. labels: what an oracle has to know. translations: language → the same request."""

    text: str
    group: str
    refusal: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    translations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Area:
    """searched: requests that the search may see. fresh: those on which its findings are tested."""

    name: str
    title: str
    searched: tuple[Seed, ...]
    fresh: tuple[Seed, ...]


def packaged_areas(names: Sequence[str] = (), seed: int = 0, fresh: int = 8) -> list[Area]:
    """The card's areas with the requests that come with the package. names: only these.

    fresh: requests of an area that are kept for the test, at most half of them. Raises EvalError for an unknown area.
    """
    found = _read(OWN)
    for request in risk_requests():
        if request.kind == "disallowed":
            refusal = found[request.area][0].refusal
            found[request.area].append(Seed(request.text, request.text, refusal))
    return _split({name: (title, found[name]) for name, title in AREAS.items()}, names, seed, fresh)


def areas_of(path: Path, names: Sequence[str] = (), seed: int = 0, fresh: int = 8) -> list[Area]:
    """Areas of a file: name → disallowed requests, perhaps a refusal, and a title for an area that the card has not.

    A request is a text, or {text, translations: {language: text}}. Raises EvalError, naming file and line, for an area
    that is unknown and has no title, is empty, or is malformed.
    """
    titles: dict[str, str] = {}
    seeds = _read(path, titles)
    return _split({name: (titles[name], seeds[name]) for name in seeds}, names, seed, fresh, path)


def world_areas(
    names: Sequence[str] = (), seed: int = 0, fresh: int = 8, things: int = 24, world: int = 0, searched: int = 12
) -> list[Area]:
    """Areas that the generated world has hazards for, with requests drawn from its held-out side, and their oracle.

    things, world: as of `Hazards`, with which the model was trained. Raises EvalError for values that it refuses.
    """
    try:
        hazards = Hazards(things, world)
    except RecipeError as error:
        raise EvalError(str(error)) from error
    rng, known = random.Random(f"redteam/world/{seed}"), dict[str, dict[str, Seed]]()
    wanted, acts = searched + fresh, hazards.acts["disallowed"]
    things_of = {area: len({act.name for act in acts if HAZARDS[act.noun] == area}) for area in HAZARDS.values()}
    for _ in range(_DRAWN):
        asked = hazards.request(rng, "heldout", "disallowed")
        area = HAZARDS[asked.act.noun]
        here = known.setdefault(area, {})
        if len(here) < wanted and asked.text not in here:
            # Requests about one thing stand or fall together, since the model knows the thing or does not. A world of
            # few things has too few of them to be told apart by, and results are then of these things alone.
            group = asked.act.name if things_of[area] >= _FEW else asked.text
            here[asked.text] = Seed(asked.text, group, write_reply(asked, "A", rng), asked.labels)
    made = {name: (title, list(known[name].values())) for name, title in AREAS.items() if name in known}
    return _split(made, names, seed, fresh)


def _split(
    found: Mapping[str, tuple[str, list[Seed]]], names: Sequence[str], seed: int, fresh: int, path: Path | None = None
) -> list[Area]:
    for name in names:
        if name not in found:
            raise EvalError(
                f"There is no area {name!r}{f' in {path}' if path else ''}; there are {', '.join(found)}."
                f"{_near(name, list(found))}"
            )
    areas = []
    for name, (title, seeds) in found.items():
        if names and name not in names:
            continue
        groups = list(dict.fromkeys(one.group for one in seeds))
        random.Random(f"redteam/split/{seed}/{name}").shuffle(groups)
        # Whole groups on one side, or what is held out would be known from what was searched.
        held, kept = list[Seed](), list[Seed]()
        for i, group in enumerate(groups):
            some = [one for one in seeds if one.group == group]
            (held if i % 2 and len(held) + len(some) <= max(fresh, len(some)) else kept).extend(some)
        if not held:
            raise EvalError(
                f"The area {name}{f' of {path}' if path else ''} has {len(seeds)} independent request; two are needed, "
                "one for the search and one on which its findings are tested. Add some."
            )
        areas.append(Area(name, title, tuple(kept), tuple(held)))
    return areas


def _read(path: Path, titles: dict[str, str] | None = None) -> dict[str, list[Seed]]:
    raw, lines = read_located(path, "taxonomy")

    def fail(at: tuple[Any, ...], why: str) -> EvalError:
        return EvalError(f"{path}, line {line_of(lines, at)}: {why}")

    if not isinstance(raw, dict) or not raw:
        raise fail((), "there are no areas. Write one a key, such as `privacy:`, with `disallowed:` and its requests.")
    found: dict[str, list[Seed]] = {}
    for name, told in raw.items():
        if not isinstance(name, str):
            raise fail((name,), f"the area {name!r} is no text. Put its name in quotes.")
        if not isinstance(told, dict):
            raise fail((name,), f"{name} is {told!r:.60}; expected `disallowed:` with a list of requests.")
        if unknown := [str(key) for key in told if key not in _FIELDS]:
            raise fail((name, unknown[0]), f"{unknown[0]!r} is no field of an area; known are {', '.join(_FIELDS)}.")
        if name not in AREAS and "title" not in told:
            raise fail(
                (name,),
                f"{name!r} is an unknown area.{_near(name, list(AREAS))} Known are {', '.join(AREAS)}; an area of your "
                "own needs a title.",
            )
        for key in ("title", "refusal"):
            if key in told and (not isinstance(told[key], str) or not told[key].strip()):
                raise fail((name, key), f"{key} of {name} is {told[key]!r:.60}; expected words.")
        asked = told.get("disallowed")
        if not isinstance(asked, list) or not asked:
            raise fail((name, "disallowed"), f"{name} is empty: it has no disallowed requests. Add some, or remove it.")
        found[name] = [_seed(one, told.get("refusal"), (name, "disallowed", i), fail) for i, one in enumerate(asked)]
        for i, one in enumerate(found[name]):
            if one.text in (other.text for other in found[name][:i]):
                raise fail((name, "disallowed", i), f"the request {one.text!r:.60} stands twice. Remove one.")
        if titles is not None:
            titles[name] = told.get("title") or AREAS[name]
    return found


def _seed(one: Any, refusal: str | None, at: tuple[Any, ...], fail: Any) -> Seed:
    told = {"text": one} if isinstance(one, str) else one
    if not isinstance(told, dict) or not {"text"} <= set(told) <= {"text", "translations"}:
        raise fail(at, f"a request is {one!r:.60}; expected a text, or {{text, translations}}.")
    text, others = told["text"], told.get("translations", {})
    if not isinstance(text, str) or not text.strip():
        raise fail(at, "a request is empty. Fill it in, or remove it.")
    if not isinstance(others, dict) or not all(isinstance(v, str) and v.strip() for v in others.values()):
        raise fail((*at, "translations"), "translations are a language and a text each, such as German: …")
    return Seed(text.strip(), text.strip(), refusal, {}, {str(k): v for k, v in others.items()})


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f" Is it {near[0]}?" if near else ""
