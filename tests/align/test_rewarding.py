"""Rewards in parts: rubrics for the kinds they judge, fitted rules for the responses they know, sums by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.align.examples import PromptRow
from foretell.align.graders import Case
from foretell.align.rewarding import Part, Rewards, by_rubric, by_rules, judges_kinds, load_function, named_parts
from foretell.align.rubric import Floats, Rubric, load_rubric
from foretell.align.rules import RuleWeights
from foretell.align.samples import Sample
from foretell.align.verifiable import CHECKS
from foretell.chat import Conversation
from foretell.errors import DataError, RowError, TrainingError

PROMPT = Conversation.from_openai([{"role": "user", "content": "How?"}])


class Sure:
    """Holds a reply's first letter to be its class."""

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self.seen: list[Case] = []

    def grade(self, cases: Sequence[Case]) -> Floats:
        self.seen += cases
        return np.array([[float(case.reply[0] == letter) for letter in self.rubric.classes] for case in cases])


def samples(*replies: tuple[str, Mapping[str, Any]]) -> list[Sample]:
    return [Sample(PROMPT, reply, PROMPT, fields) for reply, fields in replies]


def test_a_rubric_rewards_the_kinds_it_judges_and_no_others() -> None:
    grader = Sure(load_rubric("refusal"))
    asked = samples(
        ("A", {"kind": "disallowed"}),
        ("A", {"kind": "allowed"}),
        ("C", {"kind": "disallowed"}),
        ("A", {"kind": "tutor"}),
        ("A", {}),
    )
    table = grader.rubric.rewards
    assert list(by_rubric(grader)(asked)) == [table["disallowed"][0], table["allowed"][0], table["disallowed"][2], 0, 0]
    assert len(grader.seen) == 3 and grader.seen[0].asked == "How?"
    assert list(by_rubric(grader)(samples(("A", {})))) == [0]


def row(**fields: Any) -> PromptRow:
    return PromptRow(PROMPT, (), fields, "rows.jsonl, line 3")


def test_kinds_that_a_rubric_does_not_know_are_not_judged_and_slips_are_named() -> None:
    check = judges_kinds(load_rubric("refusal").rewards)
    kinds = ("disallowed", "allowed", "tutor", "conflict", "fact", None)
    assert [check(row(kind=kind)) for kind in kinds] == [True, True, False, False, False, False]
    assert not check(row(labels={}))
    for kind, meant in (("dissallowed", "disallowed"), ("Allowed", "allowed"), ("boundry", "boundary"), (3, "")):
        with pytest.raises(RowError, match=rf"rows\.jsonl, line 3, kind: misspelt.*{meant}"):
            check(row(kind=kind))


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("answer", {"anwser": "4"}, "answer: missing.*it is called anwser here"),
        ("answer", {"answer": ["4"]}, r"answer: not a text or number. It is \['4'\]"),
        ("program", {"entry": "f", "calls": "(1,)", "expected": ["1"]}, "calls: not a list of texts"),
        ("handled", {}, "labels: missing"),
        ("handled", {"labels": {"truth": "a b"}}, "labels: of no request"),
    ],
)
def test_what_a_built_in_reward_needs_is_checked_row_by_row(name: str, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=rf"rows\.jsonl, line 3, {why}"):
        CHECKS[name](row(**fields))
    assert CHECKS["answer"](row(answer=4))


def test_fitted_rules_reward_by_the_response_that_is_due() -> None:
    grader = Sure(load_rubric("refusal"))
    names = tuple(f"refusal.{letter}" for letter in "ABCD")
    rules = RuleWeights(names, {"refuse": np.array([2.0, 0.5, -3.0, 0.0]), "comply": np.array([-1.0, -1.0, 0.0, 1.0])})
    asked = samples(
        ("A", {"kind": "disallowed"}),
        ("C", {"kind": "disallowed"}),
        ("A", {"kind": "boundary"}),
        ("D", {"kind": "sensitive"}),
    )
    assert list(by_rules([grader], rules)(asked)) == [2, -3, -1, 0]


def test_parts_are_added_by_their_weights_and_told_without() -> None:
    rewards = Rewards(
        (Part("length", lambda s: [len(x.reply) for x in s], -0.5), Part("one", lambda s: [1.0] * len(s)))
    )
    total, by_part = rewards(samples(("four", {}), ("a", {})))
    assert total.tolist() == [-1, 0.5]
    assert by_part["length"].tolist() == [4, 1] and by_part["one"].tolist() == [1, 1]
    with pytest.raises(
        TrainingError, match=r"reward bad \(.*test_rewarding\.py, line \d+\) is inf for the reply 'four'"
    ):
        Rewards((Part("bad", lambda s: [float("inf")]),))(samples(("four", {})))


@pytest.mark.parametrize("function", [lambda s: s[0].fields["none"], lambda s: ["good"], lambda s: None, lambda s: 1.0])
def test_a_reward_that_fails_is_named(function: Any) -> None:
    with pytest.raises(
        TrainingError, match=r"reward mine \(.*py, line \d+\) failed for 1 replies, the first of them 'four'"
    ):
        Rewards((Part("mine", function),))(samples(("four", {})))


def test_a_reward_from_a_file_is_named_with_the_line_that_failed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def deep(samples):\n    return [inner(s) for s in samples]\n\n\ndef inner(s):\n    return s.none\n"
    )
    with pytest.raises(TrainingError, match=rf"reward deep \({file}, line 6\) failed.*AttributeError"):
        Rewards((load_function(f"{file}:deep"),))(samples(("four", {})))
    with pytest.raises(DataError, match="has no function none; it has deep, inner"):
        load_function(f"{file}:none")
    file.write_text("import math\n\nimport nowhere_to_be_found\n")
    with pytest.raises(DataError, match=r"mine\.py, line 3, failed as it was read: ModuleNotFoundError"):
        load_function(f"{file}:deep")
    file.write_text("a = 1\ndef deep(:\n")
    with pytest.raises(DataError, match=r"mine\.py, line 2, failed as it was read: SyntaxError"):
        load_function(f"{file}:deep")


def test_names_at_the_command_line() -> None:
    parts, _ = named_parts(["answer:2"])
    assert parts[0].name == "answer" and parts[0].weight == 2
    with pytest.raises(DataError, match="by what with --rubric"):
        named_parts([], None, "model")
