"""The parts of a card, in their order. To add one, write a function from `Evidence` to a `Section` and name it here."""

from __future__ import annotations

from collections.abc import Callable

from foretell.report.card.blocks import Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.parts.behaviour import calibration, factuality, preference, safety
from foretell.report.card.parts.benchmarks import benchmarks, contamination
from foretell.report.card.parts.cost import cost
from foretell.report.card.parts.exams import exams
from foretell.report.card.parts.languages import languages
from foretell.report.card.parts.limits import limits
from foretell.report.card.parts.model import data, model
from foretell.report.card.parts.training import forecast
from foretell.report.card.parts.vision import vision

Part = Callable[[Evidence], Section]
PARTS: tuple[Part, ...] = (
    model,
    data,
    forecast,
    exams,
    benchmarks,
    languages,
    vision,
    calibration,
    factuality,
    safety,
    preference,
    contamination,
    limits,
    cost,
)
