"""Academic benchmarks and other evals, and what of them stood in the training data."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Chart, Command, Missing, Paragraph, Section
from foretell.report.card.evidence import Evidence, packaged
from foretell.report.card.figures import Document, Number, Prose, Quote, View
from foretell.report.card.parts.common import Column, by_stage, filled, stage_name, summaries, then_card

_SHARES = frozenset(
    ("accuracy", "share", "acc", "em", "f1", "exact_match", "macro_accuracy", "pass@1", "mc1", "mc2", "prompt_strict")
)


def benchmarks(evidence: Evidence) -> Section:
    """Runs of academic benchmarks and other evals, each with its interval, beside published figures."""
    title = Prose("Academic benchmarks and evals")
    found = [m for m in evidence.of("eval") if m.document.figure("value") is not None]
    extra = summaries(evidence, "benchmarks")
    if not found and not extra:
        missing = Missing(Prose("no benchmark was run"), then_card(evidence, ("eval run", "mmlu"), name="mmlu"))
        return Section(title, [missing])
    published = packaged("published.yaml", "published")
    found = by_stage(evidence, found)
    documents = [each.document for each in found]
    theirs = [View(published, ("academic", document.text("eval").partition(".")[0])) for document in documents]
    values = [d.figure("value", form=_form(d), low=("low",), high=("high",)) for d in documents]
    drawn: list[tuple[Quote, list[Number | None]]] = [
        (name, [value])
        for document, value in zip(documents, values, strict=True)
        if (name := document.quote("eval")) is not None and value is not None and value.form == "share"
    ]
    blocks: list[Block] = []
    if 1 < len(drawn) <= 30:
        blocks.append(Chart(Prose("Results with their intervals"), [Prose("this model")], drawn))
    if found:
        columns: list[Column] = [
            ("Benchmark", "l", [d.quote("eval") for d in documents]),
            ("Which model", "l", [stage_name(evidence, each.stage) for each in found]),
            ("Metric", "l", [d.quote("metric") for d in documents]),
            ("Shots", "r", [_shots(d) for d in documents]),
            ("Samples", "r", [d.figure("n", form="count") for d in documents]),
            ("Result", "r", values),
            ("GPT-4", "r", [view.figure("gpt4", form="percent") for view in theirs]),
            ("GPT-3.5", "r", [view.figure("gpt35", form="percent") for view in theirs]),
            ("asked", "l", [view.quote("how") for view in theirs]),
        ]
        caption = Prose("Grey figures are what GPT-4's makers published of other models, no results of this one.")
        blocks.append(filled(columns, caption, ("GPT-4", "GPT-3.5", "asked")))
    return Section(title, [*blocks, *extra])


def _shots(document: Document) -> Number | None:
    """Worked samples before each question; unknown where prepared samples were read, which may hold their own."""
    prepared = document.get("args", "samples_jsonl")
    return None if prepared else document.figure("args", "num_few_shot", form="count")


def _form(document: Document) -> str:
    ends = [document.get(name) for name in ("value", "low", "high")]
    within = all(not isinstance(v, int | float) or 0 <= v <= 1 for v in ends)
    return "share" if within and document.text("metric") in _SHARES else "number"


def contamination(evidence: Evidence) -> Section:
    """What of the exams and benchmarks stood in the training data, and the scores without it."""
    title = Prose("Contamination")
    found = evidence.of("contamination")
    if not found:
        what = Prose("what of the evals stood in the training data was not looked for")
        return Section(title, [Missing(what, _look(evidence))])
    published = packaged("published.yaml", "published")
    blocks: list[Block] = []
    rows: list[View] = []
    for each in found:
        corpus = each.document.figure("index", "documents", form="count")
        if corpus is not None:
            words = " documents of the training data, by random substrings of letters and digits, as in the report."
            blocks.append(Paragraph((Prose("Looked for in "), corpus, Prose(words))))
        rows += each.document.rows("evals")
    known = [published.figure("contamination", row.text("eval").partition(".")[0], form="percent") for row in rows]
    columns: list[Column] = [
        ("Eval", "l", [row.quote("eval") for row in rows]),
        ("Model", "l", [_model(evidence, row) for row in rows]),
        ("Items", "r", [row.figure("items", form="count") for row in rows]),
        ("Found", "r", [row.figure("contaminated_items", form="count") for row in rows]),
        ("Short", "r", [row.figure("short_contaminated_items", form="count") for row in rows]),
        ("Share", "r", [row.figure("share", form="share") for row in rows]),
        ("All", "r", [row.figure("whole", "value", form=_scale(row)) for row in rows]),
        ("Clean", "r", [row.figure("clean", "value", form=_scale(row)) for row in rows]),
        ("Change", "r", [row.interval("degradation", form="points") for row in rows]),
        ("To report", "r", [row.figure("reported", form=_scale(row)) for row in rows]),
        ("GPT-4", "r", known),
    ]
    caption = Prose(
        "Short: found as a whole, of fewer letters and digits than a substring has; most such hits are chance. Clean: "
        "the items that were not found, in the same run. The lower of both scores is the one to report. GPT-4: the "
        "share that its makers found in its own data."
    )
    grid = filled(columns, caption, ("GPT-4",))
    return Section(title, [*blocks, grid, *summaries(evidence, "contamination")])


def _model(evidence: Evidence, row: View) -> Prose | None:
    stage = evidence.subject.stage_of(row.text("model")) if row.text("model") else None
    return None if stage is None else stage_name(evidence, stage)


def _scale(row: View) -> str:
    values = [row.get(part, "value") for part in ("whole", "clean")]
    return "share" if all(v is None or 0 <= v <= 1 for v in values) else "number"


def _look(evidence: Evidence) -> Command:
    check = " --out corpus.index\nforetell contamination check LOG --index corpus.index --out contamination"
    index = Prose("foretell contamination index ")
    return Command(
        (index, evidence.given, Prose(f"{check}\nforetell card "), evidence.given, Prose(" --with contamination"))
    )
