"""Intervals and tests against scipy, published tables, closed forms, exact enumeration and simulation."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb, inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from foretell.measure.stats import (
    bootstrap,
    detectable_difference,
    holm,
    mcnemar,
    mean_stderr,
    paired_bootstrap,
    paired_difference,
    pass_at_k,
    proportion,
    resampled_means,
    samples_to_detect,
    student,
    student_test,
    wilson,
)

Array = np.ndarray
finite = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
grouped = st.lists(st.tuples(finite, st.integers(0, 4)), min_size=3, max_size=25)
pairs01 = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=30)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("passed", "total"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (81, 263), (900, 1000)])
def test_wilson_is_that_of_scipy(passed: int, total: int, confidence: float) -> None:
    mine = wilson(passed, total, confidence)
    theirs = stats.binomtest(passed, total).proportion_ci(confidence, "wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert mine.estimate == passed / total and 0 <= mine.low <= mine.estimate <= mine.high <= 1


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_table_of_newcombe_1998(passed: int, total: int, low: float, high: float) -> None:
    interval = wilson(passed, total)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_edges() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def grades(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    cells = ((1, 1, both), (1, 0, only_a), (0, 1, only_b), (0, 0, neither))
    return [a for a, _, n in cells for _ in range(n)], [b for _, b, n in cells for _ in range(n)]


def test_paired_difference_gives_the_approval_ratings_of_agresti() -> None:
    """Categorical Data Analysis, table 10.1: 880 of 1600 against 944 of 1600, −0.04 with (−0.06, −0.02)."""
    interval = paired_difference(*grades(794, 86, 150, 570))
    assert interval.estimate == pytest.approx(-0.04)
    assert (round(interval.low, 2), round(interval.high, 2)) == (-0.06, -0.02)


@pytest.mark.parametrize("cells", [(0.4, 0.1, 0.1, 0.4), (0.6, 0.3, 0.05, 0.05), (0.5, 0.02, 0.02, 0.46)])
def test_paired_difference_keeps_its_coverage_with_15_questions(cells: tuple[float, ...]) -> None:
    n, covered = 15, 0.0
    difference = cells[1] - cells[2]
    for only_a, only_b in product(range(n + 1), repeat=2):
        if only_a + only_b <= n:
            rest = n - only_a - only_b
            ways = comb(n, only_a) * comb(n - only_a, only_b)
            chance = ways * cells[1] ** only_a * cells[2] ** only_b * (cells[0] + cells[3]) ** rest
            interval = paired_difference(*grades(rest, only_a, only_b, 0))
            covered += chance * (interval.low <= difference <= interval.high)
    assert covered >= 0.945


def test_paired_difference_of_equal_and_of_opposite_grades() -> None:
    equal = paired_difference([1, 0, 1, 1], [1, 0, 1, 1])
    assert equal.estimate == 0 and equal.low < 0 < equal.high
    assert paired_difference([1] * 30, [0] * 30).low > 0.8 and paired_difference([1] * 30, [0] * 30).high <= 1
    assert paired_difference([1, 1], [0, 0]).low < 0  # two questions prove nothing
    assert (paired_difference([], []).low, paired_difference([], []).high) == (-1, 1)
    with pytest.raises(ValueError, match="shapes"):
        paired_difference([1], [1, 0])


def test_paired_difference_of_other_grades_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(20), rng.random(20)
    theirs = stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(0.9)
    interval = paired_difference(a, b, 0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert student_test(a - b) == pytest.approx(theirs.pvalue)


def test_grades_that_agree_throughout_still_have_an_error() -> None:
    interval = paired_difference([0.4, 0.7, 1.0], [0.4, 0.7, 1.0])
    assert interval.estimate == 0 and interval.low < -0.35 and interval.high > 0.35
    assert detectable_difference([0.4, 0.7, 1.0], [0.4, 0.7, 1.0]) > 0.4
    beyond = paired_difference([3.0, 40.0], [3.0, 40.0])  # nothing is known of how far such values can lie apart
    assert (beyond.low, beyond.high) == (0, 0)


def test_paired_difference_is_the_wald_interval_of_two_more_questions() -> None:
    """Agresti and Min (2005), section 3: 0.5 more in each of the four cells, so n + 2 questions."""
    b, c, n = 7.5, 3.5, 22
    half = stats.norm.ppf(0.975) * np.sqrt((b + c) / n - ((b - c) / n) ** 2) / np.sqrt(n)
    interval = paired_difference(*grades(4, 7, 3, 6))
    assert (interval.low, interval.high) == pytest.approx(((b - c) / n - half, (b - c) / n + half))


def test_mean_stderr() -> None:
    x = np.random.default_rng(1).normal(size=60)
    assert mean_stderr(x) == pytest.approx((x.mean(), stats.sem(x)))
    assert mean_stderr([2.0]) == pytest.approx((2.0, nan), nan_ok=True)


def sandwich(x: Array, groups: Array) -> float:
    """Cluster-robust error of an intercept, from the matrices: what statsmodels gives with use_correction."""
    n, design, residual = len(x), np.ones((len(x), 1)), x - x.mean()
    bread = np.linalg.inv(design.T @ design)
    meat = np.zeros((1, 1))
    for group in np.unique(groups):
        score = design[groups == group].T @ residual[groups == group]
        meat += np.outer(score, score)
    g = len(np.unique(groups))
    return float(np.sqrt((bread @ meat @ bread)[0, 0] * g / (g - 1) * (n - 1) / (n - 1)))


@given(grouped)
def test_the_clustered_error_is_the_sandwich(data: list[tuple[float, int]]) -> None:
    x, groups = (np.array(column) for column in zip(*data, strict=True))
    mean, stderr = mean_stderr(x, groups.tolist())
    assert mean == pytest.approx(x.mean())
    if len(set(groups)) > 1:
        assert stderr == pytest.approx(sandwich(x, groups), rel=1e-9, abs=1e-12)
    else:
        assert np.isnan(stderr)


@given(st.lists(finite, min_size=2, max_size=30))
def test_groups_of_one_change_nothing(x: list[float]) -> None:
    alone = [f"g{i}" for i in range(len(x))]
    assert mean_stderr(x, alone) == pytest.approx(mean_stderr(x), rel=1e-9, abs=1e-12)
    assert vars(student(x, alone)) == pytest.approx(vars(student(x)), rel=1e-9, abs=1e-9)
    grades = [float(v > 0) for v in x]
    assert vars(proportion(grades, alone)) == pytest.approx(vars(wilson(sum(v > 0 for v in x), len(x))))
    assert vars(paired_difference(grades, grades[::-1], 0.95, alone)) == pytest.approx(
        vars(paired_difference(grades, grades[::-1]))
    )
    ours, theirs = (resampled_means(x, np.random.default_rng(0), g, 20) for g in (alone, None))
    assert ours == pytest.approx(theirs)


def test_the_clustered_error_of_equal_groups_is_that_of_their_means() -> None:
    x = np.random.default_rng(2).normal(size=(12, 5))
    groups = np.repeat(np.arange(12), 5).tolist()
    mean, stderr = mean_stderr(x.ravel(), groups)
    assert stderr == pytest.approx(stats.sem(x.mean(axis=1)))
    low, high = stats.t.interval(0.9, 11, mean, stderr)
    interval = student(x.ravel(), groups, 0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert student_test(x.ravel(), groups) == pytest.approx(stats.ttest_1samp(x.mean(axis=1), 0).pvalue)


def test_one_group_tells_nothing() -> None:
    x, one = [1.0, 2.0, 3.0], ["a", "a", "a"]
    assert (student(x, one).low, student(x, one).high) == (-inf, inf)
    assert student_test(x, one) == 1 and student_test([2.0]) == 1
    assert (proportion([1, 1, 0], one).low, proportion([1, 1, 0], one).high) == (0, 1)
    rng = np.random.default_rng(0)
    assert (bootstrap(x, rng, one).low, bootstrap(x, rng, one).high) == (-inf, inf)
    assert paired_bootstrap(x, [0.0] * 3, rng, one)[1] == 1
    assert detectable_difference(x, [0.0] * 3, groups=one) == inf
    with pytest.raises(ValueError, match="1 groups for 3 values"):
        mean_stderr(x, ["a"])


def test_groups_that_differ_alike_take_the_sign_test() -> None:
    assert student_test([0.1] * 6) == pytest.approx(stats.binomtest(6, 6).pvalue)
    assert student_test([0.1] * 6, list("aabbcc")) == pytest.approx(2 / 8)
    assert student_test([0.0] * 6) == 1


def test_proportion_of_groups_is_wilson_of_what_they_are_worth() -> None:
    x, groups = np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0.0]), np.repeat(np.arange(4), 3)
    effect = (sandwich(x, groups) / stats.sem(x)) ** 2
    worth = 12 / effect * (stats.t.ppf(0.95, 11) / stats.t.ppf(0.95, 3)) ** 2
    p, z = x.mean(), stats.norm.ppf(0.95)
    ends = [q for q in np.roots([1 + z * z / worth, -(2 * p + z * z / worth), p * p])]  # of the score equation
    interval = proportion(x, groups.tolist(), 0.9)
    assert effect > 1
    assert (interval.low, interval.high) == pytest.approx(sorted(ends))


def test_groups_never_narrow_and_agreement_never_proves() -> None:
    x = [1.0, 0.0] * 20
    halves = [i // 2 for i in range(40)]  # each group scores one half: its clustered error is zero
    assert mean_stderr(x, halves)[1] == 0
    assert proportion(x, halves).low < wilson(20, 40).low < wilson(20, 40).high < proportion(x, halves).high
    all_right = proportion([1.0] * 40, [i // 4 for i in range(40)])
    assert all_right.high == 1 and all_right.low < wilson(10, 10).low
    with pytest.raises(ValueError, match="not all 0 or 1"):
        proportion([0.5])


def draw_grades(rng: np.random.Generator, p: float, alike: float, groups: int) -> tuple[Array, list[int]]:
    """Grades of groups of 1 to 9 whose pass rates are beta-distributed with mean p."""
    sizes = rng.integers(1, 10, groups)
    spread = (1 - alike) / alike
    label = np.repeat(np.arange(groups), sizes)
    rates = rng.beta(p * spread, (1 - p) * spread, groups)
    return (rng.random(len(label)) < rates[label]).astype(float), label.tolist()


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    hits = np.zeros(3)
    for _ in range(400):
        x, groups = draw_grades(rng, 0.9, 0.4, 40)
        found = proportion(x, groups), student(x, groups), wilson(int(x.sum()), len(x))
        hits += [i.low <= 0.9 <= i.high for i in found]
    assert hits[0] >= 0.9 * 400 and hits[0] >= hits[1] and hits[2] < 0.8 * 400


def test_paired_difference_of_groups_covers_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(4)
    hits = np.zeros(3)
    for _ in range(400):
        sizes = rng.integers(1, 10, 30)
        groups = np.repeat(np.arange(30), sizes)
        rates = rng.beta(1, 1, (2, 30))[:, groups]  # both models are alike on the mean, not on a group
        a, b = (rng.random(rates.shape) < rates).astype(float)
        found = paired_difference(a, b, 0.95, groups.tolist()), paired_difference(a, b)
        hits += [*(i.low <= 0 <= i.high for i in found), student_test(a - b, groups.tolist()) > 0.05]
    assert hits[0] >= 0.93 * 400 and hits[1] < 0.85 * 400 and hits[2] >= 0.92 * 400


@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_is_that_of_scipy(ties: bool) -> None:
    x = np.random.default_rng(5).exponential(size=37)
    x = np.ceil(x[:9]) if ties else x
    mine = bootstrap(x, np.random.default_rng(6), confidence=0.9, resamples=2000)
    theirs = stats.bootstrap(
        (x,), np.mean, confidence_level=0.9, n_resamples=2000, method="BCa", rng=np.random.default_rng(6)
    ).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert mine.estimate == x.mean()


def test_bootstrap_draws_groups_whole() -> None:
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 12, 60)
    groups = np.repeat(np.arange(60), sizes)
    x = rng.normal(size=60)[groups] + rng.normal(size=len(groups))
    means = resampled_means(x, rng, groups.tolist(), 4000)
    assert means.std() == pytest.approx(sandwich(x, groups), rel=0.06)
    assert means.std() > 1.5 * stats.sem(x)
    sums = np.array([x[groups == g].sum() for g in range(60)])
    drawn = np.random.default_rng(8).integers(0, 60, (5, 60))
    assert resampled_means(x, np.random.default_rng(8), groups.tolist(), 5) == pytest.approx(
        sums[drawn].sum(1) / sizes[drawn].sum(1)
    )


def test_bootstrap_of_many_values_is_drawn_in_pieces() -> None:
    x = np.random.default_rng(9).random(300_000)
    assert len(resampled_means(x, np.random.default_rng(0), resamples=7)) == 7
    assert bootstrap([2.0, 2.0, 2.0], np.random.default_rng(0)).low == 2


@settings(max_examples=30)
@given(grouped)
def test_paired_bootstrap_is_antisymmetric_and_its_p_inverts_its_interval(data: list[tuple[float, int]]) -> None:
    x, g = (list(column) for column in zip(*data, strict=True))
    y = x[::-1]
    (ours, p), (theirs, q) = (paired_bootstrap(*ab, np.random.default_rng(0), g, 0.95, 999) for ab in ((x, y), (y, x)))
    assert (ours.estimate, ours.low, ours.high, p) == pytest.approx((-theirs.estimate, -theirs.high, -theirs.low, q))
    assert (p <= 0.05) == (ours.low > 0 or ours.high < 0) or abs(p - 0.05) < 0.005


def test_paired_bootstrap_agrees_with_the_t_test() -> None:
    rng = np.random.default_rng(10)
    a = rng.normal(0.15, 1, 200)
    interval, p = paired_bootstrap(a, np.zeros(200), rng)
    theirs = stats.ttest_1samp(a, 0)
    assert (interval.low, interval.high) == pytest.approx(theirs.confidence_interval(), abs=0.01)
    assert p == pytest.approx(theirs.pvalue, abs=0.02)
    assert paired_bootstrap(np.full(9, 2.0), np.zeros(9), rng, resamples=999)[1] == pytest.approx(2 / 1000)


@given(pairs01)
def test_paired_difference_is_antisymmetric_and_blind_to_order(data: list[tuple[int, int, int]]) -> None:
    a, b, g = (list(column) for column in zip(*data, strict=True))
    for groups, turned in ((None, None), (g, g[::-1])):
        ours, theirs = paired_difference(a, b, 0.95, groups), paired_difference(b, a, 0.95, groups)
        assert (ours.estimate, ours.low, ours.high) == pytest.approx((-theirs.estimate, -theirs.high, -theirs.low))
        assert vars(paired_difference(a[::-1], b[::-1], 0.95, turned)) == pytest.approx(vars(ours))
        assert -1 <= ours.low <= ours.high <= 1
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, b) == pytest.approx(exact_mcnemar(a, b))


def exact_mcnemar(a: list[int], b: list[int]) -> float:
    better, worse = sum(x > y for x, y in zip(a, b, strict=True)), sum(x < y for x, y in zip(a, b, strict=True))
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def test_mcnemar_of_large_tables_and_of_other_grades() -> None:
    """Agresti's approval ratings again: 86 against 150 changed their mind."""
    assert mcnemar(*grades(794, 86, 150, 570)) == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-10)
    with pytest.raises(ValueError, match="not all 0 or 1"):
        mcnemar([0.5], [1])


