"""Which attack is tried next: Thompson sampling over compositions of operators, or uniform sampling beside it.

Each area has posteriors of its own. An attack that was never tried takes its prior from what its operators did, there
and elsewhere; new attacks are single operators, and mutations of tried ones. The search selects on noise, so its own
counts say nothing of how often an attack succeeds: that is measured afterwards, on requests that it has not seen.
Source: Thompson (1933), Biometrika 25:285; Chapelle and Li (2011), "An Empirical Evaluation of Thompson Sampling".
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from foretell.evals.redteam.operators import BASELINE, Attack, Catalogue

_WEIGHT = 2.0  # tries that a prior is worth
_GUESS = 0.1  # rate of a family of which nothing is known
_MUTATIONS = 6  # new attacks that compete at each step
_EDGE = 0.02  # priors keep this far from 0 and 1


class Search:
    """Proposes attacks and learns from what became of them. deepest: operators of one attack. adaptive: False draws
    every composition alike, whatever became of the others."""

    def __init__(
        self,
        catalogue: Catalogue,
        areas: Sequence[str],
        rng: random.Random,
        *,
        deepest: int = 3,
        adaptive: bool = True,
    ) -> None:
        self.catalogue, self.areas, self.deepest, self.adaptive = catalogue, list(areas), deepest, adaptive
        self._rng = rng
        self._names = list(catalogue.operators)
        self._changing = [name for name, op in catalogue.operators.items() if op.family != BASELINE]
        self._tried: dict[str, dict[Attack, list[int]]] = {area: {} for area in self.areas}  # → [successes, tries]
        self._won: Counter[tuple[str, str]] = Counter()  # (area or "", operator or family) → successes
        self._seen: Counter[tuple[str, str]] = Counter()
        self._priors: dict[tuple[str, Attack], float] = {}  # until something is learned

    def propose(self, area: str) -> Attack:
        """The next attack to be tried in an area."""
        if not self.adaptive:
            return self.uniform()
        tried = self._tried[area]
        candidates = dict.fromkeys([*((name,) for name in self._names), *tried])
        if self._changing and self.deepest > 1:
            for _ in range(_MUTATIONS):
                candidates[self._mutation(area)] = None
        return max(candidates, key=lambda attack: self._drawn(area, attack))

    def uniform(self) -> Attack:
        """A composition without regard to what is known: of each size alike often, each operator alike."""
        size = self._rng.randint(1, self.deepest)
        attack: Attack = (self._rng.choice(self._names),)
        for _ in range(size - 1):
            attack = self._added(attack, self._changing) or attack
        return attack

    def learn(self, area: str, attack: Attack, success: bool) -> None:
        """What became of a try."""
        counts = self._tried[area].setdefault(attack, [0, 0])
        counts[0] += success
        counts[1] += 1
        for name in {*attack, *self.catalogue.family_names(attack)}:
            for where in (area, ""):
                self._won[where, name] += success
                self._seen[where, name] += 1
        self._priors.clear()

    def best(self, area: str, count: int) -> list[tuple[Attack, int, int]]:
        """The attacks of the highest posterior mean, tried ones alone, with successes and tries; never the baseline."""
        tried = [(a, s, n) for a, (s, n) in self._tried[area].items() if self.catalogue.family_names(a) != [BASELINE]]
        tried.sort(key=lambda one: (-self._mean(area, one[0]), len(one[0]), one[0]))
        return tried[:count]

    def _mutation(self, area: str) -> Attack:
        """A tried attack with an operator added, taken off or exchanged; what is added is drawn by its promise."""
        tried = self._tried[area]
        parent = max(tried, key=lambda attack: self._drawn(area, attack)) if tried else (self._rng.choice(self._names),)
        few = self._rng.sample(self._changing, min(len(self._changing), 8))
        few.sort(key=lambda name: -self._drawn(area, (name,)))
        how = self._rng.random()
        if len(parent) > 1 and (how < 0.2 or len(parent) >= self.deepest):
            out = self._rng.randrange(len(parent))
            parent = parent[:out] + parent[out + 1 :]
            if how < 0.1:
                return parent
        return self._first(parent, few) or parent

    def _first(self, attack: Attack, names: Iterable[str]) -> Attack | None:
        made = (self.catalogue.compose(attack, name) for name in names)
        return next((one for one in made if one is not None and len(one) <= self.deepest), None)

    def _added(self, attack: Attack, names: Sequence[str]) -> Attack | None:
        return self._first(attack, self._rng.sample(names, len(names)))

    def _drawn(self, area: str, attack: Attack) -> float:
        s, n = self._tried[area].get(attack, (0, 0))
        prior = self._prior(area, attack)
        return self._rng.betavariate(_WEIGHT * prior + s, _WEIGHT * (1 - prior) + n - s)

    def _mean(self, area: str, attack: Attack) -> float:
        s, n = self._tried[area].get(attack, (0, 0))
        return (_WEIGHT * self._prior(area, attack) + s) / (_WEIGHT + n)

    def _prior(self, area: str, attack: Attack) -> float:
        """That one operator or another works, as if they did so independently."""
        if (known := self._priors.get((area, attack))) is not None:
            return known
        fails = math.prod(1 - self._rate(area, name) for name in attack)
        found = self._priors[area, attack] = min(max(1 - fails, _EDGE), 1 - _EDGE)
        return found

    def _rate(self, area: str, name: str) -> float:
        """Of an operator in an area, drawn towards its family there, that towards the family everywhere."""
        family = self.catalogue.operators[name].family
        rate = _GUESS
        for key in (("", family), (area, family), (area, name)):
            rate = (self._won[key] + _WEIGHT * rate) / (self._seen[key] + _WEIGHT)
        return rate
