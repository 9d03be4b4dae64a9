"""The list of sources: every number of a card with the file and field where it stands, numbered as they are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foretell.report.card.figures import Derived, Document, Figure, Number, Quote, where


@dataclass(frozen=True)
class Entry:
    """id: what the number links to. figure: what it tells; document: the file, of a derived one None."""

    id: str
    figure: Number

    @property
    def document(self) -> Document | None:
        return self.figure.document if isinstance(self.figure, Figure) else None

    @property
    def field(self) -> str:
        """Where the number and the ends of its interval stand."""
        if isinstance(self.figure, Derived):
            return self.figure.rule
        ends = [where(end) for end in (self.figure.low, self.figure.high) if end]
        return where(self.figure.at) + (f"; interval {', '.join(ends)}" if ends else "")

    @property
    def stored(self) -> str:
        """The number as it is stored."""
        if isinstance(self.figure, Derived):
            return repr(self.figure.value)
        found = [self.figure.value, *(self.figure.interval or ())]
        return ", ".join(repr(value) for value in found)


@dataclass
class Sources:
    """folder: of the run, which paths are told from; out: where the card lies, which links start from."""

    folder: Path | None
    out: Path
    _entries: dict[object, Entry] = field(default_factory=dict)

    def entry(self, figure: Number) -> Entry:
        """The entry of a number, a new one when it is told for the first time; its parts come before it."""
        if isinstance(figure, Derived):
            for part in figure.parts:
                self.entry(part)
        key = _key(figure)
        if key not in self._entries:
            self._entries[key] = Entry(f"s{len(self._entries) + 1}", figure)
        return self._entries[key]

    def documents(self) -> Iterator[tuple[Document, list[Entry]]]:
        """Every file with the numbers that were read from it, in the order of the first."""
        found: dict[Path, tuple[Document, list[Entry]]] = {}
        for entry in self._entries.values():
            if (document := entry.document) is not None:
                found.setdefault(document.path, (document, []))[1].append(entry)
        yield from found.values()

    def derived(self) -> list[tuple[Entry, list[Entry]]]:
        """Numbers that were computed, each with what it was computed from."""
        return [
            (entry, [self.entry(part) for part in entry.figure.parts])
            for entry in list(self._entries.values())
            if isinstance(entry.figure, Derived)
        ]

    def label(self, path: Path) -> str:
        """A file as a reader knows it: from the run's folder on, else by its own folder; never a whole path."""
        resolved = path.resolve()
        for base in (self.folder, self.out):
            if base is not None and resolved.is_relative_to(base.resolve()):
                return f"{base.resolve().name}/{resolved.relative_to(base.resolve()).as_posix()}"
        return f"{resolved.parent.name}/{resolved.name}"

    def href(self, path: Path) -> str:
        """A link from the card to a file."""
        return Path(os.path.relpath(path.resolve(), self.out.resolve())).as_posix()

    def tip(self, told: Number | Quote) -> str:
        """A line that says where something was read."""
        if isinstance(told, Derived):
            return f"{told.rule} {len(told.parts)} figures; see the sources"
        return f"{self.label(told.document.path)}, {where(told.at)}"


def _key(figure: Number) -> object:
    if isinstance(figure, Figure):
        return (figure.document.path, figure.at, figure.low, figure.high)
    return (figure.rule, tuple(_key(part) for part in figure.parts))
