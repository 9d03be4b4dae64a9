"""Take documents out of a finished collection, and rebuild only the shards they stand in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretell.data.collection import examples, finish, ledger
from foretell.data.collection.places import Places
from foretell.data.collection.plan import Shard
from foretell.data.collection.selection import Selection
from foretell.data.collection.tally import Tally
from foretell.data.collection.why import finished
from foretell.data.collection.write import save_manifest
from foretell.data.curate.steps import Removed
from foretell.data.image_store import PATH, without_images
from foretell.errors import DataError
from foretell.files import atomic_path, write_json
from foretell.locks import lock
from foretell.run import Report, silent

Key = tuple[str, str]  # source and id


def remove(out: Path, words: Sequence[str], report: Report = silent) -> dict[str, int]:
    """Remove what licences, ids, URLs or hosts name, with the images that nothing else shows, from every file.

    Cut off, the same call goes on; what others' removal as its copies brought does not come back. Returns documents and
    images removed, and shards rebuilt. Raises RunError for what is no finished collection, DataError where nothing has
    that name.
    """
    places, recipe, shards = finished(out)
    with lock(places.out):
        pending = _pending(places)
        selection = Selection.of([*words, *pending["words"]])
        candidates, count, touched = set(pending["images"]), 0, set[int]()
        for shard in shards:
            gone = _matching(places.ledger(shard.number), selection)
            report("removing", shard.number + 1, len(shards))
            if not gone:
                continue
            candidates |= _images(places.data(shard.number), gone)
            write_json(places.out / "removing.json", {"words": sorted(selection.words), "images": sorted(candidates)})
            _without(places.data(shard.number), gone)
            _shorten(places.examples(shard.number), set(gone))
            _settle(places.ledger(shard.number), gone)
            count += len(gone)
            touched.add(shard.number)
        if not touched and not pending["words"]:
            raise DataError(
                f"No document of {out} has the licence, id, URL or host {', '.join(words)}. Its card lists licences; "
                "foretell data why tells of single documents."
            )
        images = 0
        for number, names in _unshown(candidates, shards, places).items():
            images += without_images(places.images(number), names)
            touched.add(number)
        for shard in shards:
            if shard.number in touched or pending["words"]:
                _count(shard, places)
        _note(places, selection.words)
        finish.finish(recipe, shards, places)
        (places.out / "removing.json").unlink(missing_ok=True)
    return {"documents": count, "images": images, "shards": len(touched)}


def _pending(places: Places) -> dict[str, list[str]]:
    """What a removal that was cut off had begun."""
    try:
        found: dict[str, list[str]] = json.loads((places.out / "removing.json").read_bytes())
    except (OSError, ValueError):
        return {"words": [], "images": []}
    return found


def _matching(path: Path, selection: Selection) -> dict[Key, tuple[str, str]]:
    """(source, id) of what is kept and named → what named it."""
    columns = ["id", "source", "license", "url", "reason"]
    return {
        (row.source, row.id): why
        for row in ledger.read(path, columns)
        if row.kept and (why := selection.names(row.id, row.license, row.url))
    }


def _images(path: Path, gone: Iterable[Key]) -> set[str]:
    """Paths of the images in these documents."""
    wanted, found = set(gone), set[str]()
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(256, columns=["id", "source", "images.list.element.path"], use_threads=False):
        for row in batch.to_pylist():
            if (row["source"], row["id"]) in wanted:
                found |= _paths(row)
    return found


def _paths(row: dict[str, Any]) -> set[str]:
    return {image["path"] for image in row["images"] or () if image and image["path"]}


def _without(path: Path, gone: dict[Key, tuple[str, str]]) -> None:
    """Write a Parquet file anew without these documents, row group by row group."""
    file = pq.ParquetFile(path)
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, file.schema_arrow, compression="zstd") as writer,
    ):
        for i in range(file.num_row_groups):
            table = file.read_row_group(i)
            keys = zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True)
            writer.write_table(table.filter(pa.array([key not in gone for key in keys], pa.bool_())))


def _shorten(path: Path, gone: set[Key]) -> None:
    """Examples show text, so those of removed documents go too, by the ids they had before and after `ids`."""
    names = gone | {(source, id.rpartition("~")[0]) for source, id in gone}
    write_json(path, [e for e in examples.load(path) if (e["source"], e["document"]) not in names])


def _settle(path: Path, gone: dict[Key, tuple[str, str]]) -> None:
    kept = 0
    with ledger.writing(path) as rows:
        for row in ledger.read(path):
            if row.kept and (why := gone.get((row.source, row.id))):
                row.remove("remove", Removed(row.id, f"removed.{why[0]}", why[1]))
            elif row.kept:
                row.row, kept = kept, kept + 1
            rows.add(row)


def _unshown(candidates: set[str], shards: Sequence[Shard], places: Places) -> dict[int, set[str]]:
    """Images that no document shows any more, by the shard whose tar holds them."""
    left = set(candidates)
    for shard in shards:
        if not left:
            break
        file = pq.ParquetFile(places.data(shard.number))
        for batch in file.iter_batches(256, columns=["images.list.element.path"], use_threads=False):
            for row in batch.to_pylist():
                left -= _paths(row)
    found: dict[int, set[str]] = {}
    for path in left:
        if match := PATH.fullmatch(path):
            found.setdefault(int(match.group(1).removesuffix(".tar")), set()).add(match.group(2))
    return found


def _count(shard: Shard, places: Places) -> None:
    """The shard's manifest from its ledger."""
    import tarfile

    tally = Tally()
    for row in ledger.read(places.ledger(shard.number)):
        tally.add(row, shard.source)
    if places.images(shard.number).exists():
        with tarfile.open(places.images(shard.number), "r:") as tar:
            sizes = [member.size for member in tar]
        tally.images.update({"unique": len(sizes), "bytes": sum(sizes)})
    save_manifest(shard, tally, places)


def _note(places: Places, words: Iterable[str]) -> None:
    write_json(places.out / "removed.json", {"words": sorted({*finish.read_removed(places), *words})})
