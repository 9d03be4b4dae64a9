"""A card as Markdown: the same blocks, each number a link to its file, with the list of sources at the end."""

from __future__ import annotations

import re

from foretell.errors import CardError
from foretell.report.card.blocks import (
    Block,
    Card,
    Cell,
    Chart,
    Command,
    Diagram,
    Facts,
    Fold,
    Grid,
    Heading,
    Line,
    Link,
    Missing,
    Notice,
    Paragraph,
)
from foretell.report.card.figures import Derived, Figure, Given, Prose, Quote, written
from foretell.report.card.render import KINDS, SOURCES
from foretell.report.card.sources import Sources

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def to_markdown(card: Card, sources: Sources) -> str:
    """The card as one text. Charts are left out: what they draw stands in a table beside them."""
    told = _Told(sources)
    parts = [f"# {_escape(card.name.text)}: system card", ""]
    if card.lead is not None:
        parts += [_escape(card.lead.text), ""]
    parts += [told.line(card.facts), ""]
    if headline := [item for part in card.sections for item in part.headline]:
        parts += ["| | | |", "|---|---:|---|"]
        parts += [
            f"| {told.inline(label)} | {told.inline(number)} | {told.cell(note)} |" for label, number, note in headline
        ]
        parts.append("")
    for part in card.sections:
        parts += [f"## {told.inline(part.title)}", ""]
        if part.note:
            parts += [told.inline(part.note), ""]
        for block in part.blocks:
            parts += told.block(block)
    parts += told.sources_list()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


class _Told:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def block(self, block: Block) -> list[str]:
        if isinstance(block, Paragraph):
            return [self.line(block.line), ""]
        if isinstance(block, Notice):
            return [f"> {self.line(block.line)}", ""]
        if isinstance(block, Heading):
            return [f"### {self.cell(block.words)}", ""]
        if isinstance(block, Facts):
            return [*(f"- {self.inline(term)}: {self.cell(cell)}" for term, cell in block.rows if cell is not None), ""]
        if isinstance(block, Grid):
            return self._grid(block)
        if isinstance(block, Chart | Diagram):
            return []
        if isinstance(block, Fold):
            return [
                f"**{self.inline(block.words)}**",
                "",
                *(line for inner in block.blocks for line in self.block(inner)),
            ]
        if isinstance(block, Command):
            return ["```bash", block.text, "```", ""]
        if isinstance(block, Missing):
            how = "" if block.command else f" {self.inline(block.how)}"
            told = f"> **Not measured**: {self.inline(block.what)}.{how}"
            return [told, "", *(self.block(block.command) if block.command else [])]
        raise CardError(f"A {type(block).__name__} is no block of a card.")

    def line(self, parts: Line) -> str:
        return "".join(self.inline(part) for part in parts)

    def cell(self, cell: Cell) -> str:
        if cell is None:
            return "–"
        return self.line(cell) if isinstance(cell, tuple) else self.inline(cell)

    def inline(self, part: object) -> str:
        if isinstance(part, Prose):
            return _escape(str(part))
        if isinstance(part, Figure | Derived):
            return f"[{written(part)}][{self.sources.entry(part).id}]"
        if isinstance(part, Quote | Given):
            return _escape(part.text)
        if isinstance(part, Link):
            return f"[{_escape(str(part.words))}](<{self.sources.href(part.path)}>)"
        raise CardError(
            f"{part!r} cannot be told on a card: it is a {type(part).__name__}, which names no file that it is from."
        )

    def _grid(self, block: Grid) -> list[str]:
        align = (block.align or "l" * len(block.head)).ljust(len(block.head), "l")
        lines = [self.inline(block.caption), ""] if block.caption else []
        lines.append("| " + " | ".join(self.cell(cell) if cell is not None else " " for cell in block.head) + " |")
        lines.append("|" + "|".join("---:" if letter == "r" else "---" for letter in align[: len(block.head)]) + "|")
        lines += ["| " + " | ".join(self.cell(cell) for cell in row) + " |" for row in block.rows]
        return [*lines, ""]

    def sources_list(self) -> list[str]:
        lines = ["## Sources", "", _escape(SOURCES), ""]
        targets = []
        for document, entries in self.sources.documents():
            label, href = self.sources.label(document.path), self.sources.href(document.path)
            about = f"{KINDS[document.kind]}; " if KINDS[document.kind] else ""
            lines += [f"- `{label}`: {about}SHA-256 `{document.sha256}`"]
            lines += [f"  - computed from `{self.sources.label(path)}`" for path in document.made_from]
            if document.samples is not None:
                lines.append(f"  - samples: `{self.sources.label(document.samples)}`")
            lines += [f"  - {e.id}: `{e.field}` = {e.stored}" for e in entries]
            targets += [f"[{e.id}]: <{href}> {_quoted(e.field)}" for e in entries]
        for entry, of in self.sources.derived():
            told = f"{entry.field} {', '.join(part.id for part in of)}"
            lines.append(f"- {entry.id}: {told} = {entry.stored}")
            targets.append(f"[{entry.id}]: #sources {_quoted(told)}")
        return [*lines, "", *targets]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'
