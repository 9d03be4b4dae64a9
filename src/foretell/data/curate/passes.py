"""What curation does to all documents at once: the protocol of a global pass, by map and reduce over shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from foretell.data.curate.steps import Removed
from foretell.data.document import Document


@runtime_checkable
class Pass(Protocol):
    """Deduplication, decontamination: whether a document is kept depends on others.

    `sketch` runs once for each shard and `merge` once after all of them; both leave what they find below `scratch`, a
    folder of the pass's own, in files that are written beside and renamed. `apply` runs once for each shard after
    that, yields for every document the document or Removed, in order, and writes nothing. The shards are numbered
    in the order of the recipe's sources, so that the lowest copy is the one to keep. A pass is picklable; each call
    may run in another process, and again after one was killed.
    """

    @property
    def name(self) -> str: ...

    def sketch(self, documents: Iterator[Document], shard: int, scratch: Path) -> None: ...

    def merge(self, shards: int, scratch: Path) -> None: ...

    def apply(self, documents: Iterator[Document], shard: int, scratch: Path) -> Iterator[Document | Removed]: ...
