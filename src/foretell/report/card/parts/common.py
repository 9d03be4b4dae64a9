"""What several parts need: names of a model's stages, commands, and tables of summaries."""

from __future__ import annotations

from collections.abc import Iterable

from foretell.report.card.blocks import Block, Cell, Chart, Command, Grid, Missing, Notice, Paragraph
from foretell.report.card.evidence import Evidence, Measurement
from foretell.report.card.figures import Document, Number, Prose, Quote, Steps

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
    rows, drawn = [], []
    for i in range(document.count("rows")):
        form = document.text("rows", i, "form")
        form = form if form in ("share", "number", "percent", "count", "points") else "share"
        value = document.figure("rows", i, "estimate", form=form, low=("rows", i, "low"), high=("rows", i, "high"))
        title = document.quote("rows", i, "title")
        if title is None or value is None:
            continue
        arm = document.quote("rows", i, "arm")
        rows.append((title, arm, value, document.figure("rows", i, "n", form="count")))
        if form == "share" and arm is None:
            drawn.append((title, [value]))
    if not rows:
        return [Missing(Prose("a summary was given, and none of its rows holds a number"))]
    arms = any(arm is not None for _, arm, _, _ in rows)
    head: list[Cell] = [Prose("Measure"), *([Prose("Arm")] if arms else []), Prose("Result"), Prose("Asked")]
    told = [[title, *([arm] if arms else []), value, n] for title, arm, value, n in rows]
    title = document.quote("title")
    note = document.quote("note")
    lead: list[Block] = [Paragraph((title, Prose(", "), stage_name(evidence, each.stage), Prose(".")))] if title else []
    lead += [Notice((note,))] if note else []
    chart: list[Block] = (
        [Chart(Prose("Results of this measurement"), [stage_name(evidence, each.stage)], drawn)]
        if 1 < len(drawn) <= 24
        else []
    )
    return [*lead, *chart, Grid(head, told, align="ll" + "rr" if arms else "lrr")]


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
