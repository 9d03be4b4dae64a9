"""Exams with their percentiles, academic benchmarks, and what of either stood in the training data."""

from __future__ import annotations

from foretell.errors import EvalError
from foretell.report.card.blocks import Block, Cell, Chart, Command, Fold, Grid, Heading, Missing, Notice, Paragraph, Section
from foretell.report.card.evidence import Evidence, Measurement, compute, packaged
from foretell.report.card.figures import Document, Figure, Number, Prose, Quote
from foretell.report.card.parts.common import by_stage, stage_name, summaries, then_card

_SHARES = ("accuracy", "share", "acc", "em", "f1", "exact_match", "macro_accuracy", "pass@1", "accuracy_norm")


def exams(evidence: Evidence) -> Section:
    """Scores and percentiles of exams, before and after post-training, beside published ones."""
    title = Prose("Exams")
    found = sorted(by_stage(evidence, evidence.of("exam")), key=lambda each: each.document.text("exam"))
    if not found:
        return Section(title, [Missing(Prose("no exam was sat"), then_card(evidence, "foretell exam run ", " world --holdout"))])
    rows = [_exam_row(evidence, each.document, each.stage) for each in found]
    head = [Prose(w) for w in ("Exam", "Which model", "Questions", "Points", "Score", "Percentile", "Seen before")]
    blocks: list[Block] = [_exam_chart(evidence, found)]
    blocks.append(Grid(head, rows, Prose("With intervals of ninety-five in a hundred over questions like these."), "llrrrrl"))
    blocks += _notices(found)
    blocks.append(_sections(evidence, found))
    blocks += _before_after(evidence, found)
    blocks += _published(evidence, found)
    blocks += summaries(evidence, "exams")
    note = Prose(
        "Percentile is the lower bound of the range that an exam's table gives to the score. The holdout of an exam is "
        "asked once; a later run of it is marked."
    )
    first = found[0].document
    percentile = _percentile(first)
    score = _score(first)
    headline = []
    if percentile is not None:
        headline.append((Prose("Exam percentile"), percentile, _exam_name(first)))
    elif score is not None:
        headline.append((Prose("Exam score"), score, _exam_name(first)))
    return Section(title, blocks, note, headline)


def _exam_name(document: Document) -> Cell:
    title, split = document.quote("title"), document.quote("split")
    return None if title is None else (title, *((Prose(", "), split) if split else ()))


def _score(document: Document) -> Figure | None:
    return document.figure("final", "value", form="plain", low=("final", "low"), high=("final", "high"))


def _percentile(document: Document) -> Figure | None:
    low, high = ("final", "percentile_low"), ("final", "percentile_high")
    return document.figure("final", "percentile", 0, form="percentile", low=low, high=high)


def _exam_row(evidence: Evidence, document: Document, stage: str) -> list[Cell]:
    points = document.interval("raw", form="percentile")
    attempt = document.get("attempt")
    seen: Cell = Prose("no") if document.text("split") == "holdout" and attempt == 1 else None
    if isinstance(attempt, int) and attempt > 1:
        seen = (Prose("yes, run "), Figure(document, ("attempt",), "count"))
    if document.text("split") == "nonholdout":
        seen = Prose("questions to try settings on")
    highest = document.figure("raw_highest", form="plain")
    return [
        _exam_name(document),
        (stage_name(evidence, stage), *((Prose(", without images"),) if document.get("vision") is False else ())),
        document.figure("questions", form="count"),
        None if points is None or highest is None else (points, Prose(" of "), highest),
        _score(document),
        _percentile(document),
        seen,
    ]


def _exam_chart(evidence: Evidence, found: list[Measurement]) -> Block:
    """Shares of points by exam and section, the last stage's first."""
    stages = list(dict.fromkeys(each.stage for each in found))
    rows: dict[tuple[str, str], tuple[Quote, list[Number | None]]] = {}
    for each in found:
        document = each.document
        for i in range(document.count("sections")):
            name = document.quote("sections", i, "name")
            share = document.interval("sections", i, "share", form="share")
            if name is None or share is None:
                continue
            key = (document.text("eval"), name.text)
            points = rows.setdefault(key, (name, [None] * len(stages)))[1]
            points[stages.index(each.stage)] = share
    names = [stage_name(evidence, stage) for stage in stages]
    return Chart(Prose("Share of points by section"), names, list(rows.values()), caption=Prose("Share of the points of each section."))


