"""Data sets of the Hugging Face hub through `datasets`, streamed by shard, or from local files of the same form."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.read.catalogue import known
from foretell.data.read.files import PACKED, File, Unit, form_of, listing
from foretell.data.read.rows import Defaults, Place
from foretell.data.read.sections import HubRead
from foretell.errors import DataError, ForetellError, MissingExtraError

BUILDERS = {"parquet": "parquet", "jsonl": "json", "json": "json"}


def hub_units(section: HubRead) -> list[Unit]:
    """A unit a file or shard of the data set. Raises DataError where it cannot be found."""
    known(section.dataset)
    if section.path:
        return [
            Unit(section.name, "hub" if form_of(file.name) in BUILDERS else "other", (file,), size=file.size)
            for file in listing(section.name, section.path)
        ]
    stream = _stream(section)
    shards = int(getattr(stream, "num_shards", 1))
    file = File(f"{section.dataset}/{section.subset or 'default'}/{section.split}", section.dataset)
    return [Unit(section.name, "hub", (file,), i, i + 1) for i in range(shards)]


def _stream(section: HubRead, file: File | None = None) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("Reading a data set of the Hugging Face hub", "hub") from error
    try:
        if file is not None:
            kind = BUILDERS[form_of(file.name)]
            stream = load_dataset(kind, data_files=[file.path], split="train", streaming=True)
        else:
            stream = load_dataset(
                section.dataset, section.subset, split=section.split, revision=section.revision, streaming=True
            )
        # Pictures stay as they are stored: decoding them here would cost time and open the door to bombs.
        return stream.decode(False)
    except ForetellError:
        raise
    except Exception as error:  # the library, its file systems and the network raise nearly anything
        if file is not None:
            raise
        raise _stopped(section, error) from error


def _stopped(section: HubRead, error: Exception) -> DataError:
    return DataError(
        f"Source {section.name!r}: {section.dataset} could not be streamed from the hub ({error}). Check the name, the "
        "subset and the network (a gated data set also needs `hf auth login`), then run the same command again: what "
        "is finished stays."
    )


def read_hub(section: HubRead, unit: Unit) -> Iterator[Document | Removed]:
    """The rows of one shard. A network that fails is a clear stop; a local file that is damaged is counted."""
    told = known(section.dataset)
    fields = section.fields or told.fields
    fill = Defaults(
        section.name,
        told.license if section.license == "unknown" else section.license,
        told.language if section.language == "und" else section.language,
        section.date,
    )
    file = unit.files[0]
    where = file.name if section.path else f"{file.name}:{unit.start}"
    number = 0
    try:
        stream = _stream(section, file if section.path else None)
        if not section.path:
            stream = stream.shard(num_shards=int(getattr(stream, "num_shards", 1)), index=unit.start)
        for row in islice(stream, section.max_rows):
            place = Place(f"{where}:{number}", where)
            number += 1
            yield told.read(row, place, fields, section.chat, fill, section.limits, section.images)
    except ForetellError:
        raise
    except Exception as error:
        if not section.path:
            raise _stopped(section, error) from error
        packed = "packed " if PACKED.search(file.name) else ""
        yield Place(f"{where}:{number}", where).removed("read.damaged", f"the {packed}file cannot be read on: {error}")
