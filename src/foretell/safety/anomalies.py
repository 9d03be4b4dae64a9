"""What looks odd in usage: an account that bursts, many accounts from one address, a category that suddenly rises.

Each question is one exact test: of all events here and elsewhere, are more here than their share? Given the total, the
number here is binomial if events are Poisson with one rate, whatever that rate is, so no rate has to be known. One
sweep asks it of many subjects at once and raises a false alarm with at most the probability `Watch.false_alarms`, by
Bonferroni's correction. Real traffic is more uneven than Poisson: where an account's own past shows that, counts are
scaled down by how much.

Source: Przyborowski and Wilenski (1940), Biometrika 31:313, the conditional test of two Poisson means; McCullagh and
Nelder (1989), Generalized Linear Models, section 6.2.3, over-dispersion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.sections import Section

Kind = Literal["burst", "address", "category"]
Floats = npt.NDArray[np.float64]


class Watch(Section):
    """Settings of a sweep.

    false_alarms: with which probability one over clean Poisson traffic raises any alarm of a kind. Below these an alarm
    is none, however unlikely: burst_calls, calls an hour; burst_ratio, times what is expected; accounts, from one
    address in a day; category_findings, in an hour. hours: how much of the past counts.
    """

    false_alarms: float = Field(0.001, gt=0, le=0.5)
    burst_calls: int = Field(60, ge=0)
    burst_ratio: float = Field(3.0, ge=1)
    accounts: int = Field(5, ge=2)
    category_findings: int = Field(5, ge=1)
    hours: int = Field(72, ge=2, le=24 * 31)


@dataclass(frozen=True)
class Alarm:
    """subject: a user, an address or a category. seen, expected: how many events. chance: with which probability so
    many or more come of clean traffic, of this subject alone."""

    kind: Kind
    subject: str
    seen: float
    expected: float
    chance: float


def excess(here: Floats | float, elsewhere: Floats | float, share: Floats | float) -> Floats:
    """Probability of so many events here or more, given all, if `share` of them are to be expected here.

    here, elsewhere: counts (N,), not necessarily whole. share: in (0, 1). 1 where there are none here.
    """
    from scipy.special import betainc

    here, elsewhere, share = np.broadcast_arrays(np.float64(here), np.float64(elsewhere), np.float64(share))
    tail = betainc(np.maximum(here, 1e-12), elsewhere + 1, share)
    return np.where(here > 0, tail, 1.0)


def burst_chances(past: Floats, now: Floats) -> Floats:
    """Of each account, how likely its calls of the last hour are by its own past.

    past: calls an hour, (N, H), hours before the last one. now: (N,). Returns (N,).
    """
    hours = past.shape[1]
    mean = past.mean(axis=1)
    variance = past.var(axis=1, ddof=1) if hours > 1 else mean
    uneven = np.maximum(variance / np.where(mean > 0, mean, 1.0), 1.0)  # 1 for Poisson traffic
    return excess(now / uneven, past.sum(axis=1) / uneven, 1 / (hours + 1))


def bursts(calls: Mapping[str, Mapping[int, int]], hour: int, watch: Watch = Watch()) -> list[Alarm]:
    """Accounts that call far more than they did.

    calls: of each account, how many in which hour; only those before `hour` and within watch.hours count as its past,
    from the first one in which it called: a new account has none, and nothing is said of it.
    """
    tested = []
    for user, counts in calls.items():
        first = max(min(counts, default=hour), hour - watch.hours)
        if first < hour:
            tested.append((user, [counts.get(at, 0) for at in range(first, hour)], counts.get(hour, 0)))
    found = []
    for user, past, now in tested:
        chance = float(burst_chances(np.array([past], np.float64), np.array([now], np.float64))[0])
        expected = sum(past) / len(past)
        if now >= max(watch.burst_calls, watch.burst_ratio * expected) and chance * len(tested) <= watch.false_alarms:
            found.append(Alarm("burst", user, now, expected, chance))
    return sorted(found, key=lambda alarm: alarm.chance)


def crowds(users: Iterable[tuple[str, str]], known: Collection[str] = (), watch: Watch = Watch()) -> list[Alarm]:
    """Addresses from which many accounts come, by what is usual at the others.

    users: (address, user), each any number of times. known: addresses of which that is to be expected, as a school's.
    Beyond its first account an address has as many as any other, on average: `seen` and `expected` count those too.
    """
    counts = Counter(address for address, _ in {pair for pair in users if pair[0] not in known})
    if not counts:
        return []
    total, places = sum(counts.values()) - len(counts), len(counts)
    found = []
    for address, count in counts.items():
        chance = float(excess(count - 1, total - count + 1, 1 / places))
        if count >= watch.accounts and chance * places <= watch.false_alarms:
            others = (total - count + 1) / max(places - 1, 1)
            found.append(Alarm("address", address, count, 1 + others, chance))
    return sorted(found, key=lambda alarm: alarm.chance)


def rises(
    now: Mapping[str, int], past: Mapping[str, int], calls: int, past_calls: int, watch: Watch = Watch()
) -> list[Alarm]:
    """Categories that are flagged far more than they were, by how many calls there were.

    now, past: findings by category, in the last hour and before. calls, past_calls: of the same times. Nothing is said
    where there were no calls before.
    """
    if not calls or not past_calls:
        return []
    names = sorted({*now, *past})
    found = []
    for name in names:
        seen, before = now.get(name, 0), past.get(name, 0)
        chance = float(excess(seen, before, calls / (calls + past_calls)))
        if seen >= watch.category_findings and chance * len(names) <= watch.false_alarms:
            found.append(Alarm("category", name, seen, before * calls / past_calls, chance))
    return sorted(found, key=lambda alarm: alarm.chance)
