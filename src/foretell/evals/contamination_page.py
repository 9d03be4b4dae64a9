"""The page of contamination: the report's three tables, the loss of each eval, and what was found where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.evals.contamination import Exposure, Part, Table, plain, tables
from foretell.files import write_json, write_text
from foretell.measure.stats import Interval
from foretell.pages import (
    Html,
    Row,
    cards,
    definitions,
    details,
    el,
    figure,
    interval_chart,
    join,
    notice,
    number,
    page,
    percent,
    section,
    size,
    table,
)
from foretell.pages import Interval as Point

_SHARES = ("contaminated",)
_MOST = 50  # items of an eval that are shown
_METHOD = (
    "Of each item and of the corpus only letters and digits are kept. Random substrings of each item (three of 50 "
    "characters unless told otherwise below; the whole item where it is shorter) are looked for in every document; one "
    "that stands there flags the item. Questions and contexts are looked for, not answers. The clean part's score "
    "is that of the other items in the same run; the lower of both is reported. A small change of the wording hides "
    "an item, and a short or common phrase flags one that was never seen."
)
_NOTES = (
    "The report's table 9: all exams, with the score on all questions and on those that were not found.",
    "The report's table 10. Short: found as a whole, though of fewer than 50 letters and digits. Degradation is the "
    "relative change, clean / all − 1. Ranges are 95 %, of how the model answers, with the flags as they are.",
    "The report's table 11: academic benchmarks of all models.",
)


def write_report(
    folder: Path, found: Sequence[Exposure], index: Mapping[str, Any], settings: Mapping[str, Any]
) -> Path:
    """Write folder/contamination.json and index.html; returns the page's path.

    index: what index.json of the corpus holds. settings: of the search, as they are told.
    """
    write_json(folder / "contamination.json", plain(found, index, settings))
    place = folder / "index.html"
    write_text(place, render(found, index, settings))
    return place


def render(found: Sequence[Exposure], index: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The page as one string."""
    parts = [section(t.title, _table(t), note=note) for t, note in zip(tables(found), _NOTES, strict=True) if t.rows]
    parts.insert(1 if len(parts) < 3 else 2, _chart(found))
    parts += [_items(found), _method(found, index, settings)]
    worst = max(found, key=lambda e: e.share)
    head = cards(
        [
            ("Items", number(sum(len(e.flags) for e in found)), "looked for"),
            ("Contaminated", number(sum(e.flagged for e in found)), "of them"),
            ("Most", percent(worst.share), worst.eval),
            ("Corpus", size(index["characters_bytes"]), f"of letters and digits in {index['documents']:,} documents"),
        ]
    )
    return page(
        "Contamination",
        [part for part in parts if part],
        kicker="foretell contamination check",
        lead="What of the evals stood in the training corpus, and what the scores are without it.",
        head=[head],
    )


def shown(value: Any, column: str = "") -> str:
    """A cell as text: shares as percent, intervals with their ends, "–" where there is nothing."""
    if value is None:
        return "–"
    if isinstance(value, Interval):
        if column.endswith("degradation"):
            return f"{percent(value.estimate)} ({percent(value.low)} to {percent(value.high)})"
        return f"{number(value.estimate)} ({number(value.low)} to {number(value.high)})"
    if column in _SHARES:
        return percent(float(value))
    return number(value) if isinstance(value, int | float) else str(value)


def _table(held: Table) -> Html:
    """What is to be reported stands before what it is made of, so that a narrow screen shows it."""
    words = ("eval", "model")
    first = [*words, "reported"]
    order = sorted(range(len(held.head)), key=lambda i: first.index(held.head[i]) if held.head[i] in first else 9)
    head = [held.head[i] for i in order]
    rows = [[_cell(row[i], held.head[i]) for i in order] for row in held.rows]
    return table(head, rows, align="".join("l" if column in words else "r" for column in head))


def _cell(value: Any, column: str) -> Html | str:
    """As `shown`, an interval's ends below its value."""
    said, opened, ends = shown(value, column).partition(" (")
    return join([said, " ", el("span", f"({ends}", class_="ci")]) if opened and isinstance(value, Interval) else said


def _chart(found: Sequence[Exposure]) -> Html:
    names = ("clean", "all", "contaminated only")
    of = [
        (f"{e.eval}, {e.model}", (e.clean, e.whole, e.contaminated)) for e in found if e.flagged and e.whole is not None
    ]
    rows = [Row(label, [_point(part) for part in parts]) for label, parts in of]
    if not rows:
        return Html("")
    values = [point.value for row in rows for point in row.points if point is not None]
    form = percent if values and max(values) <= 1 else number
    chart = interval_chart(
        rows, names, title="Scores of the clean part, of all and of the contaminated part", x_format=form
    )
    return section("With and without", figure(chart, "Scores with their 95 % intervals."))


def _point(part: Part | None) -> Point | None:
    return None if part is None or part.value is None else Point(part.value, part.low, part.high)


def _items(found: Sequence[Exposure]) -> Html:
    seen: dict[str, Html] = {}
    for e in found:
        hits = [flag for flag in e.flags if flag.contaminated]
        if not hits or e.eval in seen:
            continue
        more = f", the first {_MOST} shown" if len(hits) > _MOST else ""
        rows = [[flag.id, el("code", flag.hit), str(flag.where)] for flag in hits[:_MOST]]
        seen[e.eval] = details(f"{e.eval}: {len(hits)} items{more}", table(("item", "substring", "document"), rows))
    return section("What was found", *seen.values()) if seen else Html("")


def _method(found: Sequence[Exposure], index: Mapping[str, Any], settings: Mapping[str, Any]) -> Html:
    notes = [notice(f"{e.eval}: {e.note}") for e in found if e.note]
    if short := ", ".join(dict.fromkeys(f"{e.short} of {e.eval}" for e in found if e.short)):
        notes.append(
            notice(
                f"Found as a whole, but of fewer than 50 letters and digits, so that chance may have done it: {short}. "
                "With options, items are longer: --part options."
            )
        )
    told = [(key, str(value)) for key, value in settings.items()]
    case = "ignored" if index["ignore_case"] else "kept"
    made = [
        ("case", case),
        ("made of", f"{len(index['sources'])} files"),
        ("SHA-256 of the text", index["files"]["text.bin"]),
    ]
    rows = [[s["name"], s["documents"], size(s["bytes"]), el("code", s["sha256"][:16])] for s in index["sources"]]
    files = details("Files of the corpus", table(("file", "documents", "size", "SHA-256"), rows))
    return section("Method", el("p", _METHOD), join(notes), definitions([*told, *made]), files)
