"""What several parts need: names of a model's stages, commands, and tables of summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
from foretell.report.card.figures import Document, Figure, Given, Number, Prose, Quote, Steps, View

Column = tuple[str, str, Sequence[Cell]]  # head, alignment (l or r), a cell a row
_MOST_ROWS, _MOST_ARMS = 16, 8
_COMPARED = ("before", "change")  # arms that stand beside the result of their measure
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


def then_card(evidence: Evidence, *runs: tuple[str, str], name: str = "") -> Command:
    """Commands that measure, each with the model's reference between its words, and the one that puts what they found
    on the card. name: of the log that the only one writes."""
    line: list[Prose | Given] = []
    for before, after in runs:
        record = f" --record-path measured/{name}.jsonl" if name else ""
        line += [Prose(f"foretell {before} "), evidence.given, Prose(f" {after}{record}\n")]
    return Command((*line, Prose("foretell card "), evidence.given, Prose(" --with measured")))


def by_evals(evidence: Evidence, *names: str) -> Command | None:
    """The command that runs those of some evals which this version has; None where it has none of them."""
    from foretell.evals.api import open_registry

    known = open_registry().evals
    asked = [name for name in names if name in known and (name != "memorised" or planted(evidence))]
    runs = [("eval run", f"{name} --record-path measured/{name}.jsonl") for name in asked]
    return then_card(evidence, *runs) if runs else None


def planted(evidence: Evidence) -> bool:
    """Whether the run read a file of planted secrets (`foretell data plant`), by the name of a source or its file."""
    recipe = evidence.recipe
    sources = [] if recipe is None else recipe.rows("data", "sources")
    named = [f"{row.text('name')} {row.text('path').rpartition('/')[2]}".lower() for row in sources]
    return any("secret" in name or "plant" in name for name in named)


def nothing_planted(evidence: Evidence, document: Document) -> bool:
    """Whether a summary says that no secret was given back by a run that read none, which is no result."""
    if _family(document) != "memorised" or not evidence.trained_here or planted(evidence):
        return False
    return not any(row.get("estimate") for row in document.rows("rows") if row.text("measure") == "extracted")


def _family(document: Document) -> str:
    return document.text("eval").partition(".")[0]


def left(evidence: Evidence, evals: Mapping[str, str]) -> list[Block]:
    """What of some evals was not measured, each with its command. evals: what each measures, by its name."""
    found = {_family(each.document) for form in ("summary", "eval") for each in evidence.of(form)}
    wanted = ((what, by_evals(evidence, name)) for name, what in evals.items() if name not in found)
    return [Missing(Prose(what), again) for what, again in wanted if again is not None]


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
    if nothing_planted(evidence, document):
        return [*lead, Notice((Prose("Nothing was planted in the training data, so nothing could be given back."),))]
    if not rows:
        return [*lead, Missing(Prose("none of its rows holds a number"), how=NOTHING)]
    whole = [row for row in rows if not row.text("arm")]
    compared = {(_measure(row), row.text("arm")): row for row in rows if whole and row.text("arm") in _COMPARED}
    parts = [row for row in rows if row.text("arm") and (_measure(row), row.text("arm")) not in compared]
    if not whole:
        return [*lead, *_arms(parts)]
    fold: list[Block] = []
    if parts and len(whole) + len(parts) > _MOST_ROWS:
        fold = [Fold(Prose("By part"), [_rows(parts, {})])]
    else:
        whole += parts
    drawn: list[tuple[Prose | Quote, list[Number | None]]] = [
        (name, [_estimate(row)])
        for row in whole
        if _row_form(row) == "share" and not row.text("arm") and (name := row.quote("title")) is not None
    ]
    chart: list[Block] = []
    if 1 < len(drawn) <= _MOST_ROWS:
        chart = [Chart(Prose("Results of this measurement"), [stage_name(evidence, each.stage)], drawn)]
    return [*lead, *chart, _rows(whole, compared), *fold]


def _measure(row: View) -> str:
    return row.text("measure") or row.text("title")


def _row_form(row: View) -> str:
    form = row.text("form")
    return form if form in ("share", "number", "percent", "count", "points") else "share"


def _estimate(row: View | None, form: str = "") -> Figure | None:
    return None if row is None else row.figure("estimate", form=form or _row_form(row), ends=("low", "high"))


def _rows(rows: Sequence[View], compared: Mapping[tuple[str, str], View]) -> Grid:
    """A row each, with what it was before and the paired change where another row of the measure tells them."""

    def arm(row: View, name: str, form: str) -> Figure | None:
        return None if row.text("arm") else _estimate(compared.get((_measure(row), name)), form)

    changes = ["points" if _row_form(row) == "share" else _row_form(row) for row in rows]
    columns: list[Column] = [
        ("Measure", "l", [row.quote("title") for row in rows]),
        ("Arm", "l", [row.quote("arm") for row in rows]),
        ("Before", "r", [arm(row, "before", _row_form(row)) for row in rows]),
        ("Result", "r", [_estimate(row) for row in rows]),
        ("Change", "r", [arm(row, "change", form) for row, form in zip(rows, changes, strict=True)]),
        ("Asked", "r", [row.figure("n", form="count") for row in rows]),
    ]
    return filled(columns)


def _arms(rows: Sequence[View]) -> list[Block]:
    """Measures whose rows are all arms, such as a task with its image and without: a row each, a column an arm."""
    arms = {row.text("arm"): row.quote("arm") for row in rows}
    by = {(row.text("title"), row.text("arm")): row for row in rows}
    titles = {row.text("title"): row for row in rows}
    if len(arms) > _MOST_ARMS:
        return [_rows(rows, {})]
    shares = [arm for arm in arms if all(_row_form(row) == "share" for row in rows if row.text("arm") == arm)]
    names = [quote for arm in shares[:5] if (quote := arms[arm]) is not None]
    drawn: list[tuple[Prose | Quote, list[Number | None]]] = [
        (name, [_estimate(by.get((title, arm))) for arm in shares[:5]])
        for title, row in titles.items()
        if (name := row.quote("title")) is not None
    ]
    head: list[Cell] = [Prose("Measure"), *arms.values(), Prose("Asked")]
    body: list[list[Cell]] = [
        [row.quote("title"), *(_estimate(by.get((title, arm))) for arm in arms), row.figure("n", form="count")]
        for title, row in titles.items()
    ]
    chart: list[Block] = [Chart(Prose("Results of this measurement"), names, drawn)] if names else []
    return [*chart, Grid(head, body, align="l" + "r" * (len(head) - 1))]


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
