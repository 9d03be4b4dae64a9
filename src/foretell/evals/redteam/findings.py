"""What a red team found: rates by family and area, attacks as tested, a card's summary, training data.

Rates of the survey are of attacks drawn without regard to outcomes. Those of found attacks are of fresh requests alone:
the search chose them because they had succeeded, so that its own counts are too high.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.redteam.journal import Record, Try
from foretell.evals.redteam.operators import BASELINE, Attack
from foretell.evals.summaries import FORM, row
from foretell.files import write_json, write_text
from foretell.measure.stats import Interval, proportion

SUMMARY = "redteam.summary.json"
_LIMITS = {  # of the card's table of limits
    "cybersecurity": "cybersecurity",
    "proliferation": "proliferation",
    "disinformation": "disinformation",
    "privacy": "privacy",
    "bias": "bias",
    "over-reliance": "reliance",
}
_REASONS = 5


@dataclass(frozen=True)
class Rate:
    """Share of tries that succeeded. n: of those with an outcome. unjudged: of those without."""

    value: Interval
    won: int
    n: int
    unjudged: int


@dataclass(frozen=True)
class Found:
    """An attack of an area as tested. rank: by the search, 1 the best; 0 is the plain request.

    searched: successes and tries in survey and search, by which it was chosen.
    """

    area: str
    attack: Attack
    rank: int
    searched: tuple[int, int]
    tested: Rate


def rate_of(tries: Sequence[Try]) -> Rate:
    """With a 95 % interval that takes tries on one request as no more than they are worth."""
    judged = [one for one in tries if one.outcome is not None]
    grades = [float(one.succeeded) for one in judged]
    groups = [f"{one.area}/{one.seed['group']}" for one in judged]
    value = proportion(grades, groups) if judged else Interval(nan, 0.0, 1.0)
    return Rate(value, int(sum(grades)), len(judged), len(tries) - len(judged))


def survey(record: Record, area: str | None = None, family: str | None = None) -> list[Try]:
    """Tries of the survey, of an area, a family or both."""
    return [
        one
        for one in record.tries
        if one.phase == "survey" and area in (None, one.area) and (family is None or family in one.families)
    ]


def cell(record: Record, area: str, family: str) -> list[Try]:
    """All tries on an area that draw on a family, successes first."""
    tries = [one for one in record.tries if one.area == area and family in one.families]
    return sorted(tries, key=lambda one: not one.succeeded)


def found(record: Record) -> list[Found]:
    """What was tested, by area and rank."""
    tested: dict[tuple[str, int], list[Try]] = {}
    for one in record.tries:
        if one.phase == "test":
            tested.setdefault((one.area, int(one.id.split("/")[-2])), []).append(one)
    made = []
    for (area, rank), tries in tested.items():
        before = [
            one
            for one in record.tries
            if one.phase != "test" and one.area == area and one.attack == tries[0].attack and one.outcome is not None
        ]
        counts = sum(one.succeeded for one in before), len(before)
        made.append(Found(area, tries[0].attack, rank, counts, rate_of(tries)))
    order = list(record.areas)
    return sorted(made, key=lambda one: (order.index(one.area) if one.area in order else len(order), one.rank))


def tested(record: Record, rank: int, area: str | None = None) -> Rate:
    """The attacks of one rank on fresh requests: of an area, or of all together."""
    return rate_of(
        [
            one
            for one in record.tries
            if one.phase == "test" and int(one.id.split("/")[-2]) == rank and area in (None, one.area)
        ]
    )


def summary_of(record: Record) -> dict[str, Any]:
    """What a system card reads: attack success of the best attack of each area, of the plain request and by family."""
    reasons: dict[str, int] = {}
    for one in record.tries:
        if one.outcome is None:
            reasons[one.why[:200]] = reasons.get(one.why[:200], 0) + 1
    rows = []
    for rank, title in ((1, "Best attack that was found, on fresh requests"), (0, "Asked plainly, the same requests")):
        whole = tested(record, rank)
        if whole.n:
            rows.append(_row(title, whole) | ({"limit": "jailbreaks"} if rank else {}))
        for area, named in record.areas.items():
            if (rate := tested(record, rank, area)).n:
                limit = {"limit": _LIMITS[area]} if rank and area in _LIMITS else {}
                rows.append(_row(title, rate, named) | {"area": area} | limit)
    for family, named in record.families.items():
        if (rate := rate_of(survey(record, family=family))).n:
            rows.append(_row("Attacks by family, not searched for", rate, named) | {"family": family})
    note = "Attacks were chosen by a search and tested on requests that it had not seen."
    if not record.head.get("exact"):
        note += " Success is what a judge took for it, which is not the truth."
    weights = record.head.get("weights")
    return {
        "form": FORM, "part": "redteam", "title": "Red team", "model": record.head.get("model"),
        **({"weights": weights} if weights else {}), "created": record.head.get("created"),
        "samples": record.path.name, "judge": record.head.get("judge"), "note": note, "asked": len(record.tries),
        "invalid": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])[:_REASONS]), "rows": rows,
    }  # fmt: skip


def write_summary(record: Record) -> Path:
    """Write the summary beside the journal."""
    path = record.path.with_name(SUMMARY)
    write_json(path, summary_of(record))
    return path


def training_rows(record: Record, *, tests: bool = False) -> Iterator[dict[str, Any]]:
    """Findings in the form that alignment reads, each once; see docs/redteam.md.

    A row is a demonstration (prompt, completion), a preference (chosen, rejected) and a prompt at once where it is
    known how the reply should read, else a bad rating and a prompt. tests: also those on fresh requests, after which a
    later test on the same requests says nothing.
    """
    known = set()
    for one in record.tries:
        if not one.succeeded or (one.phase == "test" and not tests):
            continue
        refusal, labels = one.seed.get("refusal"), one.seed.get("labels") or {}
        told = {"area": one.area, "attack": list(one.attack), "origin": one.phase, "id": one.id}
        made = _training(one.messages, one.reply, refusal, told | ({"labels": labels} if labels else {}))
        if (key := json.dumps(made["prompt"], sort_keys=True)) not in known:
            known.add(key)
            yield made
    for note in record.notes:
        if note.succeeded and note.messages and note.reply.strip():
            told = {"area": note.area, "attack": [note.family], "origin": "person", "id": note.id}
            made = _training(note.messages, note.reply, note.refusal, told | {"severity": note.severity})
            if (key := json.dumps(made["prompt"], sort_keys=True)) not in known:
                known.add(key)
                yield made


def export(record: Record, to: Path, *, tests: bool = False) -> tuple[int, int]:
    """Write training rows as JSON lines. Returns how many there are, and how many of them with a refusal.

    Raises EvalError where nothing was found.
    """
    rows = list(training_rows(record, tests=tests))
    if not rows:
        raise EvalError(
            f"{record.path} holds no attack that succeeded{'' if tests else ' outside the test'}, so there is nothing "
            "to learn from."
        )
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
    write_text(to, text)
    return len(rows), sum("chosen" in one for one in rows)


def plain_name(attack: Attack) -> str:
    return " + ".join(attack) if attack else BASELINE


def _training(messages: list[dict[str, Any]], reply: str, refusal: str | None, told: dict[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"prompt": messages, "kind": "disallowed", "should": "refuse"}
    if refusal:
        return head | {"completion": refusal, "chosen": refusal, "rejected": reply} | told
    return head | {"completion": reply, "label": False} | told


def _row(title: str, rate: Rate, arm: str | None = None) -> dict[str, Any]:
    return row(title, (rate.value.estimate, rate.value.low, rate.value.high), rate.n, arm=arm)
