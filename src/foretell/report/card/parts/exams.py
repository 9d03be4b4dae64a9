"""Exams with their percentiles, before and after post-training, beside published ones."""

from __future__ import annotations

from foretell.errors import EvalError
from foretell.report.card.blocks import Block, Cell, Chart, Command, Fold, Grid, Heading, Missing, Notice, Section
from foretell.report.card.evidence import Evidence, Measurement, compute, packaged
from foretell.report.card.figures import Document, Figure, Number, Prose, Quote
from foretell.report.card.parts.common import by_stage, heads, stage_name, summaries, then_card

_NOTE = Prose(
    "Percentile is the lower bound of the range that an exam's table gives to the score. The holdout of an exam is "
    "asked once; a later run of it is marked."
)


def exams(evidence: Evidence) -> Section:
    """A row an exam and model: points, scaled score, percentile, each with its interval over questions like these."""
    title = Prose("Exams")
    found = sorted(by_stage(evidence, evidence.of("exam")), key=lambda each: each.document.text("exam"))
    extra = summaries(evidence, "exams")
    if not found:
        missing = Missing(Prose("no exam was sat"), then_card(evidence, ("exam run", "world --holdout"), name="world"))
        return Section(title, extra or [missing])
    rows = [_exam_row(evidence, each.document, each.stage) for each in found]
    head = heads("Exam", "Which model", "Questions", "Points", "Of", "Score", "Percentile", "Seen before")
    blocks: list[Block] = [_exam_chart(evidence, found), Grid(head, rows, align="llrrrrrl")]
    blocks += _notices(found)
    blocks.append(_sections(evidence, found))
    blocks += _before_after(evidence, found)
    blocks += _published(evidence, found)
    first = found[0].document
    percentile, score = _percentile(first), _score(first)
    headline: list[tuple[Prose, Number, Cell]] = []
    if percentile is not None:
        headline.append((Prose("Exam percentile"), percentile, _exam_name(first)))
    elif score is not None:
        headline.append((Prose("Exam score"), score, _exam_name(first)))
    return Section(title, [*blocks, *extra], _NOTE, headline)


def _exam_name(document: Document) -> Cell:
    name, split = document.quote("exam"), document.quote("split")
    return None if name is None else (name, *((Prose(", "), split) if split else ()))


def _score(document: Document) -> Figure | None:
    return document.figure("final", "value", form="plain", low=("final", "low"), high=("final", "high"))


def _percentile(document: Document) -> Figure | None:
    low, high = ("final", "percentile_low"), ("final", "percentile_high")
    return document.figure("final", "percentile", 0, form="percentile", low=low, high=high)


def _exam_row(evidence: Evidence, document: Document, stage: str) -> list[Cell]:
    model = (stage_name(evidence, stage), *((Prose(", without images"),) if document.get("vision") is False else ()))
    return [
        _exam_name(document),
        model,
        document.figure("questions", form="count"),
        document.interval("raw", form="percentile"),
        document.figure("raw_highest", form="plain"),
        _score(document),
        _percentile(document),
        _seen(document),
    ]


def _seen(document: Document) -> Cell:
    """Whether the model had been asked these questions before."""
    if document.text("split") == "nonholdout":
        return Prose("questions to try settings on")
    attempt = document.get("attempt")
    if attempt == 1:
        return Prose("no")
    return (Prose("yes, run "), Figure(document, ("attempt",), "count")) if isinstance(attempt, int) else None


def _exam_chart(evidence: Evidence, found: list[Measurement]) -> Block:
    """Shares of points by exam and section, a point a model."""
    stages = list(dict.fromkeys(each.stage for each in found))
    rows: dict[tuple[str, str], tuple[Quote, list[Number | None]]] = {}
    for each in found:
        for section in each.document.rows("sections"):
            name, share = section.quote("name"), section.interval("share", form="share")
            if name is None or share is None:
                continue
            points = rows.setdefault((each.document.text("eval"), name.text), (name, [None] * len(stages)))[1]
            points[stages.index(each.stage)] = share
    names = [stage_name(evidence, stage) for stage in stages]
    caption = Prose("Share of the points of each section.")
    return Chart(Prose("Share of points by section"), names, list(rows.values()), caption=caption)


