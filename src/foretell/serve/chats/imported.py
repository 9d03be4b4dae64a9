"""A conversation as a file holds it, before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class Unreadable(Exception):
    """A conversation cannot be read; why, for people."""


@dataclass(frozen=True)
class Message:
    """id, parent: as they are in the file. images: (name, bytes)."""

    id: str
    parent: str | None
    role: str
    text: str
    side: int = 0
    status: str = "done"
    error: str | None = None
    model: str | None = None
    tokens: int | None = None
    rating: int = 0
    note: str | None = None
    created: int | None = None
    images: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Imported:
    """A conversation of a file. Messages come after their parents. source: its id there."""

    title: str
    messages: Sequence[Message]
    tip: str | None = None
    system: str = ""
    model: str = ""
    second: str | None = None
    persona: str | None = None
    temperature: float | None = None
    source: str | None = None
    created: int | None = None
    updated: int | None = None
    preferences: Sequence[tuple[str, str]] = ()
