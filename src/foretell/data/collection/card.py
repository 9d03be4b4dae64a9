"""The data card: what a collection is made of and what was left out, as Markdown and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretell.data.collection.examples import Example
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.tally import Tally
from foretell.data.curate.pii import masked
from foretell.pages import (
    Html,
    cards,
    compact,
    definitions,
    details,
    el,
    join,
    number,
    page,
    percent,
    section,
    size,
    table,
)

_LINES = 200  # of attribution on the card; all of them stand in the manifests
_ROWS = 40
_EXAMPLE = 400  # characters
UNQUOTED = ("sexual", "toxic")  # steps whose examples a card names and does not quote
Rows = list[list[Any]]


@dataclass(frozen=True)
class Card:
    """state: what collection.json holds. examples: as `Sampler.taken` gives them."""

    recipe: CollectionRecipe
    state: Mapping[str, Any]
    tally: Tally
    examples: Sequence[Example]

    @property
    def headline(self) -> str:
        t = self.tally
        return (
            f"{t.documents_in:,} records came in; {t.documents_kept:,} documents were kept and "
            f"{sum(t.removed.values()):,} removed."
        )

    def sources(self) -> Rows:
        licenses = {source.name: getattr(source, "license", "unknown") for source in self.recipe.sources}
        return [
            [name, c["in"], c["kept"], c["in"] - c["kept"], c["chars_in"], c["chars_kept"], c["images_kept"],
             licenses.get(name, "unknown")]
            for name, c in self.tally.sources.items()
        ]  # fmt: skip

    def removals(self) -> Rows:
        """[reason, documents, share of all] with the commonest first."""
        whole = max(self.tally.documents_in, 1)
        return [[reason, count, count / whole] for reason, count in self.tally.removed.most_common()]

    def changes(self) -> Rows:
        return [
            [step, c["changed"], c["before"], c["after"], c["after"] - c["before"]]
            for step, c in sorted(self.tally.steps.items())
        ]

    def shares(self, table: Mapping[str, Counter[str]]) -> Rows:
        """[name, documents, characters, share of characters], the largest first."""
        whole = max(sum(c["chars"] for c in table.values()), 1)
        ordered = sorted(table.items(), key=lambda item: (-item[1]["chars"], item[0]))
        return [[name, c["documents"], c["chars"], c["chars"] / whole] for name, c in ordered]

    def example(self, reason: str) -> Example | None:
        return next((e for e in self.examples if e["group"] == f"removed {reason}"), None)

    def attribution(self) -> list[str]:
        return [f"{line} ({count:,})" for line, count in sorted(self.tally.attribution.items())]

    def facts(self) -> list[tuple[str, Any]]:
        files = self.state
        lost = sum(counts["images_lost"] for counts in self.tally.sources.values())
        return [
            ("Recipe", f"{self.recipe.name}, key {files['key'][:12]}"),
            ("Digest of all files", str(files["digest"])[:16]),
            ("Shards", number(files["shards"])),
            ("Bytes", size(files["bytes"])),
            ("Images", f"{self.tally.images['unique']:,} different ones, {size(self.tally.images['bytes'])}"
             if self.tally.images["unique"] else None),
            ("Images that could not be read", f"{lost:,}" if lost else None),
            ("Steps", ", ".join(step.step for step in self.recipe.steps) or "none"),
            ("Passes", ", ".join(each.kind for each in self.recipe.passes) or "none"),
            ("Optional sources that were not there", ", ".join(s.name for s in self.recipe.sources
                                                               if s.name not in self.tally.sources) or None),
            ("Left out by name", ", ".join(self.recipe.exclude) or None),
            ("Removed after the build", ", ".join(files.get("removed_later") or ()) or None),
            ("Ids that stood twice", _twice(self.tally.renamed)),
            ("Code", str(files["code"])),
        ]  # fmt: skip


def _twice(renamed: Counter[str]) -> str | None:
    """How many, and the first of them by name."""
    if not renamed:
        return None
    shown = ", ".join(sorted(renamed)[:5])
    return f"{sum(renamed.values()):,}, now with ~2, ~3 … at their end: {shown}{' …' if len(renamed) > 5 else ''}"


def card_markdown(card: Card) -> str:
    t = card.tally
    parts = [f"# Data card: {card.recipe.name}", card.recipe.description, card.headline]
    parts.append("\n".join(f"- {name}: {value}" for name, value in card.facts() if value))
    parts += ["## Sources", _grid(["source", "in", "kept", "removed", "characters in", "characters kept", "images kept",
                                    "licence where none is stated"], card.sources())]  # fmt: skip
    parts += ["## Removed, by reason", f"{t.documents_in:,} = {t.documents_kept:,} + {sum(t.removed.values()):,}."]
    rows: Rows = []
    for reason, count, share in card.removals():
        found = card.example(reason)
        rows.append([f"`{reason}`", count, percent(share, 2), _inline(found) if found else ""])
    parts.append(_grid(["reason", "records", "share", "example"], rows))
    parts += ["## Changed, by step", _grid(["step", "documents", "characters before", "after", "difference"],
                                           card.changes())]  # fmt: skip
    for title, counts in (("Licences", t.licenses), ("Languages", t.languages), ("Years", t.years)):
        rows = [[name, docs, chars, percent(share)] for name, docs, chars, share in card.shares(counts)[:_ROWS]]
        parts += [f"## {title}", _grid([title.lower(), "documents", "characters", "share"], rows)]
    lines = card.attribution()
    parts += ["## Attribution", "\n".join(f"- {_plain(line)}" for line in lines[:_LINES])]
    if len(lines) > _LINES:
        parts.append(f"And {len(lines) - _LINES:,} more, which the manifests hold.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(head: Sequence[str], rows: Rows) -> str:
    if not rows:
        return "None."
    lines: list[Sequence[Any]] = [head, ["---:" if isinstance(cell, int) else "---" for cell in rows[0]], *rows]
    return "\n".join(
        "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else _plain(str(cell)) for cell in line) + " |"
        for line in lines
    )


def _plain(text: str) -> str:
    """Text from documents must not become markup, nor end a cell."""
    safe = "".join(c if c.isprintable() else " " for c in text)
    for mark in "\\|<>*_[]#":
        safe = safe.replace(mark, f"\\{mark}") if mark != "_" else safe
    return " ".join(safe.split())


def _inline(example: Example) -> str:
    detail = f" ({example['detail']})" if example["detail"] else ""
    start = " ".join(quoted(example).split())[:100]
    return f"{example['document'][:80]}{detail[:120]}" + (f": “{start}…”" if start else "")


def quoted(example: Example) -> str:
    """The text of an example, where a card may show it: a card is published; what was harmful is not, and what went
    before it came to the step that masks personal data is masked."""
    return "" if example["step"] in UNQUOTED else masked(str(example["before"]))


def card_html(card: Card) -> str:
    t = card.tally
    chars_in = sum(c["chars_in"] for c in t.sources.values())
    chars_kept = sum(c["chars_kept"] for c in t.sources.values())
    head = cards(
        [
            ("Documents kept", compact(t.documents_kept), f"of {t.documents_in:,} records that came in"),
            ("Characters kept", compact(chars_kept), f"{percent(chars_kept / max(chars_in, 1))} of what was read"),
            (
                "Removed",
                compact(sum(t.removed.values())),
                "for one reason" if len(t.removed) == 1 else f"for {len(t.removed)} reasons",
            ),
        ]
    )
    sections = [
        section("What it is", facts(card)),
        section(
            "Sources",
            table(
                ["source", "in", "kept", "removed", "characters in", "characters kept", "images kept", "licence"],
                card.sources(),
            ),
            note="The licence is the one that holds where a record states none.",
        ),
        section(
            "Removed by reason",
            _removed(card),
            note=f"Every record is accounted for: {t.documents_in:,} = {t.documents_kept:,} kept + "
            f"{sum(t.removed.values()):,} removed.",
        ),
        section("Changed by step", _changed(card)),
        *(
            section(title, _shares(title, card.shares(counts)))
            for title, counts in (("Licences", t.licenses), ("Languages", t.languages), ("Years", t.years))
        ),
        section("Attribution", _attribution(card.attribution())),
    ]
    return page(
        f"Data card: {card.recipe.name}", sections, kicker="Data card", lead=card.recipe.description or card.headline,
        head=[head], footer="Made by foretell data build.",
    )  # fmt: skip


def facts(card: Card) -> Html:
    return definitions(card.facts())


def _removed(card: Card) -> Html:
    rows = [[reason, count, percent(share, 2)] for reason, count, share in card.removals()]
    if not rows:
        return el("p", "Nothing was removed.")
    shown = []
    for reason, count, _ in card.removals()[:_ROWS]:
        found = [e for e in card.examples if e["group"] == f"removed {reason}"]
        if found:
            shown.append(details(f"{reason}: {min(len(found), count)} of {count:,}", *map(_example, found)))
    return join([table(["reason", "records", "share"], rows, align="lrr"), *shown])


def _example(example: Example) -> Html:
    detail = f" · {example['detail']}" if example["detail"] else ""
    about = el("p", el("strong", example["document"]), f" of {example['source']}", el("span", detail, class_="soft"))
    text = quoted(example)[:_EXAMPLE]
    return join([about, el("pre", text, class_="reads")]) if text else about


def _changed(card: Card) -> Html:
    rows = card.changes()
    if not rows:
        return el("p", "No step changed a text.")
    return table(["step", "documents", "characters before", "after", "difference"], rows)


def _shares(title: str, rows: Rows) -> Html:
    shown = [[name, docs, chars, percent(share)] for name, docs, chars, share in rows[:_ROWS]]
    more = el("p", f"And {len(rows) - _ROWS:,} more.", class_="note") if len(rows) > _ROWS else ""
    return join([table([title.lower(), "documents", "characters", "share"], shown, align="lrrr"), more])


def _attribution(lines: Sequence[str]) -> Html:
    listed = el("ul", *(el("li", line) for line in lines[:_LINES]))
    more = f"And {len(lines) - _LINES:,} more, which the manifests hold." if len(lines) > _LINES else ""
    return join([listed, el("p", more, class_="note") if more else ""])
