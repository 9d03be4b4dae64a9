"""Rolling back-tests: each beginning of the ladder forecasts the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foretell.forecast import law
from foretell.forecast.law import Floats, Laws, Means
from foretell.forecast.noise import Scatter

FEWEST = 4  # rungs that a back-test fits: one more than the law has parameters
PRIOR = {"no floor": 0.35, "floor": 0.5, "broken": 0.15}

Fitted = Mapping[str, tuple[Laws, float]]  # form → its laws and their log evidence


@dataclass(frozen=True)
class Look:
    """The first `cut` rungs at number `rung`. predicted: loss. sd: relative, of what is seen there."""

    cut: int
    rung: int
    predicted: float
    sd: float


def forms(means: Means, floor: float | None) -> Fitted:
    """The ensemble: with a known floor only what is above it is in question."""
    out = {"floor": law.floored(means) if floor is None else law.powers(means, floor)}
    if floor is None:
        out["no floor"] = law.powers(means)
    if len(means) >= 6:
        out["broken"] = law.broken(means, floor)
    return out


def weigh(fitted: Fitted, scores: Mapping[str, float]) -> dict[str, float]:
    """Weight of each form: its prior, times the geometric mean of its evidence and of its back-tests' likelihood."""
    log = {form: np.log(PRIOR[form]) + (evidence + scores[form]) / 2 for form, (_, evidence) in fitted.items()}
    top = max(log.values())
    weight = {form: float(np.exp(value - top)) for form, value in log.items()}
    return {form: value / sum(weight.values()) for form, value in weight.items()}


def moments(laws: Laws, x: Floats) -> tuple[Floats, Floats]:
    """Mean of the laws' losses at each x, and their relative variance."""
    loss = laws.loss(x)
    mean = laws.weight @ loss / laws.weight.sum()
    square = (loss - mean) ** 2 + (laws.spread[:, None] * laws.excess(x)) ** 2
    return mean, laws.weight @ square / laws.weight.sum() / mean**2


def roll(means: Means, scatter: Scatter, floor: float | None) -> tuple[list[Look], dict[str, float]]:
    """Every cut of four rungs and more looks at every rung above it; and the log likelihood of each form.

    A cut counts once in that, however many rungs it looks at: their errors are nearly one and the same. A form that a
    cut is too short for takes the mean of the others there.
    """
    looks: list[Look] = []
    scores = dict.fromkeys(forms(means, floor), 0.0)
    for cut in range(FEWEST, len(means)):
        fitted = forms(means.upto(cut), floor)
        x = means.x[cut:]
        beyond = means.var[cut:] + scatter.variance(x - means.x[cut - 1])
        told, here = {}, {}
        for form, (laws, _) in fitted.items():
            mean, var = moments(laws, x)
            var = var + beyond
            told[form] = mean, var
            here[form] = float(np.mean(-0.5 * np.log(var) - 0.5 * (mean / means.loss[cut:] - 1) ** 2 / var))
        weight = weigh(fitted, dict.fromkeys(fitted, 0.0))
        mean = sum((weight[form] * told[form][0] for form in told), np.zeros(len(x)))
        square = sum((weight[f] * (v * m**2 + (m - mean) ** 2) for f, (m, v) in told.items()), np.zeros(len(x)))
        looks += [Look(cut, cut + i, float(mean[i]), float(np.sqrt(square[i]) / mean[i])) for i in range(len(x))]
        usual = float(np.mean(list(here.values())))
        scores = {form: score + here.get(form, usual) for form, score in scores.items()}
    return looks, scores
