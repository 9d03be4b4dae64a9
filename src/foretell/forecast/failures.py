"""What failures cost a long run: how often to save, and how long it then takes."""

from __future__ import annotations

import math


def young(save: float, mtbf: float) -> float:
    """Seconds of work between checkpoints that waste least, to first order: √(2 · save · mtbf).

    save: seconds that a checkpoint holds the run up. mtbf: mean seconds between failures of the whole run.
    Source: Young, Communications of the ACM 17 (1974).
    """
    return math.sqrt(2 * save * mtbf)


def daly(save: float, mtbf: float) -> float:
    """As `young`, to higher order; mtbf where saving takes as long as half of it.

    Source: Daly, Future Generation Computer Systems 22 (2006), eq. 37.
    """
    if save >= 2 * mtbf:
        return mtbf
    ratio = math.sqrt(save / (2 * mtbf))
    return young(save, mtbf) * (1 + ratio / 3 + ratio**2 / 9) - save


def with_failures(work: float, interval: float, save: float, restart: float, mtbf: float) -> float:
    """Expected seconds of a run that needs `work` seconds undisturbed and saves after each `interval` of it.

    Failures come at random, at a constant rate, in saving and restarting too; each throws back to the last checkpoint
    and costs `restart`. Infinite mtbf: work and saving alone.
    Source: Daly (2006), eq. 20: mtbf · e^(restart/mtbf) · (e^((interval + save)/mtbf) − 1) · work / interval.
    """
    if math.isinf(mtbf):
        return work * (1 + save / interval)
    if (interval + save) / mtbf > 500 or restart / mtbf > 500:
        return math.inf
    return mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf) * work / interval
