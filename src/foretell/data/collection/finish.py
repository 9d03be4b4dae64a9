"""The end of a build: manifests added up, the data card written, the collection said to be finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from foretell.data.collection import examples
from foretell.data.collection.card import Card, card_html, card_markdown
from foretell.data.collection.places import Places, read_state
from foretell.data.collection.plan import Shard
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.tally import Tally
from foretell.errors import DataError
from foretell.files import digest, write_json, write_text


def finish(recipe: CollectionRecipe, shards: Sequence[Shard], places: Places) -> None:
    """Write card.md, card.html and the totals. Raises DataError if a shard is missing or does not add up."""
    tally, sampler, files = Tally(), examples.Sampler(recipe.examples), dict[str, dict[str, Any]]()
    for manifest in manifests(shards, places):
        tally.join(manifest)
        files.update(manifest["files"])
        sampler.join(examples.load(places.examples(manifest["shard"])))
    if not tally.balanced:
        raise DataError(f"The manifests below {places.out} do not add up. Delete .work and build it again.")
    removed = read_removed(places)
    state = read_state(places.out)
    state.update(
        finished=True,
        digest=digest({name: file["sha256"] for name, file in sorted(files.items())}),
        bytes=sum(file["bytes"] for file in files.values()),
        shards=len(shards),
        removed_later=removed,
        totals=tally.plain(),
    )
    card = Card(recipe, state, tally, sampler.taken())
    write_text(places.out / "card.md", card_markdown(card))
    write_text(places.out / "card.html", card_html(card))
    write_json(places.collection, state)
    for folder in (places.data(0), places.images(0), places.ledger(0), places.manifest(0)):
        for left in folder.parent.glob(".[0-9]*"):  # half-written, by a process that was killed
            left.unlink(missing_ok=True)


def manifests(shards: Iterable[Shard], places: Places) -> Iterator[dict[str, Any]]:
    for shard in shards:
        try:
            found = json.loads(places.manifest(shard.number).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(
                f"{places.manifest(shard.number)} cannot be read ({error}). Build the collection again."
            ) from error
        yield found


def read_removed(places: Places) -> list[str]:
    """What `foretell data remove` was told after the build."""
    try:
        found: list[str] = json.loads((places.out / "removed.json").read_bytes())["words"]
    except (OSError, ValueError, KeyError):
        return []
    return found
