"""Whether a file of form `foretell.summary` says what it must: what it does not would be left off a card in silence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from foretell.errors import CardError
from foretell.report.card.figures import Document

SUMMARY = "foretell.summary"
SUMMARY_PARTS = (
    *("exams", "benchmarks", "languages", "vision", "calibration", "factuality", "safety", "redteam", "arena"),
    "contamination",
)
LIMITS = (
    *("hallucination", "reasoning", "cutoff", "confidence", "credulity", "pressure", "steering", "jailbreaks"),
    *("over-refusal", "code", "bias", "privacy", "reliance", "disinformation", "cybersecurity", "proliferation"),
)
ROW_FORMS = ("share", "number", "percent", "count", "points")
_ENDS = ("estimate", "low", "high")
_TOP = ("form", "part", "title", "model", "weights", "samples", "note", "asked", "invalid", "rows", "eval")
_ROW = (*_ENDS, "measure", "title", "arm", "n", "form", "limit", "before")
_NEAR = 0.8  # likeness from which on an unknown field is taken for a misspelt one; others an eval may add


def check_summary(document: Document) -> None:
    """Raises CardError, naming the row and the field, for a summary that a card would show wrongly or not at all."""
    part, rows = document.text("part"), document.get("rows")
    if not part or not document.text("title") or not isinstance(rows, list):
        raise CardError(f"{document.path} is of form {SUMMARY} without part, title or rows. It needs these, and model.")
    _spelt(document, document.value, _TOP, "")
    if part not in SUMMARY_PARTS:
        raise CardError(f"{document.path}: part is {part!r}; a card has {', '.join(SUMMARY_PARTS)}.")
    for field in ("asked", "invalid"):
        _number(document, document.value, field, "")
    for i, row in enumerate(rows):
        place = f"rows[{i}]"
        if not isinstance(row, Mapping):
            raise CardError(f"{document.path}: {place} is {row!r}; expected an object with title and estimate.")
        _row(document, row, place)


def _row(document: Document, row: Mapping[str, Any], place: str) -> None:
    _spelt(document, row, _ROW, place)
    for field in ("title", "estimate"):
        if field not in row:
            raise CardError(f"{document.path}: {place} has no {field}. Each row needs a title and an estimate.")
    if not isinstance(row["title"], str) or not row["title"].strip():
        raise CardError(f"{document.path}: {place}.title is {row['title']!r}; expected words.")
    form = row.get("form") or "share"
    for field, value, known in (("form", form, ROW_FORMS), ("limit", row.get("limit") or None, LIMITS)):
        if value is not None and value not in known:
            raise CardError(f"{document.path}: {place}.{field} is {value!r}; expected one of {', '.join(known)}.")
    _number(document, row, "n", place)
    for field in _ENDS:
        value = _number(document, row, field, place)
        least = -1 if row.get("arm") == "change" else 0
        if value is not None and form == "share" and not least <= value <= 1:
            raise CardError(
                f"{document.path}: {place}.{field} is {value}, and a share lies between {least} and 1. Give the share, "
                "or say in form what it is, such as percent or number."
            )


def _number(document: Document, held: Mapping[str, Any], field: str, place: str) -> float | None:
    """What stands in a field that may be left out or empty."""
    value = held.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        at = f"{place}.{field}" if place else field
        raise CardError(f"{document.path}: {at} is {value!r}; expected a number, not in quotes, or null.")
    return value


def _spelt(document: Document, held: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for field in held:
        if field not in known and (near := get_close_matches(field, known, 1, _NEAR)) and near[0] not in held:
            told = f"{place} has" if place else "there is"
            raise CardError(f"{document.path}: {told} a field {field!r}, which a card does not know. Is it {near[0]}?")
