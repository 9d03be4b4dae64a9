"""What a card is made of. Everything told is an `Inline`: prose without digits, or what was read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foretell.report.card.figures import Derived, Figure, Given, Number, Prose, Quote


@dataclass(frozen=True)
class Link:
    """A file that lies beside, by words."""

    words: Prose
    path: Path


Inline = Prose | Figure | Derived | Quote | Given | Link
NOTHING = Prose("")
NO_COMMAND = Prose("This version has no command for it.")
Line = tuple[Inline, ...]
Cell = Inline | Line | None


@dataclass(frozen=True)
class Paragraph:
    line: Line


@dataclass(frozen=True)
class Notice:
    """A remark set apart: a limit, or what a reader must know to read the numbers rightly."""

    line: Line


@dataclass(frozen=True)
class Facts:
    """Terms and what is known of each; None is left out."""

    rows: Sequence[tuple[Prose, Cell]]


@dataclass(frozen=True)
class Grid:
    """A table. align: one letter a column, l or r. published: numbers of columns that tell what others published."""

    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    caption: Prose = NOTHING
    align: str = ""
    published: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Estimates with intervals, a row each; names: of the points of a row. unit: whether the axis is from 0 to 1."""

    title: Prose
    names: Sequence[Prose | Quote]
    rows: Sequence[tuple[Prose | Quote, Sequence[Number | None]]]
    unit: bool = True
    caption: Prose = NOTHING


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram: of each model its bins as (mean probability, share that is right)."""

    title: Prose
    lines: Sequence[tuple[Prose | Quote, Sequence[tuple[Figure, Figure]]]]
    caption: Prose = NOTHING


@dataclass(frozen=True)
class Heading:
    words: Cell


@dataclass(frozen=True)
class Fold:
    """Blocks that are folded away behind their summary on a screen."""

    words: Prose
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Command:
    """A command for a terminal."""

    line: tuple[Prose | Given, ...]

    @property
    def text(self) -> str:
        return "".join(part.text if isinstance(part, Given) else part for part in self.line)


@dataclass(frozen=True)
class Missing:
    """What was not measured, and the command that would; without one, `how` says what there is instead."""

    what: Prose
    command: Command | None = None
    how: Prose = NO_COMMAND


Block = Paragraph | Notice | Facts | Grid | Chart | Diagram | Heading | Fold | Command | Missing


@dataclass(frozen=True)
class Section:
    """A part of the card. headline: figures that may stand at its head: (label, number, note)."""

    title: Prose
    blocks: Sequence[Block]
    note: Prose = NOTHING
    headline: Sequence[tuple[Prose, Number, Cell]] = ()

    @property
    def missing(self) -> list[Missing]:
        return [block for block in self.blocks if isinstance(block, Missing)]


@dataclass(frozen=True)
class Card:
    """name, lead: what the model is called and described as. facts: a line under the title."""

    name: Given | Quote
    lead: Quote | None
    facts: Line
    sections: Sequence[Section]
