"""The languages chart: the exam of each language beside the published ones."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Cell, Chart, Fold, Grid, Missing, Paragraph, Section
from foretell.report.card.evidence import Evidence, Measurement, packaged
from foretell.report.card.figures import Number, Prose, Quote
from foretell.report.card.parts.common import by_stage, stage_name, summaries, then_card

_NOTE = Prose(
    "The same questions in every language; the word Answer and the letters stay English, and the likeliest letter "
    "counts, as in the report."
)


def languages(evidence: Evidence) -> Section:
    """Accuracy in every language with its interval, in the form of the report's figure, beside GPT-4's."""
    title = Prose("Languages")
    blocks: list[Block] = []
    for each in by_stage(evidence, evidence.of("languages")):
        blocks += _run(evidence, each)
    blocks += summaries(evidence, "languages")
    if not blocks:
        again = then_card(evidence, ("exam languages run", "world"), name="languages")
        return Section(title, [Missing(Prose("the same questions in several languages were not asked"), again)])
    return Section(title, blocks, _NOTE)


def _run(evidence: Evidence, each: Measurement) -> list[Block]:
    document = each.document
    published = packaged("published.yaml", "published")
    comparable = document.get("published", "comparable") is True
    rows: list[list[Cell]] = []
    drawn: list[tuple[Quote, list[Number | None]]] = []
    for i in range(document.count("languages")):
        at = ("languages", i)
        name = document.quote(*at, "name") or document.quote(*at, "language")
        right = document.figure(*at, "accuracy", form="share", low=(*at, "low"), high=(*at, "high"))
        if name is None or right is None:
            continue
        theirs = published.figure("languages", document.text(*at, "language"), form="share")
        against = (
            document.interval(*at, "against_english", form="points") if document.get(*at, "against_english") else None
        )
        rows.append([
            name, document.figure(*at, "n", form="count"), right, against,
            document.figure(*at, "without_letter", form="count"), document.figure(*at, "flagged", form="count"), theirs,
        ])  # fmt: skip
        drawn.append((name, [right, theirs if comparable else None]))
    names = [stage_name(evidence, each.stage), *([Prose("GPT-4, published")] if comparable else [])]
    lead: list[Number | Prose | Quote] = [stage_name(evidence, each.stage), Prose(": ")]
    if (asked := document.quote("set")) is not None:
        lead += [asked, Prose(". ")]
    if (mean := document.interval("mean", form="share")) is not None:
        lead += [Prose("Mean over languages: "), mean, Prose(". ")]
    if (chance := document.figure("chance", form="share")) is not None:
        lead += [Prose("By chance: "), chance, Prose(".")]
    head = [
        Prose(w)
        for w in (
            "Language",
            "Questions",
            "Right",
            "Against English",
            "No letter",
            "Doubtful translation",
            "GPT-4, MMLU",
        )
    ]
    caption = Prose("Grey: what GPT-4's makers published for MMLU in that language, no result of this model.")
    blocks: list[Block] = [
        Paragraph(tuple(lead)),
        Chart(Prose("Share right in every language"), names, drawn),
        Grid(head, rows, caption, "lrrrrrr", published=(6,)),
    ]
    theirs_before = [[published.quote("english", name, key=True), published.figure("english", name, form="share")]
                     for name in published.keys("english")]  # fmt: skip
    table = Grid(
        [Prose("Earlier models on MMLU in English"), Prose("Right")], theirs_before, align="lr", published=(0, 1)
    )
    return [*blocks, Fold(Prose("Published baselines"), [table])]
