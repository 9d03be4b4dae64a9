"""What curation does to one document at a time: the protocol of a step, and what is told of a removed document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from foretell.data.document import Document


@dataclass(frozen=True)
class Removed:
    """A document, or a record that could not become one, which is left out.

    id: the document's, or a name for the record. reason: a slug such as "gopher.short" that counts are kept by. detail:
    what was found, for a person. locator: where it stood (file:line, row, record offset), if the document cannot say.
    """

    id: str
    reason: str
    detail: str = ""
    locator: str = ""


@runtime_checkable
class Step(Protocol):
    """A pure function of one document, picklable, built from a section of the recipe by its `build()`.

    It returns the document (changed by `dataclasses.replace` or as it came), or Removed with the document's id.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, document: Document) -> Document | Removed: ...
