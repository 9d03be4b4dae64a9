"""Error bars: intervals of accuracies, paired differences and means."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval [low, high]."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def wilson(passed: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval of an accuracy of `passed` out of `total`; [0, 1] if nothing was asked.

    Raises ValueError unless 0 <= passed <= total.
    Source: Wilson (1927), score interval without continuity correction.
    """
    if not 0 <= passed <= total:
        raise ValueError(f"{passed} of {total} were passed; expected 0 <= passed <= total")
    if total == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z, p = _z(confidence), passed / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low = 0.0 if passed == 0 else max(centre - half, 0.0)  # exact where rounding would leave 1e-17
    return Interval(p, low, 1.0 if passed == total else min(centre + half, 1.0))


def paired_difference(a: Sequence[float] | Floats, b: Sequence[float] | Floats, confidence: float = 0.95) -> Interval:
    """Interval of mean(a) − mean(b) where a[i] and b[i] grade the same question; [−1, 1] if there is none.

    Grades that are all 0 or 1 take the adjusted Wald interval, which keeps its coverage when questions are few or
    the grades nearly agree (half a question is added to each cell of the 2 × 2 table). Other grades take the
    paired normal interval, mean ± z · standard error.
    Raises ValueError if the lengths differ.
    Source: Agresti and Min (2005), Statistics in Medicine 24:729.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"paired grades have shapes {first.shape} and {second.shape}; expected one length")
    if not len(first):
        return Interval(float("nan"), -1.0, 1.0)
    d, z = first - second, _z(confidence)
    if not np.isin(first, (0, 1)).all() or not np.isin(second, (0, 1)).all():
        mean, stderr = mean_stderr(d)
        return Interval(mean, mean - z * stderr, mean + z * stderr)
    n = len(d) + 2
    better, worse = float((d > 0).sum()) + 0.5, float((d < 0).sum()) + 0.5
    centre = (better - worse) / n
    half = z * sqrt(better + worse - (better - worse) ** 2 / n) / n
    return Interval(float(d.mean()), max(centre - half, -1.0), min(centre + half, 1.0))


def mean_stderr(values: Sequence[float] | Floats, clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """Mean and its standard error; nan error where fewer than two values, or clusters, were seen.

    clusters: a label per value; values of one label (questions on one text, say) may be correlated. With
    every value in a cluster of its own the result is that without clusters.
    Source: Miller (2024), Adding Error Bars to Evals, sections 2.1 and 2.2, with the factor G / (G − 1).
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return float("nan"), float("nan")
    if clusters is not None and len(clusters) != len(x):
        raise ValueError(f"{len(clusters)} cluster labels for {len(x)} values; expected one each")
    number: dict[Hashable, int] = {}
    labels = range(len(x)) if clusters is None else [number.setdefault(c, len(number)) for c in clusters]
    sums = np.bincount(np.asarray(labels), x - x.mean())
    groups = len(sums)
    if groups < 2:
        return float(x.mean()), float("nan")
    return float(x.mean()), sqrt(groups / (groups - 1) * float(np.sum(sums**2))) / len(x)


def bootstrap(
    values: Sequence[float] | Floats,
    rng: np.random.Generator,
    statistic: Callable[[Floats], float] = lambda x: float(x.mean()),
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a statistic of `values` (n,) or, row by row, (n, k).

    Source: Efron and Tibshirani (1993), chapter 13.
    """
    x = np.asarray(values, np.float64)
    drawn = [statistic(x[rng.integers(0, len(x), len(x))]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(statistic(x), float(low), float(high))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
