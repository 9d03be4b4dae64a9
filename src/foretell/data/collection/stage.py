"""The first phase: read a shard's sources and apply the steps; every record is told of in the ledger."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretell.data.collection import examples, ledger
from foretell.data.collection.places import Places
from foretell.data.collection.plan import Shard
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.selection import Selection
from foretell.data.curate.steps import Removed, Step
from foretell.data.document import Document
from foretell.data.parquet import write_documents
from foretell.data.read import read
from foretell.errors import ForetellError
from foretell.files import write_json


@dataclass
class Cost:
    """Seconds of a core and characters that went through each step; of interest, but no part of the collection."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    characters: Counter[str] = field(default_factory=Counter)

    def plain(self) -> dict[str, Any]:
        return {
            name: {"seconds": round(self.seconds[name], 6), "characters": self.characters[name]}
            for name in self.seconds
        }


def read_shard(recipe: CollectionRecipe, shard: Shard, places: Places) -> dict[str, Any]:
    """Write the shard's documents, its ledger and its examples below .work. Returns what it cost."""
    steps: list[Step] = [
        *([Selection.of(recipe.exclude)] if recipe.exclude else []),
        *(section.build() for section in recipe.steps),
    ]
    cost, sampler = Cost(), examples.Sampler(recipe.examples)
    images = [0]
    with ledger.writing(places.read_ledger(shard.number)) as rows:
        write_documents(places.read(shard.number), _documents(recipe, shard, steps, rows, sampler, cost, images))
        write_json(places.read_examples(shard.number), sampler.taken())
    return {"cost": cost.plain(), "images": images[0]}


def _documents(
    recipe: CollectionRecipe,
    shard: Shard,
    steps: Sequence[Step],
    rows: ledger.Writer,
    sampler: examples.Sampler,
    cost: Cost,
    images: list[int],
) -> Iterator[Document]:
    source = next(s for s in recipe.sources if s.name == shard.source)
    for unit in shard.units:
        began = time.thread_time()
        for found in read(source, unit):
            cost.seconds["read"] += time.thread_time() - began
            if isinstance(found, Removed):
                rows.add(ledger.of_removed(source.name, found))
                note_unread(sampler, source.name, found)
            else:
                row = ledger.of_document(found)
                cost.characters["read"] += row.chars_in
                document = _stepped(found, steps, row, sampler, cost)
                rows.add(row)
                if document is not None:
                    images[0] += row.images_out
                    yield document
            began = time.thread_time()


def _stepped(
    document: Document, steps: Sequence[Step], row: ledger.Row, sampler: examples.Sampler, cost: Cost
) -> Document | None:
    """The document after all steps, or None, and the row says by which it was removed."""
    size = row.chars_in
    for step in steps:
        began = time.thread_time()
        result = apply(step, document)
        cost.seconds[step.name] += time.thread_time() - began
        cost.characters[step.name] += size
        if isinstance(result, Removed):
            row.remove(step.name, result)
            note_removal(sampler, document, step.name, result)
            return None
        if result is not document:
            row.change(step.name, document, result)
        if result.segments != document.segments:
            note_change(sampler, document, result, step.name)
            size = ledger.characters(result)
        document = result
    row.settle(document)
    return document


def apply(step: Step, document: Document) -> Document | Removed:
    """A step's result. One that fails on a document removes it by name: one document must not end a run.

    So does one that leaves nothing of it, since a document without segments is none.
    """
    try:
        return whole(step(document), step.name)
    except (ForetellError, MemoryError, OSError):
        raise
    except Exception as error:
        return Removed(document.id, f"{step.name}.failed", f"{type(error).__name__}: {error}")


def whole(result: Document | Removed, step: str) -> Document | Removed:
    """The result, or the document's removal where it has nothing left."""
    if isinstance(result, Removed) or result.segments:
        return result
    return Removed(result.id, f"{step}.empty", "nothing was left")


def note_unread(sampler: examples.Sampler, source: str, removed: Removed) -> None:
    sampler.offer(f"removed {removed.reason}", f"{source}/{removed.id}", lambda: examples.unread(source, removed))


def note_removal(sampler: examples.Sampler, document: Document, step: str, removed: Removed) -> None:
    sampler.offer(
        f"removed {removed.reason}",
        f"{document.source}/{document.id}",
        lambda: examples.removal(document, step, removed.detail),
    )


def note_change(sampler: examples.Sampler, before: Document, after: Document, step: str) -> None:
    sampler.offer(f"changed {step}", f"{before.source}/{before.id}", lambda: examples.change(before, after, step))