@pytest.mark.parametrize(("n", "power", "confidence"), [(5, 0.8, 0.95), (30, 0.9, 0.99), (400, 0.5, 0.9)])
def test_detectable_difference_is_found_with_that_power(n: int, power: float, confidence: float) -> None:
    a = np.random.default_rng(n).normal(size=n)
    d = detectable_difference(a, np.zeros(n), confidence, power)
    critical = stats.t.ppf((1 + confidence) / 2, n - 1)
    assert stats.nct.sf(critical, n - 1, d / stats.sem(a)) == pytest.approx(power, abs=1e-6)


def test_detectable_difference_of_grades_is_found_in_simulation() -> None:
    """300 questions, one in five of which either model may win: the difference is found in 80 % of the repetitions."""
    rng, n = np.random.default_rng(11), 300
    pilot = rng.multinomial(n, [0.1, 0.1, 0.8])
    d = detectable_difference(*grades(pilot[2], pilot[0], pilot[1], 0))
    drawn = rng.multinomial(n, [0.1 + d / 2, 0.1 - d / 2, 0.8], 500)
    found = [paired_difference(*grades(both, a, b, 0)).low > 0 for a, b, both in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert detectable_difference(*grades(10, 0, 0, 10)) > 0.1  # that none differed does not prove that none would


def test_samples_to_detect() -> None:
    a = np.random.default_rng(12).normal(size=1000)
    d = detectable_difference(a, np.zeros(1000))
    needed = samples_to_detect(d / 2, 1000, d)
    assert needed in (4000, 4001)
    assert samples_to_detect(0.0, 1000, d) is None and samples_to_detect(0.1, 1, inf) is None


def test_pass_at_k_is_the_published_formula() -> None:
    for n in range(1, 13):
        for k in range(1, n + 1):
            theirs = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]
            assert pass_at_k(n, range(n + 1), k) == pytest.approx(theirs, abs=1e-12)
    for c, k in ((3, 4), (1, 10), (0, 3), (7, 4)):  # c of 10 pass: every choice of k
        picks = [any(i < c for i in pick) for pick in combinations(range(10), k)]
        assert pass_at_k(10, c, k) == pytest.approx(np.mean(picks), abs=1e-12)
    for n, c, k in ((5, 6, 1), (5, 1, 6), (5, 1, 0), (5, -1, 2)):
        with pytest.raises(ValueError, match="within the draws"):
            pass_at_k(n, c, k)


def test_pass_at_k_of_many_draws_is_exact() -> None:
    for n, c, k in ((100_000, 3, 100), (100_000, 99_000, 50), (200, 1, 199), (1_000_000, 1, 1)):
        exact = Fraction(1)
        for i in range(k):
            exact *= Fraction(max(n - c - i, 0), n - i)
        assert pass_at_k(n, c, k) == pytest.approx(float(1 - exact), rel=1e-9)
    assert pass_at_k([4, 5], [[0], [4]], 2).tolist() == [[0, 0], [1, 1]]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 1))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], level: float) -> None:
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    corrected = holm(p)
    assert {i for i, c in enumerate(corrected) if c <= level} == (rejected if level < 1 else set(range(len(p))))
    assert (corrected >= p).all() and (corrected <= 1).all()


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0
