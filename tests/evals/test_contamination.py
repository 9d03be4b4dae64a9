"""Contamination of evals: what is looked for, the clean part's scores and their intervals, the tables, the page."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evalkit import adds, small_eval, sums, write_registry

import foretell.evals.api as api
from foretell.data.texts import corpus_files
from foretell.errors import EvalError
from foretell.evals.contamination import Exposure, exposure, exposure_of_run, plain, split, tables
from foretell.evals.contamination_check import check_contamination
from foretell.evals.contamination_page import render
from foretell.evals.items import Items, items_of, items_of_log, text_of
from foretell.evals.log import RunLog
from foretell.evals.scores import Scores
from foretell.measure.overlap import Flag, Index, Place, build
from foretell.measure.stats import Interval, independent_difference, independent_ratio, wilson


def flag(id: str, hit: bool, characters: int = 80) -> Flag:
    return Flag(id, characters, "x" * 50 if hit else None, Place("web.jsonl", 3) if hit else None)


def graded(clean: tuple[int, int], dirty: tuple[int, int]) -> tuple[Scores, list[Flag]]:
    """Scores of (right, of how many) in either part."""
    values = {
        f"{part}{i}": float(i < right) for part, (right, n) in zip("cd", (clean, dirty), strict=True) for i in range(n)
    }
    return Scores("r", "m", "x.dev.v0", "accuracy", values), [flag(id, id[0] == "d") for id in values]


def test_the_reports_own_figures_come_out() -> None:
    """LSAT: 39 % contaminated, 76 % right, 83.61 % of the clean part, 64.1 % of the rest; degradation 10.01 %."""
    found = split(*graded((51, 61), (25, 39)))
    assert found["whole"].value == 0.76 and round(found["clean"].value, 4) == 0.8361
    assert round(found["contaminated"].value, 4) == 0.6410
    assert round(found["degradation"].estimate, 4) == 0.1001
    assert found["reported"] == 0.76


def test_delta_is_clean_less_all_with_newcombes_interval_of_the_parts() -> None:
    found = split(*graded((51, 61), (25, 39)))
    d = independent_difference(wilson(51, 61), wilson(25, 39))
    assert found["delta"].estimate == pytest.approx(found["clean"].value - found["whole"].value)
    assert (found["delta"].low, found["delta"].high) == pytest.approx((0.39 * d.low, 0.39 * d.high))
    lost = split(*graded((30, 61), (35, 39)))
    assert lost["delta"].high < 0 and lost["reported"] == lost["clean"].value < lost["whole"].value
    assert split(*graded((30, 61), (35, 39)), higher_is_better=False)["reported"] == lost["whole"].value


def test_newcombes_example() -> None:
    """56/70 − 48/80: 0.0524 to 0.3339 (Newcombe 1998, table II, example a, method 10)."""
    d = independent_difference(wilson(56, 70), wilson(48, 80))
    assert (round(d.low, 4), round(d.high, 4)) == (0.0524, 0.3339)


def test_ratio_is_its_own_inverse_and_covers() -> None:
    a, b = wilson(30, 50), wilson(45, 60)
    r, inverse = independent_ratio(a, b), independent_ratio(b, a)
    assert (1 / inverse.high, 1 / inverse.low) == pytest.approx((r.low, r.high))
    assert r.low < r.estimate < r.high
    assert independent_ratio(wilson(0, 9), b).low == 0 and independent_ratio(a, Interval(0.1, 0.0, 0.3)).high == np.inf
    with pytest.raises(ValueError, match="not negative"):
        independent_ratio(a, wilson(0, 9))
    rng, held = np.random.default_rng(0), 0
    for x, y in zip(rng.binomial(80, 0.5, 400), rng.binomial(60, 0.7, 400), strict=True):
        r = independent_ratio(wilson(int(x), 80), wilson(int(y), 60))
        held += r.low <= 0.5 / 0.7 <= r.high
    assert 0.92 <= held / 400 <= 0.98


def test_degradation_covers_what_it_estimates() -> None:
    rng, held = np.random.default_rng(1), 0
    share, clean, dirty = 40 / 160, 0.6, 0.8
    truth = clean / ((1 - share) * clean + share * dirty) - 1
    for c, d in zip(rng.binomial(120, clean, 200), rng.binomial(40, dirty, 200), strict=True):
        r = split(*graded((int(c), 120), (int(d), 40)))["degradation"]
        held += r.low <= truth <= r.high
    assert 0.92 <= held / 200 <= 1


PARTS = [((5, 9), (0, 0)), ((0, 0), (5, 9)), ((0, 9), (0, 9)), ((0, 9), (4, 9)), ((9, 9), (0, 9))]


@pytest.mark.parametrize(("clean", "dirty"), PARTS)
def test_empty_and_extreme_parts(clean: tuple[int, int], dirty: tuple[int, int]) -> None:
    found = split(*graded(clean, dirty))
    if not clean[1]:  # nothing is left, as with the report's GRE Writing
        assert found["clean"].value is None and found["delta"] is None and found["reported"] == 5 / 9
    elif not dirty[1]:
        assert found["delta"] == found["degradation"] == Interval(0, 0, 0)
    elif not clean[0]:
        assert found["reported"] == 0 and (found["degradation"] is None) == (not dirty[0])
        assert not dirty[0] or found["degradation"].estimate == -1 <= found["degradation"].high < 0
    else:
        assert found["degradation"].estimate == 1 and found["degradation"].low > 0


def test_other_scores_and_groups_have_intervals_too() -> None:
    rng = random.Random(0)
    values = {str(i): rng.random() for i in range(60)}
    groups = {str(i): str(i // 4) for i in range(60)}
    scores = Scores("r", "m", "x.dev.v0", "f1", values | {"60": None}, groups)
    found = split(scores, [flag(str(i), i < 20) for i in range(61)])
    assert found["clean"].n == 41 and found["delta"].low < found["delta"].estimate < found["delta"].high
    assert found["degradation"].low < 0 < found["degradation"].high
    with pytest.raises(EvalError, match="Sample 60 of run r was not looked for"):
        split(scores, [flag(str(i), True) for i in range(60)])


ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"query": "Question: Why?\nAnswer:", "answer": " so", "ideal": ["so"]}, " Why?", " Why?\nso\n so"),
    ({"ask": "What?", "query": "What?\nAnswer:", "options": ["a", "b"], "choices": ["a", "b"]}, "What?", "What?\na\nb"),
    ({"query": "Q: who\nA: Let's think step by step.\n", "ideal": ["x"]}, " who", " who\nx"),
    ({"contexts": ["The cat saw Ann since Ann", "The cat saw Ann since Eve"], "choices": ["hid."], "options": ["p"]},
     "The cat saw Ann since hid.", "The cat saw Ann since hid.\np"),
    ({"input": "plain", "ideal": "x"}, "plain", "plain\nx"),
    ({"question": "What?", "choices": ["a"], "answer": 0}, "What?", "What?\na"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "question", "all_"), ROWS)
def test_of_a_sample_its_question_counts(sample: dict[str, Any], question: str, all_: str) -> None:
    assert text_of(sample) == question
    assert text_of(sample, "all") == all_


def chat(passage: str, question: str) -> dict[str, Any]:
    return {
        "input": [
            {"role": "system", "content": "Read, and answer."},
            {"role": "system", "name": "example_user", "content": "a worked one"},
            {"role": "system", "content": passage},
            {"role": "user", "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {}}]},
        ],
        "ideal": "x",
    }


def test_instructions_and_worked_samples_are_left_out(tmp_path: Path) -> None:
    samples = [chat("first", "who"), chat("first", "where"), chat("second", "when"), chat("third", "why")]
    items = items_of(small_eval(tmp_path, "Match", samples))
    assert list(items.texts) == ["x.dev.0", "x.dev.1", "x.dev.2", "x.dev.3"]
    assert list(items.texts.values()) == ["first\nwho", "first\nwhere", "second\nwhen", "third\nwhy"]
    with pytest.raises(EvalError, match=r"Sample x\.dev\.0 holds no question that could be looked for; it has ideal"):
        items_of(small_eval(tmp_path, "Match", [{"ideal": "x"}]))


def run(folder: Path, samples: list[dict[str, Any]], model: Any = adds, limit: int | None = None) -> RunLog:
    registry = write_registry(folder / "registry", "Match", samples)
    return api.run("x", model, registry=registry, samples=limit, out=folder / "log.jsonl").log


def test_items_of_a_log_are_its_evals_samples_else_its_prompts(tmp_path: Path) -> None:
    log = run(tmp_path, sums(30), limit=10)
    items = items_of_log(log)
    assert len(items.texts) == 10 and not items.note
    assert all(items.texts[id] == f"{id.rpartition('.')[2]} + {id.rpartition('.')[2]} =" for id in items.texts)
    (tmp_path / "registry/evals/x.yaml").unlink()
    from_prompts = items_of_log(log)
    assert from_prompts.texts == items.texts and "Prompts of the log" in from_prompts.note
    with pytest.raises(EvalError, match="--registry-path"):
        items_of_log(log, part="options")


def index_of(folder: Path, *texts: str) -> Index:
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    build(corpus_files([folder / "corpus.jsonl"]), folder / "index")
    return Index(folder / "index")


LONG = [f"{i} + {i} = , said the {w} to the other one, and waited for what would come of it" for i, w in enumerate(
    ["fox", "crow", "owl", "hare", "bear", "wolf", "stork", "mouse", "snail", "goose"]
)]  # fmt: skip


def leaky(tmp_path: Path) -> tuple[RunLog, Index]:
    """A run on ten questions, of which the corpus has four, in other dress."""
    samples = [{"input": [{"role": "user", "content": text}], "ideal": str(2 * i)} for i, text in enumerate(LONG)]
    corpus = [f"Then: {text.replace(' ', '  ')}! And so on." for text in LONG[:4]]

    async def knows(prompt: Any, **params: Any) -> str:
        first = int(prompt[-1]["content"].split()[0])
        return str(2 * first) if first < 4 or first % 2 else "no idea"

    return run(tmp_path, samples, knows), index_of(tmp_path, *corpus, "something else")


def test_a_run_is_scored_with_and_without_what_was_found(tmp_path: Path) -> None:
    log, index = leaky(tmp_path)
    (found,) = check_contamination([str(log.path)], index)
    assert {f.id for f in found.flags if f.contaminated} == {f"x.dev.{i}" for i in range(4)}
    assert (found.share, found.whole.value, found.clean.value, found.contaminated.value) == (0.4, 0.7, 0.5, 1.0)
    assert found.reported == 0.5 and found.degradation.estimate == pytest.approx(0.5 / 0.7 - 1)
    assert {str(f.where) for f in found.flags if f.contaminated} == {f"corpus.jsonl:{i}" for i in range(1, 5)}


def test_runs_evals_and_files_are_looked_for_together(tmp_path: Path) -> None:
    log, index = leaky(tmp_path)
    registry = tmp_path / "registry"
    samples = registry / "data/x.jsonl"
    found = check_contamination([str(log.path), "x", str(samples)], index, registries=[registry], exams=["x.*"])
    assert [e.flagged for e in found] == [4, 4, 4] and [e.kind for e in found] == ["exam", "exam", "benchmark"]
    assert found[2].flags[0].id == "x.jsonl:1" and found[1].whole is None
    exams, detail, academic = tables(found)
    assert exams.head[:2] == ("eval", "contaminated") and exams.head[3] == f"{exams.head[2]}, clean"
    assert exams.rows == (("x.dev.v0", 0.4, 0.7, 0.5),) and academic.rows == ((str(samples), 0.4),)
    assert [row[3] for row in detail.rows] == [4, 4, 4]
    (few,) = check_contamination([str(log.path)], index, sample=5)
    assert len(few.flags) == few.whole.n == 5
    with pytest.raises(EvalError, match="no part 'words'"):
        check_contamination(["x"], index, part="words", registries=[registry])
    with pytest.raises(EvalError, match="gone"):
        check_contamination(["gone"], index)
    (tmp_path / "bad.jsonl").write_text('{"input": "a"}\n{"input": \n')
    with pytest.raises(EvalError, match=r"bad\.jsonl, line 2 is not JSON"):
        check_contamination([str(tmp_path / "bad.jsonl")], index)


def test_several_models_stand_side_by_side() -> None:
    def of(eval: str, model: str, clean: tuple[int, int], dirty: tuple[int, int]) -> Exposure:
        scores, flags = graded(clean, dirty)
        found = split(scores, flags) | {"model": model}
        return Exposure(eval, "benchmark", tuple(flags), **found)

    found = [of("a", "one", (5, 8), (1, 2)), of("a", "two", (4, 8), (2, 2)), of("b", "two", (4, 8), (0, 0))]
    _, detail, academic = tables(found)
    assert academic.head[2:5] == ("one", "one, clean", "one, degradation")
    assert academic.rows[1][:5] == ("b", 0.0, None, None, None) and academic.rows[1][5] == 0.5
    assert [row[0] for row in detail.rows] == ["a", "a", "b"]


def test_the_page_escapes_and_holds_every_table(tmp_path: Path) -> None:
    log, index = leaky(tmp_path)
    found = check_contamination([str(log.path)], index)
    text = render(found, index.about, {"seed": 0})
    for words in ("Every exam and benchmark", "Academic benchmarks", "With and without", "40.0", "corpus.jsonl:1"):
        assert words in text
    odd = exposure("<script>", Items({"a": ""}, "<b>"), [flag("<i>", True, 9)])
    text = render([odd], index.about, {})
    assert "<script>" not in text and "&lt;script&gt;" in text and "chance may have done it: 1 of" in text
    told = json.loads(json.dumps(plain(found, index.about, {"seed": 0}), allow_nan=False))
    assert {hit["where"] for hit in told["evals"][0]["flagged"]} == {f"corpus.jsonl:{i}" for i in range(1, 5)}
    assert told["tables"][1]["rows"][0][3] == 4
    assert told["index"]["sources"][0]["sha256"]


def test_an_eval_without_samples_is_refused() -> None:
    with pytest.raises(EvalError, match="no samples"):
        exposure("x", Items({}), [])


def test_a_run_of_some_items_counts_their_scores_alone(tmp_path: Path) -> None:
    log = run(tmp_path, sums(6))
    items = Items({"x.dev.1": "1 + 1 =", "x.dev.2": "2 + 2 ="})
    assert exposure_of_run(log, items, [flag("x.dev.1", True), flag("x.dev.2", False)]).whole.n == 2
