"""The ladder of constraints: every request can be kept whole, rungs are told with intervals, and a page draws them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from foretell.cli import eval as commands
from foretell.data.world.stacks import RULES, checks
from foretell.errors import EvalError
from foretell.evals import api
from foretell.evals.academic_ifeval import follows
from foretell.evals.classes import make_eval
from foretell.evals.constraints import CONSTRAINTS, example, request
from foretell.evals.registry import Registry
from foretell.evals.summaries import read_summary, summary_path


@pytest.mark.parametrize("seed", range(30))
def test_all_constraints_of_a_request_can_be_kept_at_once(seed: int) -> None:
    topic, drawn = request(random.Random(seed))
    assert len({one.name for one in drawn}) == len(CONSTRAINTS) == len(drawn)
    for level in (1, 4, 10, len(drawn)):
        asked = drawn[:level]
        kept, _ = follows([[one.rule, dict(one.args)] for one in asked], example(topic, asked))
        assert all(kept), [one.name for one, ok in zip(asked, kept, strict=True) if not ok]


def test_a_rung_adds_to_the_one_below() -> None:
    samples = make_eval(Registry(), "complexity", count=2).samples()
    first = [s for s in samples if s["group"] == "request 0"]
    assert [s["level"] for s in first] == [1, 2, 3, 4, 6, 8, 10]
    for low, high in itertools.pairwise(first):
        assert high["rules"][: low["level"]] == low["rules"]


def keeps(most: int) -> Any:
    """A model that keeps the first `most` constraints of a request."""
    samples = make_eval(Registry(), "complexity", count=12).samples()
    by_text = {s["input"][0]["content"]: s for s in samples}
    whole = {(s["group"], s["level"]): s["example"] for s in samples}

    def model(prompt: Any, **_: Any) -> str:
        sample = by_text[prompt[0]["content"]]
        return whole[sample["group"], sample["level"]] if sample["level"] <= most else ""

    return model


def test_accuracy_falls_where_the_model_gives_up(tmp_path: Path) -> None:
    report = api.run("complexity", keeps(4), args={"count": 12}, out=tmp_path / "four.jsonl")
    told = read_summary(summary_path(report.log.path))
    assert [r["accuracy"] for r in told["levels"]] == [1, 1, 1, 1, 0, 0, 0]
    assert all(r["low"] < 1 and r["high"] > 0 and r["low"] <= r["accuracy"] <= r["high"] for r in told["levels"])
    last = told["rows"][-1]
    assert last["title"] == "from 1 constraint to 10" and last["estimate"] == -1 and last["high"] < 0
    assert report.report["accuracy/4"] == 1 and report.report["accuracy/6"] == 0
    assert told["constraints"]["end"]["kept"] < 1


def test_independent_slips_are_told_beside(tmp_path: Path) -> None:
    report = api.run("complexity", lambda prompt, **_: "Nothing.", args={"count": 6, "levels": [1, 10]},
                     out=tmp_path / "log.jsonl")  # fmt: skip
    for rung in read_summary(summary_path(report.log.path))["levels"]:
        assert rung["if_independent"] == pytest.approx(rung["share_kept"] ** rung["level"])


def test_rules_of_the_world_need_the_right_answer_too(tmp_path: Path) -> None:
    samples = make_eval(Registry(), "complexity-world", count=5).samples()
    known = {str(s["input"]): s["ideal"] for s in samples}
    report = api.run("complexity-world", lambda prompt, **_: known[str(prompt)], args={"count": 5}, out=tmp_path / "a")
    assert report.accuracy == 1
    assert {s["level"] for s in samples} == set(range(1, 7))
    one = next(s for s in samples if s["level"] == 6)
    assert all(checks(one["labels"], one["ideal"]).values())
    assert set(checks(one["labels"], "")) == {*RULES, "truth"} and not any(checks(one["labels"], "").values())
    assert not checks(one["labels"], one["ideal"].lower())["capitals"]


def test_levels_that_are_not_there_are_refused() -> None:
    with pytest.raises(EvalError, match=r"levels is .*; expected numbers from 1 to 6"):
        make_eval(Registry(), "complexity-world", levels=[7])


def test_a_page_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for most in (2, 6):
        api.run("complexity", keeps(most), args={"count": 12}, out=tmp_path / f"{most}.jsonl")
    api.run("world-diagrams", lambda prompt, **_: "A", args={"count": 6, "trained": 6}, out=tmp_path / "v.jsonl")
    commands.chart([tmp_path], out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Page of 3 runs" in capsys.readouterr().out
    assert page.count("<polyline") + page.count("<path") > 4
    for words in ("constraints at once", "If slips were independent", "world-diagrams", "grey image"):
        assert words in page
    (tmp_path / "bad.summary.json").write_text("{}")
    with pytest.raises(EvalError, match="is no summary of a run"):
        commands.chart([tmp_path], out=tmp_path / "page.html")
    with pytest.raises(EvalError, match=r"holds no \*.summary.json"):
        commands.chart([tmp_path / "none"], out=tmp_path / "p.html") if (tmp_path / "none").mkdir() is None else None
