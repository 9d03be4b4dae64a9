"""The page of a model's calibration: reliability before and after, what it comes to in numbers, and where from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foretell.evals.calibration import PUBLISHED, RECORDS, Calibration, Side, interval_text, plain
from foretell.evals.calibration_chart import Panel, reliability_chart
from foretell.files import write_json, write_text
from foretell.measure.assessment import Assessment, Change
from foretell.measure.calibration import Bin
from foretell.measure.stats import Interval
from foretell.pages import (
    Html,
    cards,
    code,
    definitions,
    details,
    el,
    figure,
    join,
    notice,
    number,
    page,
    percent,
    section,
    table,
)

_FIGURE = (
    "Every option of every question is a point: its probability beside whether it is the right one. Dots are bins at "
    "their mean probability, with 95 % whiskers (Wilson's, as if options were independent); on the diagonal, what is "
    "held likely is true to that degree. Below, how many options each bin holds, on a logarithmic scale."
)
_NAMES = ("questions", "accuracy, %", "error by chance", "error", "equal mass", "top", "Brier score", "log-loss")
_MEASURES = (
    "Ranges are 95 %, by a bootstrap over questions (whole groups of them), not over options. Error: expected "
    "calibration error over all options, in bins of equal width; equal mass: in bins of equally many; top: of the "
    "likeliest options alone; by chance: what the same probabilities would show if they were perfectly calibrated. "
    "The Brier score is over all options, the log-loss (nats) of the right one. Less is better, but for accuracy."
)


def write_report(found: Calibration, folder: Path | None = None) -> Path:
    """Write STEM-calibration.json and .html into a folder, by default beside the last log (of a run with outcomes: into
    the run, as calibration.json and .html); returns the page's path."""
    log = found.last.answers.path
    of_run = log.name == RECORDS
    folder = folder or (log.parents[2] if of_run else log.parent)
    stem = "calibration" if of_run else f"{log.stem}-calibration"
    write_json(folder / f"{stem}.json", plain(found))
    place = folder / f"{stem}.html"
    write_text(place, render(found, f"{stem}.json"))
    return place


def measures(found: Calibration) -> tuple[list[str], list[list[str]]]:
    """A table's head and rows as texts: a row a measure; the models, their difference, and the held-out questions
    without and with the temperature."""
    columns = {"before" if found.after else "all": _column(found.before.assessment)}
    if found.after is not None and found.change is not None:
        columns["after"] = _column(found.after.assessment)
        columns["difference"] = _changes(found.change)
    if (r := found.repair) is not None:
        columns["held out"] = _column(r.before)
        columns[f"at temperature {r.temperature:.3g}"] = _column(r.after)
    return ["", *columns], [[name, *(column[i] for column in columns.values())] for i, name in enumerate(_NAMES)]


def render(found: Calibration, summary: str = "") -> str:
    """The page as one string. summary: the name of the JSON file beside it."""
    last, repaired = found.last, found.repair
    after = found.after
    told: list[tuple[str, object, object]] = [
        ("Error before" if after else "Error", _plain(found.before), _ends(found.before.assessment.ece)),
    ]
    if after is not None and found.change is not None:
        told.append(("Error after", _plain(after), _ends(after.assessment.ece)))
    if repaired is not None and not found.stopped:  # at a bound the error says nothing of a repair
        was = f"{repaired.before.ece.estimate:.3f} of the same held-out questions without it"
        told.append((f"At temperature {repaired.temperature:.3g}", f"{repaired.after.ece.estimate:.3f}", was))
    names = " and ".join(dict.fromkeys(side.answers.model for side in (found.before, *([after] if after else []))))
    a = last.assessment
    return page(
        f"Calibration of {names}",
        [
            section("Reliability", figure(reliability_chart(_panels(found)), _FIGURE)),
            section("In numbers", *_tables(found), *_remarks(found)),
            section("Bins", *_bins(found)),
            section("As published", _published()),
            section("Where from", *_sources(found, summary)),
        ],
        kicker="foretell exam calibration",
        lead="Is what the model holds likely true to that degree? "
        f"{number(a.questions)} questions with {number(a.points)} options.",
        head=[cards(told)],
    )


def _panels(found: Calibration) -> list[Panel]:
    panels = [
        Panel(_title("Before", found.before, found), _note(found.before.assessment), found.before.assessment.bins)
    ]
    if found.after is not None:
        panels.append(
            Panel(_title("After", found.after, found), _note(found.after.assessment), found.after.assessment.bins)
        )
    if found.repair is not None:
        mended = found.repair.after
        what = f"At temperature {found.repair.temperature:.3g}" if found.stopped else "Repaired"
        panels.append(Panel(f"{what}, held-out part", _note(mended), mended.bins))
    return panels


