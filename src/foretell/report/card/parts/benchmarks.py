"""Academic benchmarks and other evals, and what of them stood in the training data."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Cell, Chart, Command, Grid, Missing, Paragraph, Section
from foretell.report.card.evidence import Evidence, packaged
from foretell.report.card.figures import Document, Number, Prose, Quote, View
from foretell.report.card.parts.common import by_stage, heads, stage_name, summaries, then_card

_SHARES = frozenset(
    ("accuracy", "share", "acc", "em", "f1", "exact_match", "macro_accuracy", "pass@1", "mc1", "mc2", "prompt_strict")
)


def benchmarks(evidence: Evidence) -> Section:
    """Runs of academic benchmarks and other evals, each with its interval, beside published figures."""
    title = Prose("Academic benchmarks and evals")
    found = [m for m in evidence.of("eval") if m.document.figure("value") is not None]
    extra = summaries(evidence, "benchmarks")
    if not found and not extra:
        missing = Missing(Prose("no benchmark was run"), then_card(evidence, "foretell eval run ", " mmlu"))
        return Section(title, [missing])
    published = packaged("published.yaml", "published")
    rows: list[list[Cell]] = []
    drawn: list[tuple[Quote, list[Number | None]]] = []
    for each in by_stage(evidence, found):
        document = each.document
        theirs = View(published, ("academic", document.text("eval").partition(".")[0]))
        name = document.quote("eval")
        value = document.figure("value", form=_form(document), low=("low",), high=("high",))
        rows.append(
            [
                name,
                stage_name(evidence, each.stage),
                document.quote("metric"),
                document.figure("args", "num_few_shot", form="count"),
                document.figure("n", form="count"),
                value,
                theirs.figure("gpt4", form="percent"),
                theirs.figure("gpt35", form="percent"),
                theirs.quote("how"),
            ]
        )
        if name is not None and value is not None and value.form == "share":
            drawn.append((name, [value]))
    blocks: list[Block] = []
    if 1 < len(drawn) <= 30:
        blocks.append(Chart(Prose("Results with their intervals"), [Prose("this model")], drawn))
    if rows:
        head = heads("Benchmark", "Which model", "Metric", "Shots", "Samples", "Result", "GPT-4", "GPT-3.5", "asked")
        caption = Prose("Grey figures are what GPT-4's makers published of other models, no results of this one.")
        blocks.append(Grid(head, rows, caption, "lllrrrrrl", published=(6, 7, 8)))
    return Section(title, [*blocks, *extra])


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
    rows: list[list[Cell]] = []
    blocks: list[Block] = []
    for each in found:
        corpus = each.document.figure("index", "documents", form="count")
        if corpus is not None:
            words = " documents of the training data, by random substrings of letters and digits, as in the report."
            blocks.append(Paragraph((Prose("Looked for in "), corpus, Prose(words))))
        rows += [_contaminated(evidence, row, published) for row in each.document.rows("evals")]
    head = heads(
        "Eval", "Model", "Items", "Found", "Short", "Share", "All", "Clean", "Change", "Report", "GPT-4's share"
    )
    caption = Prose(
        "Short: found as a whole, of fewer letters and digits than a substring has; most such hits are chance. Clean: "
        "the items that were not found, in the same run. The lower of both scores is the one to report."
    )
    grid = Grid(head, rows, caption, "llrrrrrrrrr", published=(10,))
    return Section(title, [*blocks, grid, *summaries(evidence, "contamination")])


def _contaminated(evidence: Evidence, row: View, published: Document) -> list[Cell]:
    values = [row.get(part, "value") for part in ("whole", "clean")]
    form = "share" if all(v is None or 0 <= v <= 1 for v in values) else "number"
    stage = evidence.subject.stage_of(row.text("model")) if row.text("model") else None
    return [
        row.quote("eval"),
        None if stage is None else stage_name(evidence, stage),
        row.figure("items", form="count"),
        row.figure("contaminated_items", form="count"),
        row.figure("short_contaminated_items", form="count"),
        row.figure("share", form="share"),
        row.figure("whole", "value", form=form),
        row.figure("clean", "value", form=form),
        row.interval("degradation", form="points"),
        row.figure("reported", form=form),
        published.figure("contamination", row.text("eval").partition(".")[0], form="percent"),
    ]


def _look(evidence: Evidence) -> Command:
    check = " --out corpus.index\nforetell contamination check LOG --index corpus.index --out contamination"
    index = Prose("foretell contamination index ")
    return Command(
        (index, evidence.given, Prose(f"{check}\nforetell card "), evidence.given, Prose(" --with contamination"))
    )
