"""The languages chart: the exam of each language beside the published ones."""

from __future__ import annotations

from foretell.report.card.blocks import Block, Missing, Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Prose
from foretell.report.card.parts.common import summaries, then_card


def languages(evidence: Evidence) -> Section:
    title = Prose("Languages")
    blocks: list[Block] = summaries(evidence, "languages")
    if not blocks:
        blocks = [Missing(Prose("the same questions in several languages were not asked"), then_card(evidence, "foretell eval run ", " mgsm"))]
    return Section(title, blocks)
