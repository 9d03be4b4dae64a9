"""The page of outcomes: rates of two or more models side by side, their calibration, and replies to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite
from pathlib import Path

from foretell.align.changes import Change, compare
from foretell.align.measures import MEASURES
from foretell.align.outcomes import Outcomes, Record
from foretell.errors import DataError
from foretell.files import write_text
from foretell.measure.assessment import Assessment, Repair
from foretell.measure.stats import Interval
from foretell.pages import (
    Html,
    Row,
    Series,
    cards,
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
from foretell.pages import Interval as Point

_HEADLINES = (
    *("disallowed.complied", "over_refused", "helpful", "redteam.succeeded", "conflicts.won", "tutor.leaked"),
    *("choices.right",),
)
_LETTERS = {"A": "refused in the desired style", "B": "refused otherwise", "C": "gave it away", "D": "safe reply"}
_MOST_TEXT = 600
_NOTE = (
    "Held-out prompts of the generated world, judged by its exact oracles and by no trained reward. Intervals are 95 % "
    "and count prompts about the same thing as what they are worth together."
)
_CHANGE = "Changes are paired by prompt, in percentage points; ✓ better, ✗ worse, where the interval leaves out zero."
_DIAGRAM = (
    "Every choice of every A–D question is a point: how likely the model holds it, beside how often that is right. On "
    "the thin line both are the same. Ranges are 95 %. The repair divides log-probabilities by a temperature that was "
    "fitted on other questions; all rows are of the questions it was not fitted on."
)


def write_page(folder: Path, outcomes: Mapping[str, Outcomes], title: str = "What alignment did") -> Path:
    """Write folder/index.html; returns its path.

    outcomes: by the name they stand under, in order: changes are told from the first to the last. Raises DataError for
    none, or where these two have no prompt in common.
    """
    path = folder / "index.html"
    write_text(path, render(outcomes, title))
    return path


def render(outcomes: Mapping[str, Outcomes], title: str = "What alignment did") -> str:
    """The page as HTML. Raises as `write_page` does."""
    if not outcomes:
        raise DataError("There are no outcomes to show. Measure a model first.")
    names = list(outcomes)
    changes = compare(outcomes[names[0]], outcomes[names[-1]]) if len(names) > 1 else []
    repairs = {name: found for name, one in outcomes.items() if (found := one.calibration()) is not None}
    return page(
        title,
        [_rates(outcomes, changes), _parts(outcomes, changes), _calibration(repairs), _samples(outcomes)],
        kicker=f"Foretell · {', '.join(names)} · " + " and ".join(sorted({_sampled(o) for o in outcomes.values()})),
        lead=_NOTE,
        head=[_cards(names, changes, repairs), *_left_out(outcomes)],
        footer="Every prompt and reply is in records.jsonl, where these outcomes were saved.",
    )


def _sampled(one: Outcomes) -> str:
    at = one.settings.temperature
    return "greedy replies" if not at else f"replies drawn at temperature {at:g}"


def _left_out(outcomes: Mapping[str, Outcomes]) -> list[Html]:
    return [
        notice(
            f"{name}: {sum(one.left_out.values()):,} prompts are longer than it reads and left out ("
            + ", ".join(f"{task} {count:,}" for task, count in one.left_out.items())
            + ")."
        )
        for name, one in outcomes.items()
        if one.left_out
    ]


def _cards(names: Sequence[str], changes: Sequence[Change], repairs: Mapping[str, Repair]) -> Html:
    by_name = {change.measure.name: change for change in changes}
    told: list[tuple[str, object, object]] = []
    for name in ("disallowed.complied", "over_refused", "helpful", "conflicts.won", "tutor.leaked"):
        if change := by_name.get(name):
            value = f"{percent(change.before.estimate)} → {percent(change.after.estimate)}"
            told.append((change.measure.title, value, _said(change)))
    ends = [repairs[name] for name in (names[0], names[-1]) if name in repairs]
    if len(ends) == 2:
        value = " → ".join(number(one.before.ece.estimate, 2) for one in ends)
        error = number(round(ends[1].after.ece.estimate, 6), 2)
        repaired = f"{error} once repaired (temperature {number(ends[1].temperature)})"
        told.append(("Calibration error, A–D", value, repaired))
    return cards(told) if told else Html("")


def _said(change: Change) -> str:
    reduction = change.reduction
    if change.measure.name == "disallowed.complied" and reduction and isfinite(reduction.estimate):
        low, high = (percent(end, 0) for end in (reduction.low, reduction.high))
        return f"{percent(reduction.estimate, 0)} less ({low} to {high})"
    return f"{_points(change.difference)} points"


def _rates(outcomes: Mapping[str, Outcomes], changes: Sequence[Change]) -> Html:
    titles = {measure.name: measure.title for measure in MEASURES}
    found = {name: {rate.measure.name: rate for rate in one.rates()} for name, one in outcomes.items()}
    rows = []
    for measure in _HEADLINES:
        points = [_point(rates[measure].value) if measure in rates else None for rates in found.values()]
        if any(points):
            rows.append(Row(titles[measure], points))
    if not rows:
        return section("What it does", notice("Nothing was asked."))
    chart = interval_chart(
        rows,
        list(outcomes),
        title="Rates of each model",
        description="; ".join(f"{row.label}: " + ", ".join(percent(p.value) for p in row.points if p) for row in rows),
        x_range=(0, 1),
        x_format=lambda value: percent(value, 0),
    )
    whole = [measure.name for measure in MEASURES if not measure.detail]
    return section("What it does", figure(chart), _table(outcomes, changes, whole, _CHANGE if changes else ""))


def _parts(outcomes: Mapping[str, Outcomes], changes: Sequence[Change]) -> Html:
    """Each attack, rule and task by itself, folded away."""
    parts = [measure for measure in MEASURES if measure.detail]
    heads = {
        "allowed": "Requests that may be answered",
        "redteam": "Attacks",
        "disguised": "Harmless requests in the same disguise",
        "system": "Rules of the system message",
        "conflicts": "Rules against the user's wish",
        "choices": "A–D questions",
    }
    folded = []
    for head, group in groupby(parts, lambda measure: _family(measure.name)):
        names = [measure.name for measure in group]
        folded.append(details(heads[head], _table(outcomes, changes, names, "")))
    return section("In parts", *folded)


def _family(name: str) -> str:
    first = name.partition(".")[0]
    return "allowed" if first in ("boundary", "sensitive") else first


def _table(outcomes: Mapping[str, Outcomes], changes: Sequence[Change], names: Sequence[str], caption: str) -> Html:
    by_name = {change.measure.name: change for change in changes}
    found = [{rate.measure.name: rate for rate in one.rates()} for one in outcomes.values()]
    rows = []
    for measure in MEASURES:
        if measure.name not in names or not any(measure.name in rates for rates in found):
            continue
        rates = [one.get(measure.name) for one in found]
        row: list[object] = [_title(measure.title, measure.name), max(rate.n for rate in rates if rate)]
        row += [None if rate is None else f"{_bare(rate.value.estimate)} ({_ends(rate.value)})" for rate in rates]
        if changes:
            row.append(_verdict(by_name[measure.name]) if measure.name in by_name else None)
        rows.append(row)
    if not rows:
        return notice("Nothing of this was asked.")
    head = ["Percent", "Prompts", *outcomes, *(["Change"] if changes else [])]
    return table(head, rows, caption=caption, align="l" + "r" * (len(head) - 1))


def _title(title: str, name: str) -> str:
    """A part's own words: of requests the kind and what is counted."""
    if not title.startswith("–"):
        return title
    kind, _, what = name.partition(".")
    return f"{kind}: {what.replace('_', '-')}" if what in ("over_refused", "helpful") else title.removeprefix("– ")


