"""What the passes share: where their files lie, that each is written whole or not at all, and removals told by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from foretell.data.curate.steps import Removed
from foretell.data.dedup.order import Name, Names, NameWriter, row_of, shard_of
from foretell.data.dedup.records import Records, make
from foretell.data.document import Document
from foretell.errors import DataError
from foretell.files import atomic_folder, digest
from foretell.sections import Section

REMOVAL = np.dtype([("key", "<u8"), ("kept", "<u8"), ("likeness", "<f4")])  # key: rank of what goes


class Base(Section):
    """A pass, which is its own section in a recipe.

    Below scratch each pass has a folder of its name and settings. `sketch` and `merge` leave what is there as it is,
    so that a run that was killed goes on where it was; another setting begins anew.
    """

    name: ClassVar[str]

    def build(self) -> Self:
        return self

    def folder(self, scratch: Path) -> Path:
        settings = {key: str(value) for key, value in vars(self).items()}
        return scratch / f"{self.name}-{digest(settings)[:8]}"

    def sketches(self, scratch: Path) -> Path:
        return self.folder(scratch) / "sketch"

    def runs(self, scratch: Path, shards: int, stem: str) -> list[Path]:
        """The sorted runs of all shards. Raises DataError where a shard was not sketched."""
        found: list[Path] = []
        for shard in range(shards):
            folder = self.sketches(scratch) / f"{shard:05d}"
            if not folder.is_dir():
                raise DataError(
                    f"Shard {shard} of {shards} was not sketched for {self.name}: {folder} is missing. Run the same "
                    "command again."
                )
            found += sorted(folder.glob(f"{stem}-*.run"))
        return found

    @contextmanager
    def sketching(self, scratch: Path, shard: int) -> Iterator[tuple[Path, NameWriter] | None]:
        """A folder for a shard's sketch, and the names of its documents; None if it is there."""
        out = self.sketches(scratch) / f"{shard:05d}"
        if out.is_dir():
            yield None
            return
        with atomic_folder(out) as folder:
            names = NameWriter(folder)
            yield folder, names
            names.close()

    @contextmanager
    def merging(self, scratch: Path) -> Iterator[Path | None]:
        """A folder for what a merge finds; None if it is there."""
        out = self.folder(scratch) / "merged"
        if out.is_dir():
            yield None
            return
        with atomic_folder(out) as folder:
            yield folder

    def merged(self, scratch: Path) -> Path:
        out = self.folder(scratch) / "merged"
        if not out.is_dir():
            raise DataError(f"The sketches of {self.name} were not merged: {out} is missing. Run the command again.")
        return out


class Keeping(Base):
    """keep: sources (of documents) whose copies stay before others', first first; then the recipe's order counts."""

    keep: tuple[str, ...] = ()


def write_removals(folder: Path, removals: Records) -> None:
    """Append removals (or what else has a rank as its key) to the files of their shards."""
    if not len(removals):
        return
    shards = shard_of(removals["key"])
    order = np.argsort(shards, kind="stable")
    removals, shards = removals[order], shards[order]
    begins = np.flatnonzero(np.concatenate(([True], shards[1:] != shards[:-1])))
    for begin, end in zip(begins, [*begins[1:], len(shards)], strict=True):
        with (folder / f"{shards[begin]:05d}.removals").open("ab") as stream:
            stream.write(removals[begin:end].tobytes())


def removal(key: object, kept: object, likeness: object = 1.0) -> Records:
    return make(REMOVAL, key=key, kept=kept, likeness=likeness)


def read_removals(merged: Path, shard: int, dtype: np.dtype[np.void] = REMOVAL) -> Records:
    """A shard's removals, in the order of its documents."""
    path = merged / f"{shard:05d}.removals"
    if not path.is_file():
        return np.zeros(0, dtype)
    found = np.fromfile(path, dtype)
    names = [name for name in dtype.names or () if name != "key"]
    return found[np.lexsort([*(found[name] for name in reversed(names)), row_of(found["key"])])]


def applied(
    documents: Iterator[Document],
    sketches: Path,
    shard: int,
    removals: Records,
    result: Callable[[Document, Records, dict[int, Name]], Document | Removed],
) -> Iterator[Document | Removed]:
    """The documents of a shard, and the result for those with removals: of these and the names of both sides.

    removals: of the shard, as `read_removals` gives them. Raises DataError if these are not the documents that were
    sketched.
    """
    names = Names(sketches).read(np.concatenate((removals["kept"], removals["key"])))
    rows, begins = np.unique(row_of(removals["key"]), return_index=True)
    touched = dict(zip(rows.tolist(), np.split(removals, begins[1:]), strict=False))
    for row, document in enumerate(documents):
        if (mine := touched.get(row)) is None:
            yield document
            continue
        sketched = names[int(mine["key"][0])].id
        if document.id.encode("utf-8", "replace").decode() != sketched:
            raise DataError(
                f"Document {row} of shard {shard} is {document.id}, and {sketched} was sketched there: the shard has "
                "changed since. Remove the scratch folder, and run the command again."
            )
        yield result(document, mine, names)


def without(
    documents: Iterator[Document], sketches: Path, merged: Path, shard: int, reason: str, told: str
) -> Iterator[Document | Removed]:
    """As `applied`, those that go as `Removed`. told: of the copy, before its name; may hold {likeness}."""

    def removed(document: Document, mine: Records, names: dict[int, Name]) -> Removed:
        detail = f"{told.format(likeness=mine['likeness'][0])} {names[int(mine['kept'][0])]}"
        return Removed(document.id, reason, detail, document.labels.get("locator", ""))

    return applied(documents, sketches, shard, read_removals(merged, shard), removed)
