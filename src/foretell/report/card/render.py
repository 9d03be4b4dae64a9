"""A card as one HTML page. Only what `blocks` allows is shown; anything else, a plain number above all, is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foretell.errors import CardError
from foretell.pages import (
    Html,
    Interval,
    Row,
    Series,
    cards,
    definitions,
    details,
    el,
    figure,
    interval_chart,
    join,
    line_chart,
    notice,
    number,
    page,
    percent,
    section,
    table,
)
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
    Section,
)
from foretell.report.card.figures import (
    Derived,
    Document,
    Figure,
    Given,
    Number,
    Prose,
    Quote,
    interval_text,
    value_text,
)
from foretell.report.card.sources import Entry, Sources

_DIGEST = re.compile("[0-9a-f]{40,64}")
_LINKABLE = re.compile(r"[\w./-]+")
KINDS = {
    "published": "published by others",
    "assumed": "assumed, not measured",
    "method": "how it is done",
    "measured": "",
}
SOURCES = Prose(
    "Every number above links to its line here: the file it was read from, by its SHA-256, the field, and the value as "
    "it is stored. What the card computed from logs lies in its own folder, with the log it was computed from."
)


def render(card: Card, sources: Sources) -> str:
    """The page as one string."""
    shown = _Shown(sources)
    sections = [shown.section(part) for part in card.sections]
    headline = [item for part in card.sections for item in part.headline]
    head = [cards(shown.headline(*item) for item in headline)] if headline else []
    facts = shown.line(card.facts)
    return page(
        _text(card.name),
        [*(s for s in sections if s), shown.sources_section()],
        kicker="System card",
        lead="" if card.lead is None else card.lead.text,
        head=[el("p", facts, class_="note"), *head],
        footer="Written by foretell from measured results only. Nothing on this page is loaded from elsewhere.",
    )


def _text(told: Given | Quote) -> str:
    return told.text


class _Shown:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def section(self, part: Section) -> Html:
        note = el("p", self.inline(part.note), class_="note") if part.note else ""
        return section(str(self._prose(part.title)), note, *(self.block(block) for block in part.blocks))

    def headline(self, label: Prose, told: Number, note: Cell) -> tuple[Html, Html, Html]:
        """A number at the head: large without its interval, which goes before its note."""
        ends = interval_text(told)
        below = [self._figure(told, ends) if ends else "", "; " if ends and note is not None else "", self.cell(note)]
        return self.inline(label), self._figure(told, value_text(told)), join(below)

    def block(self, block: Block) -> Html:
        if isinstance(block, Paragraph):
            return el("p", self.line(block.line))
        if isinstance(block, Notice):
            return notice(self.line(block.line))
        if isinstance(block, Heading):
            return el("h3", self.cell(block.words))
        if isinstance(block, Facts):
            return definitions((self._prose(term), self.cell(cell)) for term, cell in block.rows if cell is not None)
        if isinstance(block, Grid):
            return self._grid(block)
        if isinstance(block, Chart):
            return self._chart(block)
        if isinstance(block, Diagram):
            return self._diagram(block)
        if isinstance(block, Fold):
            return details(self._prose(block.words), *(self.block(inner) for inner in block.blocks))
        if isinstance(block, Command):
            return self._command(block)
        if isinstance(block, Missing):
            return self.missing(block)
        raise CardError(f"A {type(block).__name__} is no block of a card.")

    def missing(self, block: Missing) -> Html:
        how = "" if block.command else f" {self._prose(block.how)}"
        told = el("p", el("strong", "Not measured: "), self._prose(block.what), ".", how, class_="notice")
        return join([told, self._command(block.command)]) if block.command else told

    def line(self, parts: Line) -> Html:
        return join(self.inline(part) for part in parts)

    def cell(self, cell: Cell) -> Html | None:
        if cell is None:
            return None
        return self.line(cell) if isinstance(cell, tuple) else self.inline(cell)

    def inline(self, part: object) -> Html:
        if isinstance(part, Prose):
            return join([str(part)])
        if isinstance(part, Figure | Derived):
            ends = interval_text(part)
            return self._figure(
                part, value_text(part), join([" ", el("span", f"({ends})", class_="ci")]) if ends else ""
            )
        if isinstance(part, Quote):
            kind = "code" if _DIGEST.fullmatch(part.text) else "span"
            return el(kind, part.text, class_="said", title=self.sources.tip(part), dir="auto")
        if isinstance(part, Given):
            return el("span", part.text, class_="said")
        if isinstance(part, Link):
            return self._linked(self._prose(part.words), self.sources.href(part.path))
        raise CardError(
            f"{part!r} cannot be told on a card: it is a {type(part).__name__}, which names no file that it is from."
        )

    def _figure(self, told: Number, *shown: str) -> Html:
        return el("a", *shown, href=f"#{self.sources.entry(told).id}", class_="fig", title=self.sources.tip(told))

    @staticmethod
    def _prose(words: object) -> str:
        if not isinstance(words, Prose):
            raise CardError(
                f"{words!r} is a {type(words).__name__}; a card's own words are Prose, which holds no digit."
            )
        return str(words)

    @staticmethod
    def _linked(words: str, href: str) -> Html:
        return el("a", words, href=href) if _LINKABLE.fullmatch(href) and not href.startswith("/") else join([words])

    def _command(self, block: Command) -> Html:
        for part in block.line:
            if not isinstance(part, Given):
                self._prose(part)
        return el(
            "pre",
            el("code", *(el("span", p.text, class_="said") if isinstance(p, Given) else str(p) for p in block.line)),
            tabindex="0",
        )

    def _grid(self, block: Grid) -> Html:
        head = [self.cell(cell) or "" for cell in block.head]
        rows = [[self._set(i, self.cell(cell), block) for i, cell in enumerate(row)] for row in block.rows]
        return table(head, rows, caption=self._prose(block.caption), align=block.align or None)

    @staticmethod
    def _set(column: int, cell: Html | None, block: Grid) -> Html | None:
        return el("span", cell, class_="soft") if column in block.published and cell is not None else cell

    def _chart(self, block: Chart) -> Html:
        names = [_label(name) for name in block.names]
        rows = []
        for label, points in block.rows:
            for point in points:
                if point is not None and not isinstance(point, Figure | Derived):
                    raise CardError(f"A chart draws {point!r}, which is no figure.")
            rows.append(Row(_label(label), [None if p is None else _interval(p) for p in points]))
        form = _whole if block.unit else number
        told = "; ".join(
            f"{row.label}: " + ", ".join(f"{n} {form(p.value)}" for n, p in zip(names, row.points, strict=False) if p)
            for row in rows
        )
        drawn = interval_chart(
            rows,
            names,
            title=self._prose(block.title),
            description=told,
            x_range=(0, 1) if block.unit else None,
            x_format=form,
        )
        return figure(drawn, self._prose(block.caption))

    def _diagram(self, block: Diagram) -> Html:
        lines = [
            Series(_label(name), [x.value for x, _ in bins], [y.value for _, y in bins], mark="both",
                   low=[(y.interval or (y.value, y.value))[0] for _, y in bins],
                   high=[(y.interval or (y.value, y.value))[1] for _, y in bins])
            for name, bins in block.lines
        ]  # fmt: skip
        lines.append(Series("perfect", [0, 1], [0, 1], mark="faint", colour=5))
        drawn = line_chart(
            lines, title=self._prose(block.title), x_label="probability given", y_label="share that is right",
            y_range=(0, 1), x_format=lambda value: f"{value:g}", keys_above=True,
        )  # fmt: skip
        return figure(drawn, self._prose(block.caption))

    def sources_section(self) -> Html:
        parts: list[object] = [el("p", SOURCES, class_="note")]
        parts += [self._document(document, entries) for document, entries in self.sources.documents()]
        if derived := self.sources.derived():
            rows = [
                [el("span", e.id, id=e.id), e.field, join(self._jump(part) for part in of), e.stored]
                for e, of in derived
            ]
            head = ["", "Rule", "Of", "Value"]
            parts.append(details("Computed on this page from the above", table(head, rows, align="lllr")))
        return section("Sources", *parts)

    @staticmethod
    def _jump(entry: Entry) -> Html:
        return join([el("a", entry.id, href=f"#{entry.id}"), " "])

    def _document(self, document: Document, entries: Sequence[Entry]) -> Html:
        """A file, folded: where it is, its digest, what it was computed from, its samples, the fields that count."""
        label, sources = self.sources.label(document.path), self.sources
        kind = KINDS[document.kind]
        file = label if document.kind in ("published", "method") else self._linked(label, sources.href(document.path))
        about: list[object] = [file, ". ", f"{kind}. " if kind else "", "SHA-256 ", el("code", document.sha256), ". "]
        for path in document.made_from:
            about += ["Computed from ", self._linked(sources.label(path), sources.href(path)), ". "]
        if document.samples is not None:
            samples = self._linked(sources.label(document.samples), sources.href(document.samples))
            about += ["Samples: ", samples, "."]
        rows = [[el("span", e.id, id=e.id), el("code", e.field), e.stored] for e in entries]
        return el(
            "details",
            el("summary", label, el("span", f" · {len(entries)}{f', {kind}' if kind else ''}", class_="soft")),
            el("p", *about, class_="note"),
            table(["", "Field", "Stored"], rows, align="llr"),
        )


def _whole(value: float) -> str:
    return percent(value, 0)


def _label(told: object) -> str:
    if isinstance(told, Prose):
        return str(told)
    if isinstance(told, Quote):
        return told.text
    raise CardError(f"A chart is labelled with {told!r}; expected Prose or a Quote.")


def _interval(told: Number) -> Interval:
    return Interval(told.value, *(told.interval or ()))
