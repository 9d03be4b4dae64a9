"""Two runs of one eval: what they differ by, on which samples, and whether a gate lets the new one pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from foretell.errors import EvalError
from foretell.evals.compare import Change, compare, compare_many, no_worse_than
from foretell.evals.scores import Scores
from foretell.measure.stats import detectable_difference, paired_difference, student


def scores(
    run: str,
    values: Mapping[str, float | None] | list[float],
    eval: str = "test-match",
    metric: str = "accuracy",
    group: list[str] | None = None,
) -> Scores:
    named = values if isinstance(values, Mapping) else {f"s.{i:04}": v for i, v in enumerate(values)}
    return Scores(run, "model-" + run, eval, metric, named, dict(zip(named, group, strict=True)) if group else {})


def pair(worse: int, better: int, same: int) -> tuple[Scores, Scores]:
    """Candidate and baseline whose grades differ on so many samples."""
    new = [0.0] * worse + [1.0] * (better + same)
    return scores("new", new), scores("old", [1.0] * worse + [0.0] * better + [1.0] * same)


def test_grades_take_mcnemar_and_the_adjusted_wald_interval() -> None:
    new, old = pair(worse=14, better=4, same=82)
    c = compare(new, old)
    assert (c.baseline, c.candidate, c.eval, c.metric) == ("old", "new", "test-match", "accuracy")
    assert (c.n, c.groups) == (100, 100)
    assert c.p == c.p_holm == pytest.approx(stats.binomtest(4, 18).pvalue)
    a, b = list(new.valid.values()), list(old.valid.values())
    assert c.difference == paired_difference(a, b) and c.difference.estimate == pytest.approx(-0.1)
    assert c.detectable == detectable_difference(a, b)
    assert c.method == "mcnemar" and len(c.worse) == 14 and len(c.better) == 4
    assert c.worse[0] == Change("s.0000", 1.0, 0.0) and c.better[-1] == Change("s.0017", 0.0, 1.0)


def test_other_values_take_the_t_test_or_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60)
    new, old = scores("new", a.tolist()), scores("old", b.tolist())
    theirs = stats.ttest_rel(a, b)
    c = compare(new, old, level=0.9)
    assert c.method == "student" and c.p == pytest.approx(theirs.pvalue)
    assert (c.difference.low, c.difference.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)))
    assert c.stderr == pytest.approx(stats.sem(a - b))
    again = compare(new, old, level=0.9, rng=np.random.default_rng(1))
    assert again.method == "bootstrap" and again.p == pytest.approx(c.p, abs=0.03)
    assert vars(again.difference) == pytest.approx(vars(c.difference), abs=0.02)
    drops = [change.baseline - change.candidate for change in c.worse]
    assert drops == sorted(drops, reverse=True) and min(drops) > 0
    assert len(c.worse) + len(c.better) == 60


def test_groups_are_one_draw() -> None:
    """Ten passages of ten questions, all won or lost together: as much as ten questions tell."""
    a = np.repeat([1.0, 1, 1, 1, 1, 1, 1, 0, 0, 0], 10)
    passages = [str(i // 10) for i in range(100)]
    new = scores("new", a.tolist(), group=passages)
    old = scores("old", (1 - a).tolist())
    c = compare(new, old)
    assert (c.method, c.groups, c.n) == ("clustered student", 10, 100)
    assert c.p == pytest.approx(stats.ttest_1samp((2 * a - 1)[::10], 0).pvalue) and c.p > 0.1
    assert c.difference.low < 0 < compare(scores("new", a.tolist()), old).difference.low
    other = scores("old", (0.3 - 0.1 * a).tolist())
    c = compare(new, other)
    assert c.difference == student(a - np.array(list(other.valid.values())), passages)
    assert compare(scores("new", a.tolist()), scores("old", (0.3 - 0.1 * a).tolist(), group=passages)) == c
    assert compare(new, other, rng=np.random.default_rng(0)).method == "clustered bootstrap"


def test_samples_that_cannot_be_paired_are_named() -> None:
    new = scores("new", {"a": 1, "b": 0, "c": None, "e": 1, "f": None})
    old = scores("old", {"a": 1, "b": 1, "c": 1, "d": 1, "f": None, "g": None})
    c = compare(new, old)
    assert (c.n, c.only_baseline, c.only_candidate) == (2, ("d", "g"), ("e",))
    assert (c.invalid_baseline, c.invalid_candidate) == (("f",), ("c", "f"))
    assert c.worse == (Change("b", 1, 0),) and c.better == ()
    reason = no_worse_than(new, old).reason
    assert reason.endswith("Samples left out: 2 missing from new, 2 not graded in new, 1 not graded in old.")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (scores("old", [1.0], eval="test-fuzzy"), "'test-match', and old has 'test-fuzzy'"),
        (scores("old", [1.0], metric="f1"), "has metric 'accuracy', and old has 'f1'"),
        (scores("old", {"z": 1.0}), "no valid sample in common"),
        (scores("old", {"s.0000": None}), r"old \(0 valid samples\)"),
        (scores("old", [1.0], group=["p"]), "'s.0000' is of group 'q' in new and 'p' in old"),
    ],
)
def test_runs_that_cannot_be_compared(other: Scores, says: str) -> None:
    with pytest.raises(EvalError, match=says):
        compare(scores("new", [1.0], group=["q"]), other)


def test_many_comparisons_are_corrected_over_all() -> None:
    rng = np.random.default_rng(3)
    runs = [scores(f"r{i}", (rng.random(200) < p).astype(float).tolist()) for i, p in enumerate((0.6, 0.6, 0.75))]
    all_pairs = compare_many(runs)
    assert [(c.baseline, c.candidate) for c in all_pairs] == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    by_size = sorted(all_pairs, key=lambda c: c.p)
    assert by_size[0].p_holm == pytest.approx(3 * by_size[0].p) and by_size[0].p_holm < 0.05
    assert all(c.p_holm >= c.p for c in all_pairs) and all_pairs[1].p == compare(runs[2], runs[0]).p
    against = compare_many(runs[1:], baseline=runs[0])
    assert [(c.baseline, c.candidate) for c in against] == [("r0", "r1"), ("r0", "r2")]
    assert compare_many(runs[:1]) == []


def test_gate_fails_only_what_is_proven_worse() -> None:
    new, old = pair(worse=30, better=4, same=66)
    verdict = no_worse_than(new, old)
    assert (verdict.outcome, verdict.passed, verdict.samples_needed) == ("worse", False, None)
    assert "worse by more than 0; 30 samples got worse" in verdict.reason and "-0.26" in verdict.reason
    weak = no_worse_than(new, old, margin=0.2)
    assert weak.outcome == "too weak to tell" and weak.passed
    assert no_worse_than(new, old, margin=0.5).outcome == "no worse"
    assert no_worse_than(old, new).outcome == "no worse"  # proven better
    with pytest.raises(EvalError, match="The margin is -1"):
        no_worse_than(new, old, margin=-1)


def test_gate_that_is_too_weak_says_how_many_samples_would_tell() -> None:
    new, old = pair(worse=12, better=8, same=80)
    verdict = no_worse_than(new, old)
    assert verdict.outcome == "too weak to tell" and verdict.samples_needed is not None
    assert f"about {verdict.samples_needed} samples would tell" in verdict.reason
    factor = verdict.samples_needed / 100
    assert no_worse_than(*pair(round(12 * factor), round(8 * factor), round(80 * factor))).outcome == "worse"
    few = verdict.samples_needed / 4 / 100
    assert no_worse_than(*pair(round(12 * few), round(8 * few), round(80 * few))).outcome == "too weak to tell"


def test_gate_with_a_margin_passes_an_equal_run_once_there_are_enough_samples() -> None:
    verdict = no_worse_than(*pair(worse=10, better=10, same=80), margin=0.05)
    assert verdict.outcome == "too weak to tell" and verdict.samples_needed is not None
    fold = verdict.samples_needed / 100
    assert no_worse_than(*pair(round(10 * fold), round(10 * fold), round(80 * fold)), margin=0.05).outcome == "no worse"
    at_the_margin = no_worse_than(*pair(worse=10, better=10, same=80))
    assert at_the_margin.samples_needed is None and "allow a larger margin" in at_the_margin.reason


def test_gate_errs_as_seldom_as_it_says() -> None:
    """Equal models fail in at most 2.5 % of the cases; one that is much worse is caught."""
    rng = np.random.default_rng(4)
    failed = caught = 0
    for _ in range(300):
        rates = rng.beta(1, 1, 100)
        a, b, c = ((rng.random(100) < r).astype(float).tolist() for r in (rates, rates, rates * 0.7))
        failed += not no_worse_than(scores("a", a), scores("b", b)).passed
        caught += not no_worse_than(scores("c", c), scores("b", b)).passed
    assert failed <= 14 and caught >= 150  # 7.5 are expected at most


group = st.integers(0, 3)
pairs = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 2, group), min_size=2, max_size=25)
free = st.lists(st.tuples(*[st.integers(0, 100).map(lambda x: x / 100)] * 2, group), min_size=2, max_size=25)


@settings(max_examples=60)
@given(st.one_of(pairs, free), st.booleans(), st.randoms(use_true_random=False))
def test_comparison_is_antisymmetric_and_blind_to_order(
    data: list[tuple[float, float, int]], grouped: bool, random: object
) -> None:
    order = list(range(len(data)))
    random.shuffle(order)  # type: ignore[attr-defined]
    groups = {f"s.{i}": str(row[2]) for i, row in enumerate(data)} if grouped else {}
    new, old = (Scores(n, "m", "e", "k", {f"s.{i}": data[i][at] for i in order}, groups) for at, n in enumerate("ab"))
    ours, theirs = compare(new, old), compare(old, new)
    d, e = ours.difference, theirs.difference
    assert (d.estimate, d.low, d.high) == pytest.approx((-e.estimate, -e.high, -e.low))
    assert (ours.p, ours.detectable, ours.stderr) == pytest.approx(
        (theirs.p, theirs.detectable, theirs.stderr), nan_ok=True
    )
    assert [(c.sample, c.baseline, c.candidate) for c in ours.worse] == [
        (c.sample, c.candidate, c.baseline) for c in theirs.better
    ]
    straight = compare(*(Scores(s.run, "m", "e", "k", dict(sorted(s.values.items())), groups) for s in (new, old)))
    assert straight == ours or ours.stderr != ours.stderr
    alone = {f"s.{i}": f"g{i}" for i in range(len(data))}
    if not grouped:
        assert compare(Scores("a", "m", "e", "k", new.values, alone), old) == ours
