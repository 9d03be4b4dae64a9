"""Error bars: intervals of accuracies and means, paired differences and their tests, and what they could detect."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import ceil, inf, nan, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Groups = Sequence[Hashable] | None  # one label a value: values of one group are not independent
_AT_ONCE = 1 << 20  # draws of the bootstrap that are held


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval [low, high]."""

    estimate: float
    low: float
    high: float


def wilson(passed: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval of an accuracy of `passed` out of `total`; [0, 1] if nothing was asked.

    Raises ValueError unless 0 <= passed <= total.
    Source: Wilson (1927), score interval without continuity correction.
    """
    if not 0 <= passed <= total:
        raise ValueError(f"{passed} of {total} were passed; expected 0 <= passed <= total")
    return _wilson(passed / total if total else nan, total, _z(confidence))


def proportion(grades: Sequence[float] | Floats, groups: Groups = None, confidence: float = 0.95) -> Interval:
    """Interval of the mean of grades 0 or 1: `wilson`, of as many grades as the groups are worth.

    That number is n over the design effect (never below 1, so that grouping cannot narrow the interval; that of
    wholly alike members where all grades are equal and nothing is known of it), less the groups' fewer degrees of
    freedom. Unlike mean ± t · stderr it stays within [0, 1] and does not shrink to a point where all grades agree.
    Raises ValueError for other grades.
    Source: Korn and Graubard (1998), Survey Methodology 24:193, its effective sample size, in Wilson's interval as
    compared by Franco et al. (2019), Journal of Survey Statistics and Methodology 7:334.
    """
    x = np.asarray(grades, np.float64)
    if not is_binary(x):
        raise ValueError("grades are not all 0 or 1; expected those, or `student` for other values")
    return _wilson(float(x.mean()) if len(x) else nan, _effective_size(x, groups, confidence), _z(confidence))


def mean_stderr(values: Sequence[float] | Floats, groups: Groups = None) -> tuple[float, float]:
    """Mean and its standard error; nan error where fewer than two values, or groups, were seen.

    groups: where given, the cluster-robust error, equal to the plain one where every group has one member.
    Raises ValueError if there is not one group a value.
    Source: Liang and Zeger (1986), Biometrika 73:13; factor G / (G − 1) of Cameron and Miller (2015), Journal of
    Human Resources 50:317, section II.B, whose other factor (N − 1) / (N − K) is 1 for a mean.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return nan, nan
    mean = float(x.mean())
    if groups is None:
        return mean, float(x.std(ddof=1)) / sqrt(len(x)) if len(x) > 1 else nan
    sums, _ = _cluster(x - mean, groups)
    count = len(sums)
    return mean, sqrt(count / (count - 1) * float(sums @ sums)) / len(x) if count > 1 else nan


def student(values: Sequence[float] | Floats, groups: Groups = None, confidence: float = 0.95) -> Interval:
    """Interval mean ± t · stderr (`mean_stderr`), t of one less than the number of groups; unbounded below two.

    Source: Cameron and Miller (2015), section VI.D, for t with G − 1 degrees of freedom.
    """
    mean, stderr = mean_stderr(values, groups)
    degrees = _count(values, groups) - 1
    if degrees < 1:
        return Interval(mean, -inf, inf)
    half = _t(confidence, degrees) * stderr
    return Interval(mean, mean - half, mean + half)


def independent_difference(a: Interval, b: Interval) -> Interval:
    """Interval of a − b, from those of two independent estimates; of two accuracies by `wilson` it is Newcombe's.

    Source: Zou and Donner (2008), Statistics in Medicine 27:1693 (MOVER); Newcombe (1998), 17:873, method 10.
    """
    d = a.estimate - b.estimate
    low = d - sqrt((a.estimate - a.low) ** 2 + (b.high - b.estimate) ** 2)
    return Interval(d, low, d + sqrt((a.high - a.estimate) ** 2 + (b.estimate - b.low) ** 2))


def independent_ratio(a: Interval, b: Interval) -> Interval:
    """Interval of a / b, from those of two independent estimates that are not negative; unbounded where b may be 0.

    Raises ValueError unless b > 0 and no end that is finite lies below 0.
    Source: Donner and Zou (2012), Statistical Methods in Medical Research 21:347 (MOVER-R).
    """
    if not b.estimate > 0 or min(a.low, b.low) < 0:
        raise ValueError(f"the ratio of {a} and {b}; expected estimates of what is not negative, the second above 0")
    both = a.estimate * b.estimate
    lower = a.low * (2 * a.estimate - a.low)
    low = lower / (both + sqrt(max(both**2 - lower * b.high * (2 * b.estimate - b.high), 0.0))) if lower else 0.0
    under = b.low * (2 * b.estimate - b.low)
    high = (both + sqrt(max(both**2 - a.high * (2 * a.estimate - a.high) * under, 0.0))) / under if under else inf
    return Interval(a.estimate / b.estimate, low, high)


def student_test(values: Sequence[float] | Floats, groups: Groups = None) -> float:
    """Two-sided p of a mean of zero, by the t of `student`; 1 where fewer than two groups were seen.

    Groups that all differ from zero by the same amount leave no error to divide by. They take the sign test's
    p, 2 ** (1 − groups).
    """
    from scipy.special import stdtr

    mean, stderr = mean_stderr(values, groups)
    degrees = _count(values, groups) - 1
    if degrees < 1 or mean == 0:
        return 1.0
    if stderr <= 1e-12 * abs(mean):
        return float(2.0**-degrees)
    return float(2 * stdtr(degrees, -abs(mean) / stderr))


def resampled_means(
    values: Sequence[float] | Floats, rng: np.random.Generator, groups: Groups = None, resamples: int = 9999
) -> Floats:
    """Means of `resamples` draws of all values with replacement, shape (resamples,); groups are drawn whole.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 6; Davison and Hinkley (1997),
    section 3.8, for groups.
    """
    sums, sizes = _cluster(np.asarray(values, np.float64), groups)
    count = len(sums)
    rows = max(1, _AT_ONCE // count)
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, count, (min(rows, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def bootstrap(
    values: Sequence[float] | Floats,
    rng: np.random.Generator,
    groups: Groups = None,
    confidence: float = 0.95,
    resamples: int = 9999,
) -> Interval:
    """Interval of a mean by `resampled_means`, bias-corrected and accelerated (BCa), which suits skewed values;
    unbounded where fewer than two groups were seen.

    Source: Efron (1987), Journal of the American Statistical Association 82:171.
    """
    from scipy.special import ndtr, ndtri

    x = np.asarray(values, np.float64)
    mean, _ = mean_stderr(x)
    if _count(x, groups) < 2:
        return Interval(mean, -inf, inf)
    means = resampled_means(x, rng, groups, resamples)
    shares = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if np.ptp(means) > 0:
        sums, sizes = _cluster(x, groups)
        without = (sums.sum() - sums) / (sizes.sum() - sizes)
        spread = without.mean() - without
        acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
        bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
        reach = bias + ndtri(shares)
        shares = ndtr(bias + reach / (1 - acceleration * reach))
    low, high = np.quantile(means, shares)
    return Interval(mean, float(low), float(high))


def paired_difference(
    a: Sequence[float] | Floats, b: Sequence[float] | Floats, confidence: float = 0.95, groups: Groups = None
) -> Interval:
    """Interval of mean(a) − mean(b) where a[i] and b[i] grade the same question; [−1, 1] if there is none.

    Grades that are all 0 or 1 take the adjusted Wald interval, which keeps its coverage when questions are few or
    the grades nearly agree (half a question is added to each cell of the 2 × 2 table); so do grades within [0, 1]
    that agree throughout. groups: the table then counts as many questions as they are worth, as in `proportion`.
    Other grades take `student` of the differences.
    Raises ValueError if the lengths differ.
    Source: Agresti and Min (2005), Statistics in Medicine 24:729.
    """
    d, bounded = _differences(a, b)
    if not len(d):
        return Interval(nan, -1.0, 1.0)
    if not bounded:
        return student(d, groups, confidence)
    centre, stderr = _adjusted_wald(d, groups, confidence)
    half = _z(confidence) * stderr
    return Interval(float(d.mean()), max(centre - half, -1.0), min(centre + half, 1.0))


def paired_bootstrap(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    rng: np.random.Generator,
    groups: Groups = None,
    confidence: float = 0.95,
    resamples: int = 9999,
) -> tuple[Interval, float]:
    """Percentile interval of mean(a) − mean(b) over the same questions, and the two-sided p that it inverts to.

    Groups are drawn whole. Below two of them the interval is unbounded and p is 1. Not BCa, since a few samples tell
    the acceleration of differences badly.
    Raises ValueError if the lengths differ.
    Source: Efron and Tibshirani (1993), sections 13.3 and 15.4; p counts the sample itself among its resamples.
    """
    d, _ = _differences(a, b)
    if _count(d, groups) < 2:
        return Interval(mean_stderr(d)[0], -inf, inf), 1.0
    means = resampled_means(d, rng, groups, resamples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Interval(float(d.mean()), float(low), float(high)), min(1.0, 2 * (beyond + 1) / (resamples + 1))


def mcnemar(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Exact two-sided p that grades 0 or 1 of the same questions differ by chance; 1 where none differs.

    Raises ValueError for other grades, or if the lengths differ.
    Source: McNemar (1947), Psychometrika 12:153; the sign test of the questions on which the grades differ.
    """
    from scipy.special import bdtr

    d, _ = _differences(a, b)
    if not is_binary(np.asarray(a, np.float64)) or not is_binary(np.asarray(b, np.float64)):
        raise ValueError("grades are not all 0 or 1; expected those, or `student_test` of the differences")
    better, worse = int((d > 0).sum()), int((d < 0).sum())
    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


def detectable_difference(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    confidence: float = 0.95,
    power: float = 0.8,
    groups: Groups = None,
) -> float:
    """Least true difference that a comparison like this one would find with the given power; inf where none.

    Raises ValueError if the lengths differ.
    Source: power of the t test by the non-central t (Cohen 1988, chapter 2) and its normal limit, with the standard
    error of `paired_difference`; for evals Miller (2024), arXiv 2411.00640, section 5.
    """
    from scipy.special import nctdtrinc

    d, bounded = _differences(a, b)
    degrees = _count(d, groups) - 1
    if degrees < 1:
        return inf
    if bounded:
        return (_z(confidence) + NormalDist().inv_cdf(power)) * _adjusted_wald(d, groups, confidence)[1]
    return float(nctdtrinc(degrees, 1 - power, _t(confidence, degrees))) * mean_stderr(d, groups)[1]


def samples_to_detect(difference: float, samples: int, detectable: float) -> int | None:
    """Samples it would take to find `difference`, where `samples` can find `detectable`; None where none would do."""
    needed = samples * (detectable / difference) ** 2 if difference else inf
    return ceil(needed) if needed < inf else None


def pass_at_k(draws: npt.ArrayLike, passes: npt.ArrayLike, k: int) -> Floats:
    """Unbiased chance that at least one of k draws passes, from a fixed number of draws.

    draws, passes: counts of one or many problems, of shapes that broadcast; so the result.
    Raises ValueError unless 0 <= passes <= draws and 1 <= k <= draws.
    Source: Chen et al. (2021), arXiv 2107.03374, section 2.1: 1 − C(n − c, k) / C(n, k), as a product of k factors.
    """
    n, c = np.broadcast_arrays(np.asarray(draws, np.float64), np.asarray(passes, np.float64))
    bad = (c < 0) | (c > n) | (n < k)
    if k < 1 or bad.any():
        worst = f"{c[bad][0]:g} passes in {n[bad][0]:g} draws at " if bad.any() else ""
        raise ValueError(f"{worst}k = {k}; expected 1 <= k, and passes and k within the draws")
    failed = np.ones_like(n)
    for i in range(k):
        failed *= (n - c - i) / (n - i)  # 0 once every failed draw is taken, and from there on
    return np.asarray(1 - failed)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """p values corrected so that all comparisons together err with the level of one; in the order given.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def is_binary(values: Floats) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def _differences(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> tuple[Floats, bool]:
    """a − b, and whether the 2 × 2 table stands for it."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"paired grades have shapes {first.shape} and {second.shape}; expected one length")
    both, d = np.concatenate([first, second]), first - second
    return d, is_binary(both) or bool(not d.any() and ((both >= 0) & (both <= 1)).all())


def _adjusted_wald(d: Floats, groups: Groups, confidence: float) -> tuple[float, float]:
    """Centre and standard error of the adjusted 2 × 2 table of differences −1, 0, 1."""
    worth = _effective_size(d, groups, confidence)
    scale, n = worth / len(d), worth + 2
    better, worse = float((d > 0).sum()) * scale + 0.5, float((d < 0).sum()) * scale + 0.5
    return (better - worse) / n, sqrt(better + worse - (better - worse) ** 2 / n) / n


def _effective_size(x: Floats, groups: Groups, confidence: float) -> float:
    """How many independent values the grouped ones are worth (see `proportion`)."""
    if groups is None or not len(x):
        return len(x)
    _, sizes = _cluster(x, groups)
    if len(sizes) < 2:
        return 0.0
    plain, clustered = mean_stderr(x)[1], mean_stderr(x, groups)[1]
    design_effect = max((clustered / plain) ** 2, 1.0) if plain else float(sizes @ sizes) / len(x)
    return len(x) / design_effect * (_t(confidence, len(x) - 1) / _t(confidence, len(sizes) - 1)) ** 2


def _wilson(p: float, n: float, z: float) -> Interval:
    if not n:
        return Interval(p, 0.0, 1.0)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if p == 0 else max(centre - half, 0.0)  # exact where rounding would leave 1e-17
    return Interval(p, low, 1.0 if p == 1 else min(centre + half, 1.0))


def _cluster(x: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """Sum and size of each group, in the order in which the groups appear."""
    if groups is None:
        return x, np.ones(len(x))
    if len(groups) != len(x):
        raise ValueError(f"{len(groups)} groups for {len(x)} values; expected one a value")
    codes: dict[Hashable, int] = {}
    index = np.fromiter((codes.setdefault(group, len(codes)) for group in groups), np.intp, len(x))
    return np.bincount(index, x).astype(np.float64), np.bincount(index).astype(np.float64)


def _count(values: Sequence[float] | Floats, groups: Groups) -> int:
    return len(values) if groups is None else len(set(groups))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _t(confidence: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))
