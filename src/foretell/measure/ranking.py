"""How well scores put what is true before what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, nan

import numpy as np
import numpy.typing as npt

from foretell.measure.stats import Interval

Floats = npt.NDArray[np.float64]
_RESAMPLES = 999
_TRIES = 20  # draws for one that has something true in it


def average_precision(true_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: the mean precision over what is true, highest first.

    true_N: 0 or 1. scores_N: higher means likelier; equal scores are one step. nan where nothing is true.
    Source: Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, section 8.4; with ties as
    scikit-learn's average_precision_score has them.
    """
    true, scores = np.asarray(true_N, np.float64), np.asarray(scores_N, np.float64)
    if true.shape != scores.shape or true.ndim != 1:
        raise ValueError(f"{true.shape} labels and {scores.shape} scores; expected as many of either.")
    if not (whole := true.sum()):
        return nan
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # where a step of equal scores ends
    hits = np.cumsum(true[order])[last]
    return float((hits / (last + 1)) @ np.diff(hits, prepend=0.0) / whole)


def resampled(
    figure: Callable[[npt.NDArray[np.int64]], float], groups: Sequence[object], rng: np.random.Generator
) -> Interval:
    """A figure of rows with its 95 % bootstrap interval (percentiles), groups drawn whole.

    figure: of the rows that were drawn; a draw of which it is nan is drawn again, some times. The ends are unbounded
    where fewer than two groups were seen, or nearly no draw has the figure.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, section 3.8.
    """
    rows: dict[object, list[int]] = {}
    for number, group in enumerate(groups):
        rows.setdefault(group, []).append(number)
    held = [np.array(some, np.int64) for some in rows.values()]
    value = figure(np.arange(len(groups)))
    if len(held) < 2 or np.isnan(value):
        return Interval(value, -inf, inf)
    found: list[float] = []
    for _ in range(_TRIES * _RESAMPLES):
        one = figure(np.concatenate([held[i] for i in rng.integers(len(held), size=len(held))]))
        if not np.isnan(one):
            found.append(one)
            if len(found) == _RESAMPLES:
                break
    if len(found) < _RESAMPLES:
        return Interval(value, -inf, inf)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high))
