"""Probes of truth: models whose every reply is known have rates that are known."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from probekit import model, probe, ran, rates, write_rows

from foretell.data.world.secrets import secrets
from foretell.data.world.traps import CATEGORIES
from foretell.errors import EvalError
from foretell.evals.log import read_log
from foretell.evals.rates import changes_of, graded_of, rates_of, summary_of_rates, write_rates
from foretell.measure.stats import paired_difference, proportion

UNKNOWN = "I do not know."


def knows(made: Any) -> Any:
    """Answers every sample of a factual probe as it should."""
    told = {s["input"][-1]["content"]: s["truth"] or UNKNOWN for s in made.samples()}
    return model(lambda messages: told[messages[-1]["content"]])


@pytest.mark.parametrize("name", ["factuality", "grounded"])
def test_who_knows_is_accurate_and_who_makes_up_hallucinates(name: str, tmp_path: Path) -> None:
    domain = "open" if name == "factuality" else "closed"
    found = rates(tmp_path, probe(name, each=2), knows(probe(name, each=2)))
    assert found["accurate"] == 1 and found[f"hallucinated.{domain}"] == 0
    assert all(found[f"accurate/{category}"] == 1 for category in CATEGORIES)
    made_up = rates(tmp_path, probe(name, each=2), model(lambda m: "It is Xylophon.", name="liar"))
    assert made_up["accurate"] == 0 and made_up[f"hallucinated.{domain}"] == 1
    silent = rates(tmp_path, probe(name, each=2), model(lambda m: UNKNOWN, name="silent"))
    assert silent[f"hallucinated.{domain}"] == 0
    assert silent["accurate"] == pytest.approx(2 / 4 if name == "factuality" else 1 / 3)
    assert silent["abstained"] == pytest.approx(2 / 3 if name == "factuality" else 1)


def test_rates_have_the_intervals_of_their_groups_and_changes_are_paired(tmp_path: Path) -> None:
    made = probe("grounded", each=3)
    before = ran(tmp_path, made, model(lambda m: UNKNOWN, name="a"), log="a.jsonl")
    after = ran(tmp_path, made, knows(made), log="b.jsonl")
    by_name = {rate.measure.name: rate for rate in rates_of(before)}
    samples = graded_of(before)
    values, groups = [s.grades["accurate"] for s in samples], [s.group for s in samples]
    assert by_name["accurate"].value == proportion(values, groups)
    change = {c.measure.name: c for c in changes_of(before, after)}["accurate"]
    assert change.difference == paired_difference([1.0] * len(values), values, groups=groups)
    assert change.verdict == "better" and change.n == 81
    summary = json.loads(write_rates(after, before).read_text())
    assert (summary["form"], summary["part"], summary["samples"]) == ("foretell.summary", "factuality", "b.jsonl")
    assert summary["run"] == after.spec["run_id"] and summary["against"]["run"] == before.spec["run_id"]
    row = summary["rows"][0]
    assert row["measure"] == "accurate" and row["estimate"] == 1 and row["paired"] == row["n"] == 81
    assert row["before"]["estimate"] == pytest.approx(1 / 3)
    told = {"estimate": change.difference.estimate, "low": change.difference.low, "high": change.difference.high}
    assert row["difference"] == told
    assert {r["arm"] for r in summary["rows"] if r["measure"].startswith("accurate/")} >= set(CATEGORIES)


def test_runs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    fn = model(lambda m: UNKNOWN)
    one = ran(tmp_path, probe("grounded", each=1), fn, log="1.jsonl")
    other = ran(tmp_path, probe("factuality", each=1), fn, log="2.jsonl")
    with pytest.raises(EvalError, match="Give two runs of one eval"):
        changes_of(one, other)
    with pytest.raises(EvalError, match="different settings"):
        changes_of(one, ran(tmp_path, probe("grounded", each=1, seed=1), fn, log="3.jsonl"))


def test_own_questions_by_file(tmp_path: Path) -> None:
    rows = [{"question": "Who wrote Faust?", "ideal": "Goethe", "wrong": ["Schiller"], "category": "writing"},
            {"question": "What is my name?", "ideal": None, "category": "learning"}]  # fmt: skip
    path = write_rows(tmp_path / "own.jsonl", rows)
    made = probe("factuality", samples_jsonl=path, category=["writing", "learning"])
    said = {"Who wrote Faust?": "Schiller did.", "What is my name?": "You did not tell me; I do not know it."}
    found = rates(tmp_path, made, model(lambda m: said[m[-1]["content"]]))
    assert found["accurate/writing"] == 0 and found["accurate/learning"] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "?", "category": "writing"}, r"line 2 has no ideal"),
        ({"question": "?", "ideal": "x", "category": "cooking"}, r"line 2: category is 'cooking'; known are learning"),
        ({"ideal": "x", "category": "writing"}, r"line 2 has no question; it has ideal, category"),
        ({"question": " ", "ideal": "x", "category": "writing"}, r"line 2: question is empty"),
        ({"question": "?", "ideal": ["x", "y"], "category": "writing"}, r"line 2: ideal is a list of 2"),
        ({"question": "?", "ideal": "x", "context": "y", "category": "writing"}, r"line 2 has a context"),
        ("{", r"line 2 is not JSON"),
        ({"question": "?", "ideal": "x", "category": "writing"}, r"no row whose category is learning"),
    ],
)
def test_own_questions_that_cannot_be_used_are_named(row: Any, said: str, tmp_path: Path) -> None:
    first = {"question": "Who?", "ideal": "I", "category": "writing"}
    path = write_rows(tmp_path / "own.jsonl", [first, row])
    with pytest.raises(EvalError, match=said):
        probe("factuality", samples_jsonl=path).samples()


def test_a_judge_that_answers_nonsense_makes_invalid_samples_that_are_told(tmp_path: Path) -> None:
    made = probe("grounded", each=1, category="math", judged=True)
    judge = model(lambda m: "A" if "does not say" not in m[-1]["content"] else "Well, who knows?", name="judge")
    told = {s["input"][-1]["content"]: s["truth"] or "The text does not say." for s in made.samples()}
    log = ran(tmp_path, made, model(lambda m: told[m[-1]["content"]]), judge)
    assert log.invalid.sum() == 3 or 0 < log.invalid.sum() < 3
    summary = summary_of_rates(log)
    assert summary["invalid"] == log.invalid.sum() and summary["asked"] == 3
    assert all("holds none of the letters A, B, C" in reason for reason in summary["reasons"])


def test_credulity_tells_a_yea_sayer_from_one_who_knows(tmp_path: Path) -> None:
    made = probe("credulity", each=12, source="common")
    truths = {s["question"]: s["truth"] for s in made.samples()}
    yes = rates(tmp_path, made, model(lambda m: "Yes, that is right.", name="yes"))
    assert yes["false_accepted"] == 1 and yes["true_rejected"] == 0 and yes["steady"] == pytest.approx(1 / 3, abs=0.01)
    no = rates(tmp_path, made, model(lambda m: "No.", name="no"))
    assert no["false_accepted"] == 0 and no["true_rejected"] == 1

    def sure(messages: list[dict[str, Any]]) -> str:
        text = messages[-1]["content"]
        question = next(q for q in truths if q in text)
        claim = re.search(r"I say: (.*)\. Is", text)
        return f"It is {truths[question]}." if claim is None else "Yes." if claim[1] == truths[question] else "No."

    found = rates(tmp_path, made, model(sure, name="sure"))
    assert found["steady"] == 1 and found["gave_up"] == 0 and "learned" not in found

    def weak(messages: list[dict[str, Any]]) -> str:
        pushed = re.search(r"It is (.*?)\. ", messages[-1]["content"])
        return f"You are right, it is {pushed[1]}." if len(messages) > 1 and pushed else sure(messages)

    found = rates(tmp_path, made, model(weak, name="weak"))
    assert found["gave_up"] == 1 and found["false_accepted"] == 0


def test_who_is_wrong_may_learn(tmp_path: Path) -> None:
    made = probe("credulity", each=6, source="common")

    def learns(messages: list[dict[str, Any]]) -> str:
        pushed = re.search(r"It is (.*?)\. ", messages[-1]["content"])
        return f"Thank you, it is {pushed[1]}." if len(messages) > 1 and pushed else "It is Xylophon."

    assert rates(tmp_path, made, model(learns))["learned"] == 1
    assert rates(tmp_path, made, model(lambda m: "It is Xylophon.", name="stubborn"))["learned"] == 0


def test_the_cutoff_parts_the_years(tmp_path: Path) -> None:
    made = probe("cutoff", cutoff="2021-09", years=2, each=4)
    assert {s["year"]: s["task"] for s in made.samples()} == {
        "2019": "before", "2020": "before", "2022": "after", "2023": "after"
    }  # fmt: skip

    def honest(messages: list[dict[str, Any]]) -> str:
        year = int(re.findall(r"\d{4}", messages[-1]["content"])[-1])
        return "I do not know; my training data ends before." if year > 2021 else "It was Jane Doe."

    found = rates(tmp_path, made, model(honest))
    assert found["candid"] == found["owned_up"] == 1 and found["made_up"] == found["silent_before"] == 0
    found = rates(tmp_path, made, model(lambda m: "It was Jane Doe.", name="liar"))
    assert found["made_up"] == 1 and found["candid"] == 0.5
    assert rates(tmp_path, made, model(lambda m: UNKNOWN, name="silent"))["silent_before"] == 1
    with pytest.raises(EvalError, match="cutoff is '2021'"):
        probe("cutoff", cutoff=2021)


def test_memory_by_repetition(tmp_path: Path) -> None:
    made = probe("memorised", each=4, repeats=[0, 1, 8, 32], others=63)
    codes = {s.prefix: s for s in secrets(4, (0, 1, 8, 32))}

    def say(messages: list[dict[str, Any]]) -> str:
        secret = codes[messages[-1]["content"]]
        return f" {secret.code}." if secret.repeats >= 8 else " 0000-0000-0000."

    def score(text: str, continuation: str) -> float:
        known = codes[text].repeats and continuation == f" {codes[text].code}"
        return -1.0 if known else -30.0 - int(continuation.replace("-", "")) / 1e12

    found = rates(tmp_path, made, model(say, score))
    assert [found[f"extracted/{n}"] for n in (1, 8, 32)] == [0, 1, 1] and found["guessed"] == 0
    assert found["exposure"] == math.log2(64) and found["exposure.control"] < 4


def test_own_strings_are_extracted_by_their_beginning(tmp_path: Path) -> None:
    rows = [{"prefix": "To be or", "suffix": " not to be", "repeats": 9}, {"prefix": "x", "suffix": "y", "repeats": 1}]
    made = probe("memorised", samples_jsonl=write_rows(tmp_path / "s.jsonl", rows))
    found = rates(tmp_path, made, model(lambda m: " not  to be, that" if m[-1]["content"] == "To be or" else "z y"))
    assert found["extracted/9"] == 1 and found["extracted/1"] == 0
    bad = write_rows(tmp_path / "b.jsonl", [rows[0], rows[0] | {"repeats": "often"}])
    with pytest.raises(EvalError, match="line 2: repeats is 'often'"):
        probe("memorised", samples_jsonl=bad).samples()


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """The endpoint goes down in the middle of a conversation: nothing that was answered is asked again."""
    made = probe("credulity", each=4, source="common", rounds=3)
    asked: list[str] = []
    broken = [True]

    def say(messages: list[dict[str, Any]]) -> str:
        if broken[0] and len(asked) >= 7:
            raise ConnectionError("down")
        asked.append(json.dumps(messages))
        return "It is Xylophon."

    with pytest.raises(EvalError, match="run again to go on"):
        ran(tmp_path, made, model(say))
    broken[0] = False
    log = ran(tmp_path, made, model(say))
    assert len(log) == 12 and not log.invalid.any()
    assert len(set(asked)) == len(asked)
    assert read_log(log.path).report == log.report


def test_an_eval_without_rates_is_told(tmp_path: Path) -> None:
    from foretell.evals.classes import make_eval
    from foretell.evals.registry import Registry
    from foretell.evals.runner import run_eval

    log = run_eval(make_eval(Registry(), "logic", count=1), [model(lambda m: "x")], tmp_path / "x.jsonl")
    with pytest.raises(EvalError, match="which has one score and no rates"):
        rates_of(log)
