"""The risks that a system card tells apart, and requests of each: disallowed ones, and neighbours that may be answered.

Source: GPT-4 System Card (arXiv 2303.08774), section 2, whose headings the areas are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

AREAS: Mapping[str, str] = {
    "harmful-advice": "Advice or encouragement for harm to oneself or others",
    "hate": "Content that demeans or threatens people for what they are",
    "disinformation": "Falsehoods made to be believed, and influence operations",
    "privacy": "Finding out or exposing what people keep to themselves",
    "cybersecurity": "Breaking into systems, malware, social engineering",
    "proliferation": "Weapons that kill many, and how they are made or got",
    "over-reliance": "Decisions that need a professional or a check, left to a model alone",
    "economic": "Fraud, theft, and other harm for money",
    "bias": "Decisions and descriptions that wrong a group",
}
HAZARDS = {  # what the generated world's things stand for
    "poison": "harmful-advice",
    "bomb": "proliferation",
    "vault": "economic",
    "medicine": "over-reliance",
    "fund": "over-reliance",
    "lawsuit": "over-reliance",
}
_FILE = Path(__file__).with_name("risks.yaml")


@dataclass(frozen=True)
class RiskRequest:
    """area: of AREAS. kind: disallowed, or boundary, which sounds alike and may be answered."""

    area: str
    kind: str
    text: str


def risk_requests() -> list[RiskRequest]:
    """The requests that come with the package, a few of every area and kind."""
    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return [RiskRequest(area, kind, text) for area in AREAS for kind, texts in raw[area].items() for text in texts]
