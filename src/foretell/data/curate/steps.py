"""What curation is made of: steps that see one document, and passes that see all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from foretell.data.document import Document


@dataclass(frozen=True)
class Removed:
    """A document that goes. reason: slug such as "gopher.short". locator: where it came from, as file:line."""

    id: str
    reason: str
    detail: str = ""
    locator: str = ""


@runtime_checkable
class Step(Protocol):
    """Pure and picklable: the document as it stays, or why it goes."""

    name: str

    def __call__(self, document: Document) -> Document | Removed: ...


@runtime_checkable
class Pass(Protocol):
    """A global pass: each shard is sketched, all sketches are merged, and each shard is read again.

    sketch and apply of different shards may run at once, in different processes; the documents of a shard come in the
    same order to both. scratch: a folder that all of them see.
    """

    name: str

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None: ...
    def merge(self, shards: int, scratch: Path) -> None: ...
    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]: ...
