"""Two measurements of the same prompts, such as before and after alignment: paired differences with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, sqrt

from foretell.align.measures import MEASURES, Measure
from foretell.align.outcomes import Outcomes
from foretell.errors import DataError
from foretell.measure.stats import Interval, paired_difference, proportion


@dataclass(frozen=True)
class Change:
    """A measure over the n prompts that both sides answered.

    difference: after − before, paired by prompt. ratio: after / before, where less is better (1 − ratio is the relative
    reduction); None where more is.
    """

    measure: Measure
    n: int
    before: Interval
    after: Interval
    difference: Interval
    ratio: Interval | None

    @property
    def reduction(self) -> Interval | None:
        """Relative reduction, 1 − ratio."""
        if self.ratio is None:
            return None
        return Interval(1 - self.ratio.estimate, 1 - self.ratio.high, 1 - self.ratio.low)

    @property
    def verdict(self) -> str:
        """better or worse where the difference's interval leaves out 0, else open."""
        if self.difference.low <= 0 <= self.difference.high:
            return "open"
        return "better" if (self.difference.low > 0) == (self.measure.better == "high") else "worse"


def compare(before: Outcomes, after: Outcomes) -> list[Change]:
    """Every measure of which something was asked on both sides; prompts that only one of them answered are left out.

    Prompts of one key count as what they are worth together (`stats.paired_difference`).
    Raises DataError where the two have no prompt in common.
    """
    first = {record.opening: record for record in before.records}
    pairs = [(first[record.opening], record) for record in after.records if record.opening in first]
    if not pairs:
        raise DataError("The two outcomes have no prompt in common. Measure both with the same settings.")
    changes = []
    for measure in MEASURES:
        held = [(a, b) for a, b in pairs if measure.counts(a.task)]
        if not held:
            continue
        keys = [record.key for record, _ in held]
        x, y = ([float(pair[side].grades[measure.grade]) for pair in held] for side in (0, 1))
        start, end = proportion(x, keys), proportion(y, keys)
        difference = paired_difference(y, x, groups=keys)
        ratio = ratio_of(end, start) if measure.better == "low" else None
        changes.append(Change(measure, len(held), start, end, difference, ratio))
    return changes


def ratio_of(a: Interval, b: Interval) -> Interval:
    """Interval of a / b from those of two proportions; not a number, and unbounded, where b is 0.

    It does not shrink to a point where a is 0, as a bootstrap does. That a and b share their prompts is not used: the
    interval is too wide, on the safe side, as far as they go together.
    Source: Donner and Zou (2012), Statistical Methods in Medical Research 21:347, MOVER for ratios (equation 10).
    """
    p, q = a.estimate, b.estimate
    if not q > 0:
        return Interval(nan, 0.0, inf)
    product = p * q
    lower = product + sqrt(max(product**2 - a.low * b.high * (2 * p - a.low) * (2 * q - b.high), 0.0))
    upper = product + sqrt(max(product**2 - a.high * b.low * (2 * p - a.high) * (2 * q - b.low), 0.0))
    low = a.low * (2 * p - a.low) / lower if lower else 0.0  # rationalised: the usual form divides 0 by 0
    high = upper / (b.low * (2 * q - b.low)) if b.low else inf
    return Interval(p / q, max(low, 0.0), high)
