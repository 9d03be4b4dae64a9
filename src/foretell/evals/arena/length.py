"""Whether judges go by length: how often the longer reply wins, and ratings at equal length.

The second adds tanh of the difference in characters, over its spread, to the model of `bradley_terry` and reads the
ratings where it is zero. It holds length fixed and nothing else: what makes good replies long goes with it.
Source: Dubois et al. (2024), Length-Controlled AlpacaEval, arXiv 2404.04475, without its term for each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from foretell.errors import EvalError
from foretell.evals.arena.bradley_terry import newton, sandwich
from foretell.evals.arena.folder import Arena
from foretell.evals.arena.people import Judgement
from foretell.measure.stats import Interval, paired_difference


@dataclass(frozen=True)
class Length:
    """longer: how often the longer of two replies is preferred, ties as half, over `n` judgements of replies of unequal
    length. mean: characters of each player's replies. controlled: of each player, how often it is preferred to the
    first one at equal length; None where that has no finite estimate. effect: of the difference, in log-odds for each
    spread of it."""

    longer: Interval
    n: int
    mean: tuple[float, ...]
    controlled: tuple[Interval, ...] | None
    effect: Interval | None


def length_bias(arena: Arena, judgements: Sequence[Judgement]) -> Length:
    """Of judgements of one source. Replies that are the same say nothing of length."""
    battles = {battle.id: battle for battle in arena.battles}
    rows, groups = [], []
    for one in judgements:
        b = battles[one.battle]
        said = arena.replies[b.prompt]
        rows.append((b.a, b.b, one.score, len(said[b.a]) - len(said[b.b])))
        groups.append(arena.prompts[b.prompt].group)
    count = len(arena.players)
    replies = list(arena.replies.values())
    mean = tuple(sum(len(said[i]) for said in replies) / len(replies) if replies else 0.0 for i in range(count))
    unequal = [(s if d > 0 else 1 - s, g) for (_, _, s, d), g in zip(rows, groups, strict=True) if d]
    d = paired_difference([float(s == 1) for s, _ in unequal], [float(s == 0) for s, _ in unequal],
                          groups=[g for _, g in unequal])  # fmt: skip
    longer = Interval((1 + d.estimate) / 2, (1 + d.low) / 2, (1 + d.high) / 2)
    controlled, effect = _controlled(count, rows, groups)
    return Length(longer, len(unequal), mean, controlled, effect)


def _controlled(
    count: int, rows: Sequence[tuple[int, int, float, int]], groups: Sequence[str]
) -> tuple[tuple[Interval, ...] | None, Interval | None]:
    from scipy.special import expit, stdtrit

    difference = np.array([row[3] for row in rows], np.float64)
    if not len(rows) or not difference.std() or len(set(groups)) < 2:
        return None, None
    x = np.zeros((len(rows), count + 1))
    for i, (a, b, _, _) in enumerate(rows):
        x[i, a], x[i, b] = 1, -1
    x[:, count] = np.tanh(difference / difference.std())
    x, y = x[:, 1:], np.array([row[2] for row in rows], np.float64)
    try:
        beta = newton(x, y)
        covariance = sandwich(x, y, beta, groups)
    except (EvalError, np.linalg.LinAlgError):
        return None, None
    t = float(stdtrit(len(set(groups)) - 1, 0.975))
    half = [t * sqrt(covariance[i, i]) for i in range(count)]
    found = [
        Interval(*(float(expit(v)) for v in (beta[i], beta[i] - half[i], beta[i] + half[i]))) for i in range(count - 1)
    ]
    last = float(beta[-1])
    return (Interval(0.5, 0.5, 0.5), *found), Interval(last, last - half[-1], last + half[-1])
