"""Two measurements of the same prompts, such as before and after alignment: paired differences with their intervals."""

from __future__ import annotations

from foretell.align.measures import MEASURES
from foretell.align.outcomes import Outcomes
from foretell.errors import DataError
from foretell.measure.rates import Change, change_of, ratio_of

__all__ = ["Change", "compare", "ratio_of"]


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
        changes.append(change_of(measure, x, y, keys))
    return changes