def _sections(evidence: Evidence, found: list[Measurement]) -> Block:
    rows: list[list[Cell]] = []
    for each in found:
        document = each.document
        for i in range(document.count("sections")):
            at = ("sections", i)
            rows.append([
                document.quote("title"), document.quote(*at, "name"), document.quote(*at, "kind"), stage_name(evidence, each.stage),
                document.figure(*at, "n", form="count"), document.interval(*at, "share", form="share"),
                document.figure(*at, "blank", form="count"), document.figure(*at, "invalid", form="count"),
            ])  # fmt: skip
    head = [Prose(w) for w in ("Exam", "Section", "Kind", "Which model", "Questions", "Share of points", "Blank", "Not judged")]
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
            line = (title, Prose(": only "), asked, Prose(" of "), of, Prose(" questions were asked, so there is no total."))
            notes.setdefault(document.name, Notice(line))
    return list(notes.values())


def _before_after(evidence: Evidence, found: list[Measurement]) -> list[Block]:
    """The report's table of a model before and after RLHF, paired by question."""
    from foretell.evals.exams.against import against
    from foretell.evals.exams.api import read_score

    stages = evidence.subject.stages
    if len(stages) < 2:
        return []
    first: dict[str, Measurement] = {m.document.text("eval"): m for m in found if m.stage == stages[0]}
    last: dict[str, Measurement] = {m.document.text("eval"): m for m in found if m.stage == stages[-1]}
    common = [name for name in last if name in first]
    if not common:
        again = then_card(evidence, "foretell exam run ", "/pretrain/checkpoint world --holdout")
        return [Missing(Prose("the same exam before post-training, to compare with"), again)]
    logs = [[by[name].document.made_from[0] for name in common] for by in (last, first)]
    try:
        table = against(*([read_score(log) for log in side] for side in logs))
    except EvalError:
        return [Notice((Prose("The exams before and after post-training were asked in different ways, so they are not compared."),))]
    value = {
        "baseline": table.baseline, "candidate": table.candidate, "mean": vars(table.mean),
        "rows": [{"exam": r.exam, "n": r.comparison.n, "baseline": r.baseline, "candidate": r.candidate,
                  "difference": vars(r.comparison.difference), "p": r.comparison.p} for r in table.rows],
    }  # fmt: skip
    made = evidence.computed("exams-before-after.json", value, [path for side in logs for path in side])
    rows: list[list[Cell]] = [
        [made.quote("rows", i, "exam"), made.figure("rows", i, "n", form="count"), made.figure("rows", i, "baseline", form="share"),
         made.figure("rows", i, "candidate", form="share"), made.interval("rows", i, "difference", form="points")]
        for i in range(made.count("rows"))
    ]  # fmt: skip
    rows.append([
        Prose("Mean of exams"), None, made.figure("baseline", form="share"), made.figure("candidate", form="share"),
        made.interval("mean", form="points"),
    ])  # fmt: skip
    published = packaged("published.yaml", "published")
    rows.append([
        (Prose("GPT-4, published: "), *_quoted(published, "exams_mean", "what")), None,
        published.figure("exams_mean", "before", form="percent"), published.figure("exams_mean", "after", form="percent"), None,
    ])  # fmt: skip
    head = [Prose(w) for w in ("Exam", "Questions", "Before", "After", "Difference")]
    return [
        Heading(Prose("Before and after post-training")),
        Grid(head, rows, Prose("Multiple choice only, paired by question, as in the report's comparison."), "lrrrr"),
    ]


def _quoted(document: Document, *at: str) -> tuple[Quote, ...]:
    found = document.quote(*at)
    return (found,) if found is not None else ()


def _published(evidence: Evidence, found: list[Measurement]) -> list[Block]:
    rows: list[list[Cell]] = []
    for each in {m.document.text("exam"): m for m in found}.values():
        value = each.document.get("published")
        if not value:
            continue
        name = each.document.text("exam")
        made = compute(evidence.out, f"published-{name}.json", {"exam": each.document.text("title"), "published": value}, [], kind="published")
        for i in range(made.count("published")):
            at = ("published", i)
            percentile: Cell = made.figure(*at, "percentile", form="percentile") or made.quote(*at, "percentile")
            rows.append([made.quote("exam"), made.quote(*at, "model"), made.figure(*at, "score", form="plain"), percentile, made.quote(*at, "source")])
    if not rows:
        return []
    head = [Prose(w) for w in ("Exam", "Model", "Score", "Percentile", "Source")]
    return [
        Heading(Prose("As others published")),
        Grid(head, rows, Prose("Other models on other questions; no results of this model."), "llrrl", published=(0, 1, 2, 3, 4)),
    ]


