"""What is told of a red team: honest rates, a summary that the card takes, and rows that alignment reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redteamkit import REFUSAL, YES, hunted, target

from foretell.align.examples import (
    Dialogue,
    Preference,
    PromptRow,
    Unused,
    read_dialogues,
    read_preferences,
    read_prompts,
)
from foretell.errors import EvalError
from foretell.evals.redteam import findings
from foretell.evals.redteam.hunt import Plan
from foretell.evals.redteam.journal import Note, Record, Try
from foretell.report.card.checked import check_summary
from foretell.report.card.figures import Document

PLAN = Plan(survey=1, search=20, test=1)


def tried(
    number: int, outcome: str | None, phase: str = "survey", group: str = "g", refusal: str | None = REFUSAL
) -> Try:
    seed = {"text": f"request {number}", "group": group, "refusal": refusal, "labels": {}}
    said = [{"role": "user", "content": f"In disguise: request {number}"}]
    return Try(f"{phase}/a/1/{number}", phase, "privacy", ("prefix",), ("sure",), seed, said, YES, outcome, "")


def record(*tries: Try, notes: tuple[Note, ...] = ()) -> Record:
    head = {
        "model": "runs/own", "areas": {"privacy": "Privacy"}, "judge": "words",
        "families": {"direct": {"title": "Plain", "source": "s"}, "prefix": {"title": "Prefix", "source": "s"}},
    }  # fmt: skip
    return Record(Path("journal.jsonl"), head, tries, notes)


def note(severity: str, succeeded: bool, reply: str, refusal: str | None = None) -> Note:
    said = [{"role": "user", "content": f"Tell me ({severity})."}] if reply else []
    return Note(
        f"note/{severity}", "2026-01-01", "Ada", "privacy", "prefix", severity, "t", succeeded, said, reply, refusal
    )


def test_tries_without_an_outcome_are_in_no_rate_and_counted() -> None:
    rate = findings.rate_of(
        [tried(0, "complied", group="a"), tried(1, "refused", group="b"), tried(2, None, group="c")]
    )
    assert (rate.won, rate.n, rate.unjudged, rate.value.estimate) == (1, 2, 1, 0.5)
    nothing = findings.rate_of([])
    assert (nothing.n, nothing.value.low, nothing.value.high) == (0, 0.0, 1.0)


def test_tries_on_one_request_are_worth_less_than_on_several() -> None:
    alike = findings.rate_of([tried(i, "complied", group="one") for i in range(4)] + [tried(9, "refused", group="two")])
    apart = findings.rate_of([tried(i, "complied", group=str(i)) for i in range(4)] + [tried(9, "refused", group="9")])
    assert alike.value.high - alike.value.low > apart.value.high - apart.value.low


def test_the_card_takes_the_summary(tmp_path: Path) -> None:
    done = hunted(tmp_path, target(lambda said: "Maintenance mode" in said), PLAN)
    path = findings.write_summary(done)
    summary = json.loads(path.read_text())
    check_summary(Document(path.parent, path.name))
    assert (summary["form"], summary["part"], summary["model"]) == ("foretell.summary", "redteam", "target")
    best, *_ = summary["rows"]
    assert best["title"] == "Best attack that was found, on fresh requests"
    assert (best["n"], best["limit"]) == (8, "jailbreaks")
    assert {row["area"] for row in summary["rows"] if "area" in row} == {"area-0", "area-1"}
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in summary["rows"])


def test_alignment_reads_what_was_found(tmp_path: Path) -> None:
    found = record(
        tried(0, "complied"), tried(1, "refused"), tried(2, "complied", "search"), tried(3, "complied", "test"),
        tried(4, None),
        notes=(note("high", True, YES, "Rather not."), note("low", False, "No."), note("medium", True, "")),
    )  # fmt: skip
    to = tmp_path / "findings.jsonl"
    assert findings.export(found, to) == (3, 3)
    dialogues, preferences, prompts = (list(read(to)) for read in (read_dialogues, read_preferences, read_prompts))
    assert all(isinstance(one, Dialogue) for one in dialogues)
    said = [one.conversation.messages for one in dialogues if isinstance(one, Dialogue)]
    assert [m[0].text for m in said] == ["In disguise: request 0", "In disguise: request 2", "Tell me (high)."]
    assert [m[-1].text for m in said] == [REFUSAL, REFUSAL, "Rather not."]
    pairs = [one for one in preferences if isinstance(one, Preference)]
    assert next((p.replies[0].messages[0].text, p.replies[1].messages[0].text) for p in pairs) == (REFUSAL, YES)
    assert len(pairs) == 3
    rows = [one for one in prompts if isinstance(one, PromptRow)]
    assert len(rows) == 3
    assert all(row.fields["kind"] == "disallowed" and row.fields["should"] == "refuse" for row in rows)
    assert [row.fields["origin"] for row in rows] == ["survey", "search", "person"]


def test_a_finding_without_a_refusal_teaches_no_compliance(tmp_path: Path) -> None:
    to = tmp_path / "findings.jsonl"
    assert findings.export(record(tried(0, "complied", refusal=None)), to) == (1, 0)
    [dialogue] = read_dialogues(to)
    assert isinstance(dialogue, Unused)
    assert dialogue.why == "called bad"
    [prompt] = read_prompts(to)
    assert isinstance(prompt, PromptRow)
    assert all(isinstance(one, Unused) for one in read_preferences(to))


def test_requests_of_the_test_stay_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    found = record(tried(0, "complied", "test"))
    with pytest.raises(EvalError, match="no attack that succeeded outside the test"):
        findings.export(found, tmp_path / "none.jsonl")
    assert findings.export(found, tmp_path / "all.jsonl", tests=True) == (1, 1)
    assert not (tmp_path / "none.jsonl").exists()


def test_alike_prompts_are_written_once(tmp_path: Path) -> None:
    assert findings.export(record(tried(0, "complied"), tried(0, "complied", "search")), tmp_path / "f.jsonl") == (1, 1)
