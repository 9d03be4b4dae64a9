"""Error bars: intervals of accuracies, paired differences and means."""

from __future__ import annotations

from collections.abc import Sequence
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


def mean_stderr(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Mean and its standard error; nan error where fewer than two values were seen."""
    x = np.asarray(values, np.float64)
    if not len(x):
        return float("nan"), float("nan")
    return float(x.mean()), float(x.std(ddof=1)) / sqrt(len(x)) if len(x) > 1 else float("nan")


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
