"""How far judges agree beyond chance: Cohen's kappa of two, Krippendorff's alpha of any number with gaps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import nan
from typing import Literal

import numpy as np

Level = Literal["nominal", "interval"]


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Agreement of two judges on the same items; 1 is full, 0 what chance gives; nan where both always say one thing.

    Raises ValueError if the lengths differ.
    Source: Cohen (1960), Educational and Psychological Measurement 20:37.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} judgements; expected as many, of the same items")
    labels = {label: i for i, label in enumerate(dict.fromkeys([*a, *b]))}
    if len(labels) < 2:
        return nan
    seen = np.zeros((len(labels), len(labels)))
    for x, y in zip(a, b, strict=True):
        seen[labels[x], labels[y]] += 1
    seen /= len(a)
    chance = float(seen.sum(axis=0) @ seen.sum(axis=1))
    return (float(np.trace(seen)) - chance) / (1 - chance)


def krippendorff_alpha(items: Iterable[Sequence[float]], level: Level = "nominal") -> float:
    """Agreement of any number of judges, of whom each may have judged a part of the items.

    items: of each, the judgements that it got; those with fewer than two tell nothing. level: whether judgements are
    names (nominal) or numbers whose squared distance counts (interval). Returns nan where nothing can be compared, or
    all judgements are the same.
    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section D.
    """
    units = [list(unit) for unit in items if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    if len(values) < 2:
        return nan
    place = {value: i for i, value in enumerate(values)}
    pairs = np.zeros((len(values), len(values)))
    for unit in units:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(np.float64)
        pairs += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    distance = _DISTANCES[level](np.asarray(values, np.float64))
    totals = pairs.sum(axis=1)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return 1 - float((pairs * distance).sum()) / float((expected * distance).sum())


def _nominal(values: np.ndarray) -> np.ndarray:
    return 1 - np.eye(len(values))


def _interval(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = (values[:, None] - values[None, :]) ** 2
    return found


_DISTANCES: Mapping[Level, Callable[[np.ndarray], np.ndarray]] = {"nominal": _nominal, "interval": _interval}
