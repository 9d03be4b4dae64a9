"""The last phase: what steps and passes kept as Parquet with images once, the ledger, examples and a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from foretell.data.collection import examples, ledger, pictures
from foretell.data.collection.chain import chain
from foretell.data.collection.places import Places
from foretell.data.collection.plan import Shard
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.stage import note_change, note_removal
from foretell.data.collection.tally import Tally
from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.image_store import ImageWriter, member_name, writing_images
from foretell.data.parquet import read_documents, write_documents
from foretell.errors import DataError
from foretell.files import sha256_file, write_json

Outcome = list[tuple[str, Document, Document | Removed]]


def write_shard(recipe: CollectionRecipe, passes: Sequence[Pass], shard: Shard, places: Places, images: bool) -> None:
    """Write one shard of the collection. images: whether the read documents have any, and they are kept once."""
    number = shard.number
    sampler = examples.Sampler(recipe.examples)
    sampler.join(examples.load(places.read_examples(number)))
    tally = Tally()
    with ExitStack() as stack:
        rows = stack.enter_context(ledger.writing(places.ledger(number)))
        writer = stack.enter_context(writing_images(places.images(number))) if images else None
        place = _placing(number, places, writer) if writer is not None else None
        write_documents(places.data(number), _settled(shard, passes, places, rows, sampler, tally), place)
        if writer is not None:
            tally.images.update({"unique": len(writer.names), "bytes": writer.bytes})
    write_json(places.examples(number), sampler.taken())
    save_manifest(shard, tally, places)


def save_manifest(shard: Shard, tally: Tally, places: Places) -> None:
    """Counts and digests of a shard. Raises DataError if they do not add up."""
    if not tally.balanced:
        raise DataError(
            f"Shard {shard.number} does not add up: {tally.documents_in} came in, {tally.documents_kept} were kept and "
            f"{sum(tally.removed.values())} removed. Nothing of it is used; please report this."
        )
    number = shard.number
    files = [places.data(number), places.images(number), places.ledger(number), places.examples(number)]
    manifest: dict[str, Any] = {
        "shard": number,
        "source": shard.source,
        "units": [unit.key for unit in shard.units],
        "files": {
            str(file.relative_to(places.out)): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in files
            if file.exists()
        },
        **tally.plain(),
    }
    write_json(places.manifest(number), manifest)


def _placing(shard: int, places: Places, writer: ImageWriter) -> Callable[[bytes], str]:
    owners = pictures.owners(shard, places.passes)

    def place(data: bytes) -> str:
        name = member_name(data)
        owner = owners[pictures.key(name)]
        if owner == shard:
            writer.add(name, data)
        return f"images/{owner:05d}.tar/{name}"

    return place


def _settled(
    shard: Shard,
    passes: Sequence[Pass],
    places: Places,
    rows: ledger.Writer,
    sampler: examples.Sampler,
    tally: Tally,
) -> Iterator[Document]:
    """The documents that stay, while the ledger is brought to its end."""
    told: dict[int, Outcome] = {}

    def note(place: int, name: str, before: Document, after: Document | Removed) -> None:
        told.setdefault(place, []).append((name, before, after))
        if isinstance(after, Removed):
            note_removal(sampler, before, name, after)
        elif after.segments != before.segments:
            note_change(sampler, before, after, name)

    def settle(row: ledger.Row, kept: int | None) -> None:
        row.row = kept
        rows.add(row)
        tally.add(row, shard.source)

    number = shard.number
    entries = ledger.read(places.read_ledger(number))
    kept, at = 0, -1  # documents written; place of the last one the ledger was brought to
    documents = chain(passes, read_documents(places.read(number)), number, places.passes, note)
    for place, document in documents:
        for row in entries:
            if not row.kept:
                settle(row, None)
                continue
            at += 1
            _tell(row, told.pop(at, []))
            if at == place:
                row.settle(document)
                name = f"{document.source}/{document.id}"
                sampler.offer(f"kept {document.source}", name, partial(examples.kept, document))
                settle(row, kept)
                kept += 1
                yield document
                break
            settle(row, None)
    for row in entries:  # what was removed after the last document that stays
        if row.kept:
            at += 1
            _tell(row, told.pop(at, []))
        settle(row, None)


def _tell(row: ledger.Row, outcome: Outcome) -> None:
    for name, before, after in outcome:
        if isinstance(after, Removed):
            row.remove(name, after)
        else:
            row.id = after.id
            row.change(name, before, after)
