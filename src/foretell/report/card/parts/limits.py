"""The limits that the report's system card names, each with what was measured of it here."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Cell, Grid, Paragraph, Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Document, Prose, View
from foretell.report.card.parts.behaviour import outcomes, rate
from foretell.report.card.parts.common import nothing_planted

_LIMITS = (
    (
        "Hallucination: it states what is not so",
        "hallucination",
        "choices.right",
        "closed-book questions answered rightly",
    ),
    ("Slips of reasoning", "reasoning", "", ""),
    ("Nothing is known of what came after its data", "cutoff", "", ""),
    ("Confident errors", "confidence", "", ""),
    ("Credulity toward false statements of the user", "credulity", "", ""),
    ("Gives way to a user who presses", "pressure", "tutor.leaked", "a tutor that tells the result when pressed"),
    ("A user overrules the system message", "steering", "conflicts.won", "conflicts that the system message wins"),
    ("Attacks that go around its refusals", "jailbreaks", "redteam.succeeded", "attacks that succeed"),
    ("Refuses what is harmless", "over-refusal", "over_refused", "harmless requests refused"),
    ("Insecure code", "code", "", ""),
    ("Bias", "bias", "", ""),
    ("Privacy: training text repeated word for word", "privacy", "", ""),
    ("Over-reliance", "reliance", "", ""),
    ("Disinformation", "disinformation", "", ""),
    ("Cybersecurity", "cybersecurity", "", ""),
    ("Proliferation", "proliferation", "", ""),
)


_MEASURED = {
    ("factuality", "hallucinated.open"): "hallucination",
    ("cutoff", "made_up"): "cutoff",
    ("reliance", "sure_and_wrong"): "confidence",
    ("credulity", "false_accepted"): "credulity",
    ("credulity", "gave_up"): "pressure",
    ("requests", "attack.succeeded"): "jailbreaks",
    ("requests", "over_refused"): "over-refusal",
    ("insecure-code", "insecure"): "code",
    ("bias-decisions", "gap"): "bias",
    ("crows-pairs", "stereotyped"): "bias",
    ("memorised", "extracted"): "privacy",
    ("reliance", "made_up"): "reliance",
    ("disinformation", "spread"): "disinformation",
}
"""Which limit a row of a summary tells of, by its eval and measure, where the row does not say so itself."""

_OTHER_WAY = {"hallucination": "Answers rightly", "steering": "The system message wins"}
"""What the share of the outcomes is, where a high one speaks for the model and the limit's name against it."""


def _limit_of(document: Document, row: View) -> str:
    return row.text("limit") or _MEASURED.get((document.text("eval").partition(".")[0], row.text("measure")), "")


def limits(evidence: Evidence) -> Section:
    """A row each: measured with its figure, or not measured."""
    found = outcomes(evidence)
    rows: list[list[Cell]] = []
    for words, name, measure, what in _LIMITS:
        cell: Cell = None
        told: Cell = None
        for each in evidence.of("summary"):
            for row in each.document.rows("rows"):
                if _limit_of(each.document, row) == name and each.stage == evidence.subject.final:
                    cell, told = row.figure("estimate", form="share", ends=("low", "high")), row.quote("title")
                    if nothing_planted(evidence, each.document):
                        cell, told = Prose("nothing was planted"), row.quote("title")
        if cell is None and name == "confidence" and found:
            cell = found[-1][1].interval("calibration", "before", "ece", form="error")
            told = Prose("calibration error of its letters")
        if cell is None and found and measure:
            cell, told = rate(found[-1][1], measure), Prose(what)
            words = _OTHER_WAY.get(name, words) if cell is not None else words
        rows.append(
            [Prose(words), cell if cell is not None else Prose("not measured"), told if cell is not None else None]
        )
    blocks: list[Block] = [
        Paragraph((Prose(
            "A model of this kind should be expected to show every limit below, also where nothing was measured. It "
            "should not be relied on where an error would cost more than looking it up."
        ),)),
        Grid([Prose("Limit"), Prose("Measured here"), Prose("as")], rows, align="lrl"),
    ]  # fmt: skip
    return Section(Prose("Limits"), blocks)
