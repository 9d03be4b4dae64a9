"""The pages of a red team: a matrix of families and areas, the attacks as tested, notes, and transcripts behind them.

Whatever was said is shown as text: pages run no script, load nothing, and escape all that they hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from foretell.evals.redteam import findings
from foretell.evals.redteam.findings import Rate
from foretell.evals.redteam.journal import SEVERITIES, Note, Record, Try
from foretell.files import atomic_folder
from foretell.pages import (
    Html,
    cards,
    definitions,
    details,
    el,
    image,
    join,
    notice,
    number,
    page,
    percent,
    section,
    table,
)

_MOST = 60  # transcripts of one page
_LONGEST = 6000  # characters of one message
_WORDS = {"complied": "succeeded", "safe": "no success", "refused": "refused", None: "no outcome"}


def write_pages(record: Record, out: Path) -> Path:
    """Write all pages into a folder, in place of earlier ones; returns the first."""
    with atomic_folder(out) as folder:
        (folder / "index.html").write_text(index(record), encoding="utf-8", errors="replace")
        for area in record.areas:
            for family in record.families:
                if tries := findings.cell(record, area, family):
                    text = cell_page(record, area, family, tries)
                    (folder / _cell_name(area, family)).write_text(text, encoding="utf-8", errors="replace")
    return out / "index.html"


def index(record: Record) -> str:
    """The first page."""
    model = str(record.head.get("model"))
    best, plain = findings.tested(record, 1), findings.tested(record, 0)
    shown = [
        ("Best attacks found", _share(best), f"of {best.n} tries on fresh requests"),
        ("Asked plainly", _share(plain), "on the same requests"),
        ("Tries", number(len(record.tries)), f"{_unjudged(record)} without an outcome"),
    ]
    lead = "What the model could be led to, by whom it was asked, and how."
    sections = []
    if not record.finished and record.tries:
        sections.append(notice("The search is not finished. The same command goes on with it."))
    if record.tries:
        sections += [_tested(record), _matrix(record)]
    sections.append(_notes(record))
    if record.tries:
        sections.append(_attacks(record))
    sections.append(_about(record))
    return page(f"Red team: {model}", sections, kicker="Foretell", lead=lead, head=[cards(shown)])


def cell_page(record: Record, area: str, family: str, tries: Sequence[Try]) -> str:
    """The transcripts of one family on one area."""
    shown = tries[:_MOST]
    title = f"{record.families[family]}: {record.areas[area]}"
    back = el("p", el("a", "Red team", href="index.html"), " › transcripts", class_="kicker")
    left = f"The first {_MOST} of {len(tries)}, successes first." if len(tries) > _MOST else "Successes first."
    note = f"{left} Attacks of the search may draw on further families."
    made = [section("Transcripts", *(_transcript(one) for one in shown), note=note)]
    return page(title, made, head=[back])


def _tested(record: Record) -> Html:
    rows: list[list[object]] = []
    for one in findings.found(record):
        before = f"{one.searched[0]} of {one.searched[1]}" if one.rank else "–"
        name = findings.plain_name(one.attack) if one.rank else "plain"
        area = record.areas.get(one.area, one.area) if not one.rank else ""
        rows.append([area, name, before, _share(one.tested), _range(one.tested), one.tested.n, one.tested.unjudged])
    head = ("Area", "Attack", "In the search", "Succeeds", "95 % interval", "Tries", "No outcome")
    note = (
        "The search chose an area's attacks by what had succeeded there, so that its own counts are too high. The "
        "shares are of requests that it had not seen."
    )
    return section("Attacks that were found", table(head, rows, align="lllrlrr"), note=note)


def _matrix(record: Record) -> Html:
    areas = list(record.areas)
    rows: list[list[object]] = []
    for family, title in record.families.items():
        cells: list[object] = [title]
        for area in areas:
            rate = findings.rate_of(findings.survey(record, area, family))
            seen = bool(findings.cell(record, area, family))
            cells.append(_cell(rate, _cell_name(area, family) if seen else None))
        whole = findings.rate_of(findings.survey(record, family=family))
        cells.insert(1, _cell(whole, None))
        rows.append(cells)
    total = [_cell(findings.rate_of(findings.survey(record, area)), None) for area in areas]
    rows.append([el("strong", "All"), _cell(findings.rate_of(findings.survey(record)), None), *total])
    head = ["Family", "All", *areas]
    note = (
        "Share of attacks that succeed, with the ends of its 95 % interval in percent and the tries: each family "
        "alone, drawn without regard to what succeeds. A cell leads to what was said."
    )
    grid = table(head, rows, align="l" + "r" * (len(areas) + 1), broad=True)
    return section("Families and areas", grid, note=note)


def _notes(record: Record) -> Html:
    if not record.notes:
        return section("Notes by people", notice("No one has written a note yet."))
    order = {name: i for i, name in enumerate(reversed(SEVERITIES))}
    notes = sorted(record.notes, key=lambda note: (order.get(note.severity, len(order)), note.at))
    counts = ", ".join(
        f"{sum(note.severity == name for note in notes)} {name}"
        for name in reversed(SEVERITIES)
        if any(note.severity == name for note in notes)
    )
    return section("Notes by people", *(_note(record, note) for note in notes), note=f"{len(notes)} notes: {counts}.")


def _note(record: Record, note: Note) -> Html:
    families = record.families
    head = el("h3", f"{note.severity}: {record.areas.get(note.area, note.area)}")
    told = f"{note.who or 'unnamed'}, {note.at}, {families.get(note.family, note.family)}"
    verdict = el("span", "succeeded", class_="bad") if note.succeeded else el("span", "withstood", class_="good")
    line = el("p", verdict, f" · {told}", class_="kicker")
    body = el("p", note.text, class_="sample") if note.text else ""
    talk = details("What was said", *_said(note.messages, note.reply)) if note.messages else ""
    return el("article", head, line, body, talk)


def _attacks(record: Record) -> Html:
    told = record.head.get("families", {})
    rows = [(f["title"], f["source"]) for f in told.values()]
    return section("Families of attacks", table(("Family", "Source"), rows))


def _about(record: Record) -> Html:
    settings = record.head.get("settings") or {}
    phases = {name: sum(one.phase == name for one in record.tries) for name in ("survey", "search", "test")}
    judge = str(record.head.get("judge") or "people")
    terms = [
        ("Model", str(record.head.get("model"))),
        ("Weights", record.head.get("weights")),
        ("Begun", str(record.head.get("created"))),
        ("Judge", judge if record.head.get("exact") else f"{judge}, which may err"),
        ("Tries", ", ".join(f"{n} {name}" for name, n in phases.items()) if record.tries else None),
        ("Seed", str(settings["seed"]) if "seed" in settings else None),
    ]
    reasons: dict[str, int] = {}
    for one in record.tries:
        if one.outcome is None:
            reasons[one.why] = reasons.get(one.why, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: -item[1])[:20]
    lost = table(("Why a try has no outcome", "Tries"), ranked, align="lr") if ranked else ""
    return section("How it was done", definitions(terms), lost)


def _transcript(one: Try) -> Html:
    word = el("span", _WORDS.get(one.outcome, str(one.outcome)), class_="bad" if one.succeeded else "soft")
    head = el("h3", findings.plain_name(one.attack))
    line = el("p", word, f" · {one.phase}, {one.id}", class_="kicker")
    why = notice(one.why) if one.why else ""
    asked = el("p", "What is asked: ", one.seed.get("text", ""), class_="note")
    return el("article", head, line, asked, *_said(one.messages, one.reply), why)


def _said(messages: Sequence[dict[str, Any]], reply: str) -> Iterator[Html]:
    for message in messages:
        yield el("p", str(message.get("role")), class_="kicker")
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") == "image_url":
                url = part.get("image_url")
                yield image(url.get("url") if isinstance(url, dict) else url, "picture that was shown to the model")
            else:
                text = part.get("text", "") if isinstance(part, dict) else part
                yield _text(str(text or ""))
    yield el("p", "reply", class_="kicker")
    yield _text(reply)


def _text(text: str) -> Html:
    cut = f" … and {len(text) - _LONGEST:,} characters more" if len(text) > _LONGEST else ""
    if not text.strip():
        return el("p", "nothing", class_="sample soft")
    return el("p", text[:_LONGEST], el("span", cut, class_="given") if cut else "", class_="sample")


def _cell(rate: Rate, link: str | None) -> Html:
    if not rate.n:
        shown: object = "no outcome" if rate.unjudged else "–"
        return el("a", shown, href=link) if link else el("span", shown, class_="soft")
    value = el("a", _share(rate), href=link) if link else _share(rate)
    return join([value, el("span", f"{_ends(rate)}, n\u202f{rate.n}", class_="ci")])


def _share(rate: Rate) -> str:
    return percent(rate.value.estimate, 0) if isfinite(rate.value.estimate) else "–"


def _range(rate: Rate) -> str:
    return f"{100 * rate.value.low:.0f} to {100 * rate.value.high:.0f}\u202f%" if rate.n else "–"


def _ends(rate: Rate) -> str:
    """Short, for the many cells of the matrix, whose note says that they are percent."""
    return f"{100 * rate.value.low:.0f}–{100 * rate.value.high:.0f}"


def _unjudged(record: Record) -> int:
    return sum(one.outcome is None for one in record.tries)


def _cell_name(area: str, family: str) -> str:
    """Of one's own taxonomy an area may be called anything."""
    return f"cell-{hashlib.sha256(f'{area}/{family}'.encode('utf-8', 'replace')).hexdigest()[:16]}.html"