def _sections(evidence: Evidence, found: list[Measurement]) -> Block:
    rows: list[list[Cell]] = [
        [
            each.document.quote("exam"),
            section.quote("name"),
            section.quote("kind"),
            stage_name(evidence, each.stage),
            section.figure("n", form="count"),
            section.interval("share", form="share"),
            section.figure("blank", form="count"),
            section.figure("invalid", form="count"),
        ]
        for each in found
        for section in each.document.rows("sections")
    ]
    head = heads("Exam", "Section", "Kind", "Which model", "Questions", "Share of points", "Blank", "Not judged")
    return Fold(Prose("Sections of each exam"), [Grid(head, rows, align="llllrrrr")])


def _notices(found: list[Measurement]) -> list[Block]:
    notes: dict[str, Block] = {}
    for each in found:
        document = each.document
        title, note = document.quote("title"), document.quote("note")
        if title is not None and note is not None:
            notes.setdefault(note.text, Notice((title, Prose(": "), note)))
        asked, of = document.figure("questions", form="count"), document.figure("of_questions", form="count")
        if title is not None and asked is not None and of is not None and asked.value < of.value:
            rest = Prose(" questions were asked, so there is no total.")
            notes.setdefault(document.name, Notice((title, Prose(": only "), asked, Prose(" of "), of, rest)))
    return list(notes.values())


def _before_after(evidence: Evidence, found: list[Measurement]) -> list[Block]:
    """The report's table of a model before and after RLHF, paired by question."""
    from foretell.evals.exams.against import against
    from foretell.evals.exams.api import read_score

    stages = evidence.subject.stages
    if len(stages) < 2:
        return []
    first, last = ({m.document.text("eval"): m for m in found if m.stage == s} for s in (stages[0], stages[-1]))
    common = [name for name in last if name in first]
    if not common:
        base = f"/{stages[0]}/checkpoint world --holdout --record-path measured/before.jsonl\nforetell card "
        again = Command(
            (Prose("foretell exam run "), evidence.given, Prose(base), evidence.given, Prose(" --with measured"))
        )
        return [Missing(Prose("the same exam before post-training, to compare with"), again)]
    logs = [[by[name].document.made_from[0] for name in common] for by in (last, first)]
    try:
        after, before = ([read_score(log) for log in side] for side in logs)
        table = against(after, before)
    except EvalError:
        why = "The exams before and after post-training were asked in different ways, so they are not compared."
        return [Notice((Prose(why),))]
    value = {
        "baseline": table.baseline, "candidate": table.candidate, "mean": vars(table.mean),
        "rows": [{"exam": r.exam, "n": r.comparison.n, "baseline": r.baseline, "candidate": r.candidate,
                  "difference": vars(r.comparison.difference), "p": r.comparison.p} for r in table.rows],
    }  # fmt: skip
    made = evidence.computed("exams-before-after.json", value, [path for side in logs for path in side])
    rows: list[list[Cell]] = [
        [
            row.quote("exam"),
            row.figure("n", form="count"),
            row.figure("baseline", form="share"),
            row.figure("candidate", form="share"),
            row.interval("difference", form="points"),
        ]
        for row in made.rows("rows")
    ]
    means = [made.figure(side, form="share") for side in ("baseline", "candidate")]
    rows.append([Prose("Mean of exams"), None, *means, made.interval("mean", form="points")])
    published = packaged("published.yaml", "published")
    theirs = [published.figure("exams_mean", side, form="percent") for side in ("before", "after")]
    rows.append([(Prose("GPT-4, published: "), Quote(published, ("exams_mean", "what"))), None, *theirs, None])
    caption = Prose("Multiple choice only, paired by question, as in the report's comparison.")
    grid = Grid(heads("Exam", "Questions", "Before", "After", "Difference"), rows, caption, "lrrrr")
    return [Heading(Prose("Before and after post-training")), grid]


def _published(evidence: Evidence, found: list[Measurement]) -> list[Block]:
    rows: list[list[Cell]] = []
    for document in {m.document.text("exam"): m.document for m in found}.values():
        if not document.get("published"):
            continue
        value = {"exam": document.text("title"), "published": document.get("published")}
        name = f"published-{document.text('exam')}.json"
        made = compute(evidence.out, name, value, [], kind="published")
        rows += [
            [
                made.quote("exam"),
                row.quote("model"),
                row.figure("score", form="plain"),
                row.figure("percentile", form="percentile") or row.quote("percentile"),
                row.quote("source"),
            ]
            for row in made.rows("published")
        ]
    if not rows:
        return []
    head = heads("Exam", "Model", "Score", "Percentile", "Source")
    caption = Prose("Other models on other questions; no results of this model.")
    return [Heading(Prose("As others published")), Grid(head, rows, caption, "llrrl", published=(0, 1, 2, 3, 4))]
