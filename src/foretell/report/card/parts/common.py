"""What several parts need: names of a model's stages, commands, and tables of summaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foretell.report.card.blocks import (
    NOTHING,
    Block,
    Cell,
    Chart,
    Command,
    Fold,
    Grid,
    Heading,
    Missing,
    Notice,
)
from foretell.report.card.evidence import Evidence, Measurement
from foretell.report.card.figures import Document, Figure, Number, Prose, Quote, Steps, View

Column = tuple[str, str, Sequence[Cell]]  # head, alignment (l or r), a cell a row
_MOST_ROWS = 16
_STAGES = {
    "": "the model",
    "pretrain": "before post-training",
    "sft": "after fine-tuning",
    "dpo": "after preference optimisation",
    "grpo": "after reinforcement learning",
    "ppo": "after RLHF",
}


def stage_name(evidence: Evidence, stage: str) -> Prose:
    """A stage in words."""
    return Prose("the model" if len(evidence.subject.stages) == 1 else _STAGES.get(stage, "an earlier stage"))


def heads(*words: str) -> list[Prose]:
    """The head of a table."""
    return [Prose(each) for each in words]


def filled(columns: Sequence[Column], caption: Prose = NOTHING, published: Sequence[str] = ()) -> Grid:
    """A table of its columns, without those that hold nothing. published: heads of what others published."""
    kept = [column for column in columns if any(cell is not None for cell in column[2])]
    body = [list(cells) for cells in zip(*(cells for _, _, cells in kept), strict=True)]
    grey = tuple(i for i, (name, _, _) in enumerate(kept) if name in published)
    return Grid(heads(*(name for name, _, _ in kept)), body, caption, "".join(letter for _, letter, _ in kept), grey)


def by_stage(evidence: Evidence, found: Iterable[Measurement]) -> list[Measurement]:
    """The last stage's measurements first, then the earlier ones'."""
    order = {stage: i for i, stage in enumerate(reversed(evidence.subject.stages))}
    return sorted(found, key=lambda each: order.get(each.stage, len(order)))


def command(evidence: Evidence, before: str, after: str = "") -> Command:
    """A command with the model's reference in its middle."""
    return Command((Prose(before), evidence.given, Prose(after)))


def then_card(evidence: Evidence, first: str, after: str = "", folder: str = "runs/evals") -> Command:
    """A command that measures, and the one that puts what it found on the card."""
    return Command(
        (Prose(first), evidence.given, Prose(after + "\nforetell card "), evidence.given, Prose(f" --with {folder}"))
    )


def summaries(evidence: Evidence, part: str) -> list[Block]:
    """Tables of what other commands measured of a part, in the form `foretell.summary`."""
    blocks: list[Block] = []
    for each in by_stage(evidence, (m for m in evidence.of("summary") if m.document.text("part") == part)):
        blocks += _summary(evidence, each)
    return blocks


def _summary(evidence: Evidence, each: Measurement) -> list[Block]:
    document = each.document
    rows = [row for row in document.rows("rows") if row.quote("title") and row.figure("estimate") is not None]
    lead: list[Block] = [Heading(Prose("Measured by another command"))]
    if (title := document.quote("title")) is not None:
        lead = [Heading((title, Prose(", "), stage_name(evidence, each.stage)))]
    if (note := document.quote("note")) is not None:
        lead.append(Notice((note,)))
    asked, invalid = document.figure("asked", form="count"), document.figure("invalid", form="count")
    if asked is not None and invalid is not None and invalid.value:
        lead.append(Notice((invalid, Prose(" of "), asked, Prose(" samples could not be judged and do not count."))))
    if not rows:
        return [*lead, Missing(Prose("none of its rows holds a number"), how=NOTHING)]
    whole = [row for row in rows if not row.text("arm")]
    parts = [row for row in rows if row.text("arm")]
    if not whole or len(rows) <= _MOST_ROWS:
        whole, parts = rows, []
    drawn: list[tuple[Prose | Quote, list[Number | None]]] = [
        (name, [_estimate(row)])
        for row in whole
        if _row_form(row) == "share" and not row.text("arm") and (name := row.quote("title")) is not None
    ]
    chart: list[Block] = []
    if 1 < len(drawn) <= _MOST_ROWS:
        chart = [Chart(Prose("Results of this measurement"), [stage_name(evidence, each.stage)], drawn)]
    fold: list[Block] = [Fold(Prose("By part"), [_rows(parts)])] if parts else []
    return [*lead, *chart, _rows(whole), *fold]


def _row_form(row: View) -> str:
    form = row.text("form")
    return form if form in ("share", "number", "percent", "count", "points") else "share"


def _estimate(row: View) -> Figure | None:
    return row.figure("estimate", form=_row_form(row), ends=("low", "high"))


def _rows(rows: Sequence[View]) -> Grid:
    """Measure, arm, before, result, change and number asked."""
    columns: list[Column] = [
        ("Measure", "l", [row.quote("title") for row in rows]),
        ("Arm", "l", [row.quote("arm") for row in rows]),
        ("Before", "r", [row.interval("before", form=_row_form(row)) for row in rows]),
        ("Result", "r", [_estimate(row) for row in rows]),
        ("Change", "r", [row.interval("difference", form=_changed(row)) for row in rows]),
        ("Asked", "r", [row.figure("n", form="count") for row in rows]),
    ]
    return filled(columns)


def _changed(row: View) -> str:
    form = _row_form(row)
    return "points" if form == "share" else form


def listed(document: Document, *at: str | int, most: int = 6) -> tuple[Prose | Quote, ...]:
    """The keys of an object as a line, the first so many."""
    keys = document.keys(*at)
    line: list[Prose | Quote] = []
    for i, key in enumerate(keys[:most]):
        quote = document.quote(*at, key, key=True)
        if quote is not None:
            line += [Prose(", ")] if i else []
            line.append(quote)
    if len(keys) > most:
        line.append(Prose(" and more"))
    return tuple(line)


def either(*figures: Number | None) -> Number | None:
    return next((figure for figure in figures if figure is not None), None)


def index_of(document: Document, at: Steps, key: str, value: str) -> int | None:
    """Where in a list of objects one stands whose `key` is `value`."""
    found = document.get(*at)
    rows = found if isinstance(found, list) else []
    return next((i for i, row in enumerate(rows) if isinstance(row, dict) and row.get(key) == value), None)