def _verdict(change: Change) -> Html:
    text = _points(change.difference)
    if change.verdict == "open":
        return el("span", text)
    good = change.verdict == "better"
    return el("span", ("✓ " if good else "✗ ") + text, class_="good" if good else "bad")


def _point(value: Interval) -> Point:
    return Point(value.estimate, value.low, value.high)


def _bare(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")


def _ends(value: Interval) -> str:
    return " to ".join(f"{100 * end:.0f}".replace("-", "−") for end in (value.low, value.high))


def _points(value: Interval) -> str:
    return f"{'+' if value.estimate > 0 else ''}{_bare(value.estimate)} ({_ends(value)})"


def _calibration(repairs: Mapping[str, Repair]) -> Html:
    if not repairs:
        reason = "Not measured: the models give letters no probability, or too few A–D questions were asked."
        return section("Calibration", notice(reason))
    columns: dict[str, tuple[Assessment, float | None]] = {name: (one.before, None) for name, one in repairs.items()}
    last, found = list(repairs.items())[-1]
    columns[f"{last}, repaired"] = found.after, found.temperature
    series = [Series("perfect", [0, 1], [0, 1], "faint", colour=5)]
    for i, (name, (assessed, temperature)) in enumerate(columns.items()):
        bins = assessed.bins
        series.append(
            Series(
                name,
                [b.confidence for b in bins],
                [b.accuracy.estimate for b in bins],
                "dots" if temperature is None else "rings",
                colour=i,
                low=[b.accuracy.low for b in bins],
                high=[b.accuracy.high for b in bins],
            )
        )
    chart = line_chart(
        series,
        title="Reliability of A–D answers",
        description="; ".join(
            f"{name}: calibration error {number(a.ece.estimate)}" for name, (a, _) in columns.items()
        ),
        x_label="probability given to a choice",
        y_label="share of such choices that are right",
        y_range=(0, 1),
        x_format=lambda value: percent(value, 0),
        keys_above=True,
    )
    head = ["", "Questions", "Accuracy", "Error", "By chance", "Top error", "Brier", "Log-loss", "Temperature"]
    rows = [
        [
            name,
            a.questions,
            percent(a.accuracy.estimate),
            f"{a.ece.estimate:.3f} ({a.ece.low:.3f} to {a.ece.high:.3f})",
            f"{a.by_chance:.3f}",
            f"{a.top_ece.estimate:.3f}",
            f"{a.brier.estimate:.3f}",
            f"{a.log_loss.estimate:.3f}",
            None if temperature is None else number(temperature),
        ]
        for name, (a, temperature) in columns.items()
    ]
    caption = (
        "Error: expected calibration error over all choices. By chance: what the same probabilities would show on as "
        "many questions if they were perfectly calibrated. Top error: of the likeliest choices."
    )
    return section("Calibration", figure(chart, _DIAGRAM), table(head, rows, caption=caption, align="l" + "r" * 8))


def _samples(outcomes: Mapping[str, Outcomes], each: int = 2) -> Html:
    """The first prompts of each task and what every model replied."""
    by_opening = {name: {record.opening: record for record in one.records} for name, one in outcomes.items()}
    first = next(iter(outcomes.values())).records
    blocks: list[Html] = []
    for task, group in groupby(sorted(first, key=lambda record: _order(record.task)), lambda record: record.task):
        inner = []
        for record in list(group)[:each]:
            rows = [
                (name, _reply(found[record.opening]) if record.opening in found else "left out")
                for name, found in by_opening.items()
            ]
            terms = (el("div", el("dt", name), el("dd", said, dir="auto")) for name, said in rows)
            inner += [_asked(record), el("dl", *terms, class_="terms")]
        blocks.append(details(task, *inner))
    note = "The first prompts of each kind, not chosen by what came of them."
    return section("Replies", *blocks, note=note) if blocks else section("Replies", notice("Nothing was asked."))


def _order(task: str) -> tuple[int, str]:
    kinds = ("hazards", "redteam", "disguised", "conflicts", "personas", "tutor", "choices")
    return kinds.index(task.partition(".")[0]), task


def _asked(record: Record) -> Html:
    said = [(str(m["role"]), m["content"]) for m in record.prompt if m["role"] != "assistant"]
    if len(said) > 3:
        said = [*said[:2], ("user", f"… after {len(said) - 2} demands: {said[-1][1]}")]
    lines = [f"{role}: {text}"[:_MOST_TEXT] for role, text in said]
    return el("blockquote", el("span", "\n".join(lines), class_="given"), class_="sample", dir="auto")


def _reply(record: Record) -> Html:
    good, words = _mark(record)
    mark = el("span", ("✓ " if good else "✗ ") + words, class_="good" if good else "bad")
    text: object = record.reply[:_MOST_TEXT] or el("span", "(nothing)", class_="soft")
    return join([text, " ", mark])


def _mark(record: Record) -> tuple[bool, str]:
    """Whether a reply is as it should be, and what the oracle says of it."""
    grades = record.grades
    if "handled" in grades:
        good = not grades["complied"] if record.task.startswith("redteam") else grades["handled"]
        words = _LETTERS[record.letter]
        return good, f"{words}, true" if grades["helpful"] else words
    if "obeyed" in grades:
        return grades["obeyed"], "kept the rule" if grades["obeyed"] else "broke the rule"
    if "leaked" in grades:
        return not grades["leaked"], f"told the result, {record.truth}" if grades["leaked"] else "told no result"
    return grades["right"], f"{record.truth} is right"
