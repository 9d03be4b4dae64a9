"""A step of curation: one document in, the same, a changed one, or the reason for its removal out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from foretell.data.document import Document


@dataclass(frozen=True)
class Removed:
    """A record that is not kept. reason: a slug such as "gopher.short". locator: where it stands in its source."""

    id: str
    reason: str
    detail: str = ""
    locator: str = ""


class Step(Protocol):
    """Pure and picklable; built from its pydantic section."""

    name: str

    def __call__(self, document: Document) -> Document | Removed: ...