def _title(what: str, side: Side, found: Calibration) -> str:
    name = side.answers.model.rstrip("/").rpartition("/")[2]
    name = name if len(name) <= 20 else f"{name[:19]}…"
    return f"{what}: {name}" if found.after else name


def _note(a: Assessment) -> str:
    return f"error {a.ece.estimate:.3f} ({a.ece.low:.3f} to {a.ece.high:.3f})"


def _tables(found: Calibration) -> list[Html]:
    """The models with their difference, and the repair: both together are wider than a page."""
    head, rows = measures(found)
    models = 4 if found.after else 2
    parts = [table(head[:models], [row[:models] for row in rows], caption=_MEASURES, align="lrrr")]
    if (r := found.repair) is not None:
        caption = (
            f"The temperature was fitted on {number(r.fitted)} questions and is judged here on the other "
            f"{number(r.before.questions)}. It keeps the order of options, and so the accuracy."
        )
        cut = [[row[0], *row[models:]] for row in rows]
        parts.append(table(["", *head[models:]], cut, caption=caption, align="lrr"))
    return parts


def _remarks(found: Calibration) -> list[Html]:
    said = []
    for what, side in (("Before", found.before), ("After", found.after)):
        if side is None:
            continue
        a, lead = side.assessment, f"{what}: " if found.after else ""
        if a.zeros or a.ones or a.floored:
            said.append(
                f"{lead}{number(a.zeros)} options have a probability of exactly 0 and {number(a.ones)} of exactly 1; "
                f"{number(a.floored)} right options count as 2.2·10⁻¹⁶ in the log-loss, since they have less."
            )
        if side.only_here:
            said.append(f"{lead}{number(side.only_here)} questions were asked of this model alone and do not count.")
        if side.answers.left_out:
            said.append(f"{lead}{number(side.answers.left_out)} rows hold no option probabilities.")
    said += [text for text in (found.note, found.stopped) if text]
    return [notice(text) for text in said]


def _bins(found: Calibration) -> list[Html]:
    head = ("from", "to", "options", "mean probability", "right", "95 % interval")
    parts = []
    for what, side in (("Before", found.before), ("After", found.after)):
        if side is not None:
            label = f"{what}: {side.answers.model}" if found.after else side.answers.model
            for name, bins in (("equal width", side.assessment.bins), ("equal mass", side.assessment.mass_bins)):
                parts.append(details(f"{label}, {name}", table(head, map(_bin, bins), align="rrrrrr")))
    return parts


def _bin(one: Bin) -> Sequence[object]:
    a = one.accuracy
    ends = f"{percent(a.low)} to {percent(a.high)}"
    return [percent(one.low), percent(one.high), one.count, percent(one.confidence), percent(a.estimate), ends]


def _published() -> Html:
    made = table(("model", "error", "source"), [(p.model, f"{p.ece:.3f}", p.source) for p in PUBLISHED], align="lrl")
    return join(
        [made, notice("Published figures of other models on other questions. They are no results of this one.")]
    )


def _sources(found: Calibration, summary: str) -> list[Html]:
    parts = []
    for what, side in (("Before", found.before), ("After", found.after)):
        if side is None:
            continue
        source = side.answers
        told = [
            ("Model", source.model), ("Eval", source.eval or None), ("Run", source.run or None),
            ("File", el("code", str(source.path))), ("SHA-256", el("code", source.sha256)),
        ]  # fmt: skip
        parts += [el("h3", what) if found.after else Html(""), definitions(told)]
    settings = f"{found.bins} bins, seed {found.seed}, {number(found.groups)} groups of questions"
    parts.append(definitions([("Settings", settings), ("Figures", el("code", summary) if summary else None)]))
    if source_log := next((s.answers.path for s in (found.last,) if s.answers.eval and s.answers.run), None):
        parts.append(details("The samples", code(f"foretell eval view {source_log}")))
    return parts


def _column(a: Assessment) -> list[str]:
    errors = [interval_text(value) for value in (a.ece, a.mass_ece, a.top_ece)]
    scores = [interval_text(value) for value in (a.brier, a.log_loss)]
    return [f"{a.questions:,}", _share(a.accuracy), f"{a.by_chance:.3f}", *errors, *scores]


def _changes(c: Change) -> list[str]:
    errors, scores = (
        [interval_text(x, 3, True) for x in some] for some in ((c.ece, c.mass_ece, c.top_ece), (c.brier, c.log_loss))
    )
    return ["", _share(c.accuracy, True), "", *errors, *scores]


def _share(value: Interval, signed: bool = False) -> str:
    return interval_text(Interval(*(100 * x for x in (value.estimate, value.low, value.high))), 1, signed)


def _plain(side: Side) -> str:
    return f"{side.assessment.ece.estimate:.3f}"


def _ends(value: Interval) -> str:
    return f"{value.low:.3f} to {value.high:.3f}"
