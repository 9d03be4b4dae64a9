"""A generated world whose truth is known: seeded, unlimited, held out by construction."""

from __future__ import annotations

import inspect
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from foretell.data.world.arithmetic import Arithmetic
from foretell.data.world.base import Item, Kind, Split, final_answer, is_heldout, is_right
from foretell.data.world.charts import Charts
from foretell.data.world.choices import Choices
from foretell.data.world.conflicts import Conflicts
from foretell.data.world.diagrams import Diagrams
from foretell.data.world.facts import Facts
from foretell.data.world.hazards import Hazards
from foretell.data.world.hindsight import Hindsight
from foretell.data.world.panels import Panels
from foretell.data.world.papers import Papers
from foretell.data.world.personas import Personas
from foretell.data.world.programs import Programs
from foretell.data.world.rendered import Reading
from foretell.data.world.scenes import Scenes
from foretell.data.world.screens import Screens
from foretell.data.world.stacks import Stacks
from foretell.data.world.tutor import Tutor
from foretell.data.world.unusual import Unusual
from foretell.errors import RecipeError
from foretell.recipe import WorldSource

__all__ = [
    "KINDS",
    "Item",
    "Kind",
    "Split",
    "final_answer",
    "generate",
    "is_heldout",
    "is_right",
    "make_items",
    "make_kind",
]

KINDS: dict[str, Callable[..., Kind]] = {
    "facts": Facts,
    "arithmetic": Arithmetic,
    "scenes": Scenes,
    "charts": Charts,
    "reading": Reading,
    "personas": Personas,
    "programs": Programs,
    "hindsight": Hindsight,
    "hazards": Hazards,
    "tutor": Tutor,
    "conflicts": Conflicts,
    "choices": Choices,
    "papers": Papers,
    "screens": Screens,
    "unusual": Unusual,
    "panels": Panels,
    "diagrams": Diagrams,
    "stacks": Stacks,
}
# In no source that names no kinds: lessons in behaviour, an examination, and pictures that take more pixels.
BY_NAME_ONLY = (
    *("hazards", "tutor", "conflicts", "choices", "stacks"),
    *("papers", "screens", "unusual", "panels", "diagrams"),
)


def make_kind(name: str, options: dict[str, Any] | None = None) -> Kind:
    """A kind with its options.

    Raises RecipeError for an unknown kind, an unknown option, or a value that is not allowed.
    """
    if name not in KINDS:
        raise RecipeError(f"The world has no kind {name!r}; choose from {', '.join(KINDS)}.")
    factory, options = KINDS[name], options or {}
    allowed = list(inspect.signature(factory).parameters)
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise RecipeError(f"World kind {name} has no option {', '.join(unknown)}; allowed are {', '.join(allowed)}.")
    return factory(**options)


def generate(source: WorldSource, split: Split, seed: int) -> Iterator[Item]:
    """The source's items, `documents` many for training and `heldout_documents` many held out.

    Item i depends on the seed, the source's name and mixture, the split and i alone, not on how many are asked for.
    Raises RecipeError as `make_kind` does, before the first item.
    """
    shares = source.kinds or {kind: 1.0 for kind in KINDS if kind not in BY_NAME_ONLY}
    unused = sorted(set(source.options) - set(shares))
    if unused:
        raise RecipeError(f"World options are given for {', '.join(unused)}, but the kinds are {', '.join(shares)}.")
    kinds = [make_kind(name, source.options.get(name)) for name in shares]
    cumulative = list(itertools.accumulate(shares.values()))
    count = source.documents if split == "train" else source.heldout_documents
    return (_item(kinds, cumulative, split, f"{source.name}/{split}/{seed}/{i}") for i in range(count))


def make_items(kind: str, split: Split, n: int, seed: int, **options: Any) -> list[Item]:
    """n items of one kind; the first m of them are the same for every n ≥ m."""
    made = make_kind(kind, options)
    return [_item([made], [1.0], split, f"{kind}/{split}/{seed}/{i}") for i in range(n)]


def _item(kinds: list[Kind], cumulative: list[float], split: Split, id: str) -> Item:
    rng = random.Random(id)
    item = rng.choices(kinds, cum_weights=cumulative)[0].make(rng, split)
    truth = {} if item.answer is None else {"answer": item.answer}
    return replace(item, content=replace(item.content, id=id, labels=item.content.labels | truth))