def benchmarks(evidence: Evidence) -> Section:
    """Runs of academic benchmarks and other evals, each with its interval, beside published figures."""
    title = Prose("Academic benchmarks and evals")
    found = [m for m in evidence.of("eval") if m.document.figure("value") is not None]
    extra = summaries(evidence, "benchmarks")
    if not found and not extra:
        return Section(title, [Missing(Prose("no benchmark was run"), then_card(evidence, "foretell eval run ", " mmlu"))])
    published = packaged("published.yaml", "published")
    rows: list[list[Cell]] = []
    drawn: list[tuple[Quote, list[Number | None]]] = []
    for each in by_stage(evidence, found):
        document = each.document
        base = document.text("eval").partition(".")[0]
        value = document.figure("value", form=_form(document), low=("low",), high=("high",))
        shots = document.figure("args", "num_few_shot", form="count")
        rows.append([
            document.quote("eval"), stage_name(evidence, each.stage), document.quote("metric"), shots,
            document.figure("n", form="count"), value,
            published.figure("academic", base, "gpt4", form="percent"), published.figure("academic", base, "gpt35", form="percent"),
            published.quote("academic", base, "how"),
        ])  # fmt: skip
        name = document.quote("eval")
        if name is not None and value is not None and value.form == "share":
            drawn.append((name, [value]))
    head = [Prose(w) for w in ("Benchmark", "Which model", "Metric", "Shots", "Samples", "Result", "GPT-4", "GPT-3.5", "theirs asked")]
    blocks: list[Block] = []
    if 1 < len(drawn) <= 30:
        blocks.append(Chart(Prose("Results with their intervals"), [Prose("this model")], drawn))
    if rows:
        caption = Prose("Grey figures are published ones of other models: GPT-4 Technical Report.")
        blocks.append(Grid(head, rows, caption, "lllrrrrrl", published=(6, 7, 8)))
    return Section(title, [*blocks, *extra])


def _form(document: Document) -> str:
    value, low, high = (document.get(name) for name in ("value", "low", "high"))
    within = all(not isinstance(v, int | float) or 0 <= v <= 1 for v in (value, low, high))
    return "share" if within and document.text("metric") in _SHARES else "number"


def contamination(evidence: Evidence) -> Section:
    """What of the exams and benchmarks stood in the training data, and the scores without it."""
    title = Prose("Contamination")
    found = evidence.of("contamination")
    if not found:
        return Section(title, [Missing(Prose("what of the evals stood in the training data was not looked for"), _look(evidence))])
    rows: list[list[Cell]] = []
    blocks: list[Block] = []
    published = packaged("published.yaml", "published")
    for each in found:
        document = each.document
        corpus = document.figure("index", "documents", form="count")
        if corpus is not None:
            blocks.append(Paragraph((Prose("Looked for in "), corpus, Prose(" documents of the training data, by random substrings of letters and digits."))))
        for i in range(document.count("evals")):
            at = ("evals", i)
            form = _score_form(document, i)
            base = document.text(*at, "eval").partition(".")[0]
            rows.append([
                document.quote(*at, "eval"), document.figure(*at, "items", form="count"),
                document.figure(*at, "contaminated_items", form="count"), document.figure(*at, "share", form="share"),
                document.figure(*at, "whole", "value", form=form), document.figure(*at, "clean", "value", form=form),
                document.interval(*at, "degradation", form="points"), document.figure(*at, "reported", form=form),
                published.figure("contamination", base, form="percent"),
            ])  # fmt: skip
    head = [Prose(w) for w in ("Eval", "Items", "Found", "Share found", "All", "Clean", "Change", "To report", "GPT-4: found")]
    caption = Prose("Clean: the items that were not found, in the same run. The lower of both scores is the one to report.")
    return Section(title, [*blocks, Grid(head, rows, caption, "lrrrrrrrr", published=(8,)), *summaries(evidence, "contamination")])


def _score_form(document: Document, i: int) -> str:
    values = [document.get("evals", i, part, "value") for part in ("whole", "clean")]
    return "share" if all(v is None or 0 <= v <= 1 for v in values) else "number"


def _look(evidence: Evidence) -> Command:
    return Command((
        Prose("foretell contamination index "), evidence.given, Prose(" --out corpus.index\nforetell contamination check LOG --index "
        "corpus.index --out contamination\nforetell card "), evidence.given, Prose(" --with contamination"),
    ))  # fmt: skip

