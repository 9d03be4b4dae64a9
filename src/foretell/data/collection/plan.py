"""The plan: which pieces of which sources make which shard, the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.read import Unit, units
from foretell.data.read.files import MissingSourceError
from foretell.errors import DataError
from foretell.files import write_json


@dataclass(frozen=True)
class Shard:
    """Pieces of one source, read one after the other. `number` counts over all sources in the recipe's order."""

    number: int
    source: str
    units: tuple[Unit, ...]

    @property
    def size(self) -> int:
        return sum(unit.size for unit in self.units)


def make(recipe: CollectionRecipe) -> list[Shard]:
    """Shards of about `shard_bytes` of input, none over two sources.

    Raises DataError for a source that is not there, unless it is optional.
    """
    shards: list[Shard] = []
    for source in recipe.sources:
        try:
            found = units(source)
        except MissingSourceError:
            if not getattr(source, "optional", False):
                raise
            continue
        for group in _groups(found, recipe.shard_bytes):
            shards.append(Shard(len(shards), source.name, group))
    if not shards:
        raise DataError(
            f"Sources of {recipe.name} ({', '.join(s.name for s in recipe.sources)}) hold nothing that can be read. "
            "Check their paths."
        )
    return shards


def _groups(found: list[Unit], most: int) -> Iterator[tuple[Unit, ...]]:
    group: list[Unit] = []
    held = 0
    for unit in found:
        if group and held + unit.size > most:
            yield tuple(group)
            group, held = [], 0
        group.append(unit)
        held += unit.size
    if group:
        yield tuple(group)


def save(path: Path, shards: list[Shard]) -> None:
    write_json(path, {"shards": [_plain(shard) for shard in shards]})


def load(path: Path) -> list[Shard]:
    """Raises DataError where the plan is damaged."""
    try:
        found = json.loads(path.read_bytes())
        return list(TypeAdapter(tuple[Shard, ...]).validate_python(found["shards"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Delete the collection's folder and build it again."
        ) from error


def _plain(shard: Shard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(shard)))
    return found
