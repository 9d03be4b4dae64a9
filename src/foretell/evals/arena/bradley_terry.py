"""Bradley–Terry ratings by maximum likelihood: a tie is half a win, intervals are of whole prompts, not of judgements.

log-odds that i is preferred to j = θ_i − θ_j, with the first player's θ at 0. Ties as half a win make it a
quasi-likelihood: the estimating equations are right, and the sandwich (and the bootstrap) tell the errors, where the
likelihood's own curvature would overstate them.
Source: Bradley and Terry (1952), Biometrika 39:324; Papke and Wooldridge (1996), Journal of Applied Econometrics
11:619, for fractional outcomes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log, nan, sqrt

import numpy as np
import numpy.typing as npt

from foretell.errors import EvalError
from foretell.measure.stats import Interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ELO = 400 / log(10)
ANCHOR = 1000.0
_CHI2_95 = 3.841458820694124  # of one degree of freedom
_FAR = 40.0  # in log-odds: beyond it a likelihood is flat to the last digit
_STEADY = 1e-7  # a ridge that keeps equations solvable where players are separated; it moves no printed digit


@dataclass(frozen=True)
class Battles:
    """Judged comparisons. first, second: indices of the players. score: of the first: 1, ½ or 0. groups: judgements of
    one prompt share a label. All of one length."""

    first: Ints
    second: Ints
    score: Floats
    groups: Sequence[Hashable]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Ratings:
    """theta: log-odds over the first player; ±inf where a player won or lost everything that could tell, nan where
    nothing compares the two. intervals: by the sandwich, of separated players one-sided by the profile likelihood.
    bootstrap: percentiles over prompts. separated: (above, below) groups of players between which no battle was ever
    scored the other way."""

    players: tuple[str, ...]
    theta: Floats
    intervals: tuple[Interval, ...]
    bootstrap: tuple[Interval, ...] | None
    separated: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    def elo(self, player: int) -> Interval:
        """On the scale of chess: 400 points are odds of ten to one, the first player has 1000."""
        i = self.intervals[player]
        return Interval(*(ANCHOR + ELO * v for v in (i.estimate, i.low, i.high)))


def rate(
    players: Sequence[str], battles: Battles, rng: np.random.Generator | None = None, resamples: int = 999
) -> Ratings:
    """Ratings with 95 % intervals. rng: of the bootstrap; None leaves it out.

    Raises EvalError for no battles, and for players that no chain of battles connects, naming them.
    """
    check_connected(players, battles)
    count = len(players)
    strong, reach = _order(count, battles)
    home = [i for i in range(count) if strong[i] == strong[0]]
    theta = np.array([_beyond(i, reach) for i in range(count)])
    intervals = [Interval(value, -inf, inf) for value in theta.tolist()]
    intervals[0] = Interval(0.0, 0.0, 0.0)
    theta[0] = 0.0
    if len(home) > 1:
        inside = np.isin(battles.first, home) & np.isin(battles.second, home)
        place = {player: i for i, player in enumerate(home)}
        x = _design(count, battles.first[inside], battles.second[inside])[:, [player - 1 for player in home[1:]]]
        beta = newton(x, battles.score[inside])
        covariance = sandwich(x, battles.score[inside], beta, _pick(battles.groups, inside))
        t = _t(len(set(_pick(battles.groups, inside))) - 1)
        for player in home[1:]:
            at = place[player] - 1
            value, half = float(beta[at]), t * sqrt(covariance[at, at])
            theta[player], intervals[player] = value, Interval(value, value - half, value + half)
            if half < 1e-9:  # all alike, such as ties alone: their spread says nothing
                ends = (profile_limit(count, battles, player, upper, value) for upper in (False, True))
                intervals[player] = Interval(value, *ends)
    for player in range(count):
        if theta[player] in (inf, -inf):
            limit = profile_limit(count, battles, player, upper=theta[player] < 0)
            low, high = (limit, inf) if theta[player] > 0 else (-inf, limit)
            intervals[player] = Interval(float(theta[player]), low, high)
    boot = None if rng is None else _bootstrap(count, battles, rng, resamples)
    return Ratings(tuple(players), theta, tuple(intervals), boot, _separated(players, strong, reach))


def check_connected(players: Sequence[str], battles: Battles) -> None:
    """Raises EvalError for no battles, and for players that no chain of battles connects, naming them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(battles):
        raise EvalError("No judgement counts yet, so there is nothing to rate. Let a model or a person judge first.")
    n = len(players)
    graph = coo_array((np.ones(len(battles)), (battles.first, battles.second)), shape=(n, n))
    parts, label = connected_components(graph, directed=False)
    if parts > 1:
        groups = [", ".join(players[i] for i in range(n) if label[i] == part) for part in range(parts)]
        raise EvalError(
            f"No chain of judged battles connects {' with '.join(groups)}, so they have no common scale. Judge battles "
            "between them, or rate them apart."
        )


def newton(
    x: Floats, y: Floats, weights: Floats | None = None, start: Floats | None = None, ridge: float = 0.0
) -> Floats:
    """Maximiser of Σ w (y log p + (1 − y) log(1 − p)), p = 1 / (1 + exp(−x·β)); y within [0, 1].

    x: shape (N, P). Returns shape (P,). Raises EvalError where there is no finite one: the data are separated.
    """
    w = np.ones(len(y)) if weights is None else weights
    beta = np.zeros(x.shape[1]) if start is None else start.copy()
    value = _likelihood(x, y, w, beta, ridge)
    for _ in range(100):
        p = _logistic(x @ beta)
        gradient = x.T @ (w * (y - p)) - ridge * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(beta))
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        while size > 1e-8 and (after := _likelihood(x, y, w, beta + size * step, ridge)) < value:
            size /= 2
        if size <= 1e-8:
            return beta
        beta, value = beta + size * step, after
        if float(np.abs(size * step).max(initial=0.0)) < 1e-10:
            return beta
        if not ridge and float(np.abs(beta).max()) > _FAR:
            break
    raise EvalError("The ratings have no finite maximum: what was judged is separated. Judge more battles.")


def sandwich(x: Floats, y: Floats, beta: Floats, groups: Sequence[Hashable]) -> Floats:
    """Cluster-robust covariance of `newton`'s β, shape (P, P), with the factor G / (G − 1); inf below two groups.

    Source: Liang and Zeger (1986), Biometrika 73:13.
    """
    p = _logistic(x @ beta)
    bread = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)
    codes: dict[Hashable, int] = {}
    index = [codes.setdefault(group, len(codes)) for group in groups]
    scores = np.zeros((len(codes), x.shape[1]))
    np.add.at(scores, index, x * (y - p)[:, None])
    if len(codes) < 2:
        return np.full_like(bread, inf)
    return np.asarray(len(codes) / (len(codes) - 1) * bread @ (scores.T @ scores) @ bread)


def profile_limit(count: int, battles: Battles, player: int, upper: bool, estimate: float | None = None) -> float:
    """An end of a 95 % interval of θ by the profile likelihood. estimate: None for a player that is separated.

    Judgements of a prompt count as one together, since they are not independent. For two players of whom one wins all
    of n prompts it is the log-odds of exp(−1.92 / n).
    Source: Venzon and Moolgavkar (1988), Applied Statistics 37:87.
    """
    from scipy.optimize import brentq

    x = _design(count, battles.first, battles.second)
    w = np.full(len(battles), len(set(battles.groups)) / len(battles))
    best = _likelihood(x, battles.score, w, newton(x, battles.score, w, ridge=_STEADY), 0.0)
    at, rest = player - 1, [i for i in range(count - 1) if i != player - 1]

    def excess(value: float) -> float:
        beta = np.zeros(count - 1)
        beta[at] = value
        if rest:  # what is fixed moves into an offset
            beta[rest] = _with_offset(x[:, rest], battles.score, w, x[:, at] * value)
        return 2 * (best - _likelihood(x, battles.score, w, beta, 0.0)) - _CHI2_95

    near, far = (_FAR, -_FAR) if not upper else (-_FAR, _FAR)
    near = near if estimate is None else estimate
    if excess(near) > 0 or excess(far) < 0:
        return inf if upper else -inf
    return float(brentq(excess, far, near, xtol=1e-6))


def _with_offset(x: Floats, y: Floats, w: Floats, offset: Floats) -> Floats:
    beta = np.zeros(x.shape[1])
    for _ in range(200):
        p = _logistic(x @ beta + offset)
        gradient = x.T @ (w * (y - p)) - _STEADY * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + _STEADY * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-300))
        beta = np.clip(beta + step, -2 * _FAR, 2 * _FAR)
        if float(np.abs(step).max()) < 1e-9:
            break
    return beta


def _bootstrap(count: int, battles: Battles, rng: np.random.Generator, resamples: int) -> tuple[Interval, ...]:
    """Percentiles of θ over draws of whole prompts; a draw in which a player is separated gives ±inf."""
    codes: dict[Hashable, int] = {}
    index = np.array([codes.setdefault(group, len(codes)) for group in battles.groups])
    groups = len(codes)
    cell = battles.first * count + battles.second
    played, scored = np.zeros((groups, count * count)), np.zeros((groups, count * count))
    np.add.at(played, (index, cell), 1.0)
    np.add.at(scored, (index, cell), battles.score)
    used = np.flatnonzero(played.sum(axis=0))
    played, scored, first, second = played[:, used], scored[:, used], used // count, used % count
    draws = np.full((resamples, count), nan)
    draws[:, 0] = 0.0
    for i in range(resamples):
        weight = np.bincount(rng.integers(0, groups, groups), minlength=groups).astype(np.float64)
        n, s = weight @ played, weight @ scored
        some = n > 0
        draws[i, 1:] = _draw(count, first[some], second[some], s[some] / n[some], n[some])
    found = [Interval(0.0, 0.0, 0.0)]
    for player in range(1, count):
        of = draws[:, player]
        of = of[~np.isnan(of)]
        low, high = np.quantile(of, (0.025, 0.975), method="inverted_cdf") if len(of) else (-inf, inf)
        middle = float(np.quantile(of, 0.5, method="inverted_cdf")) if len(of) else nan
        found.append(Interval(middle, float(low), float(high)))
    return tuple(found)


def _draw(count: int, first: Ints, second: Ints, score: Floats, weight: Floats) -> Floats:
    x = _design(count, first, second)
    try:
        return newton(x, score, weight)
    except EvalError:
        battles = Battles(first, second, score, range(len(score)))
        strong, reach = _order(count, battles)
        theta = np.array([_beyond(i, reach) for i in range(1, count)])
        home = [i for i in range(count) if strong[i] == strong[0]]
        if len(home) > 1:
            inside = np.isin(first, home) & np.isin(second, home)
            beta = newton(x[inside][:, [i - 1 for i in home[1:]]], score[inside], weight[inside])
            theta[[i - 1 for i in home[1:]]] = beta
        return theta


def _design(count: int, first: Ints, second: Ints) -> Floats:
    """Shape (N, count − 1): +1 for the first player, −1 for the second; the player 0 has no column."""
    x = np.zeros((len(first), count))
    rows = np.arange(len(first))
    x[rows, first] += 1
    x[rows, second] -= 1
    return x[:, 1:]


def _order(count: int, battles: Battles) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Strong components of "scored against", and who reaches whom by it.

    The maximum is finite within a strong component, and nowhere else.
    Source: Ford (1957), American Mathematical Monthly 64(8):28.
    """
    from scipy.sparse.csgraph import connected_components

    wins = np.eye(count, dtype=bool)
    np.logical_or.at(wins, (battles.first, battles.second), battles.score > 0)
    np.logical_or.at(wins, (battles.second, battles.first), battles.score < 1)
    _, label = connected_components(wins, directed=True, connection="strong")
    reach = wins
    for _ in range(max(1, count.bit_length())):
        reach = reach @ reach
    return np.asarray(label, np.int64), reach


def _beyond(player: int, reach: npt.NDArray[np.bool_]) -> float:
    """Where a player stands to the first one outside its component."""
    up, down = bool(reach[player, 0]), bool(reach[0, player])
    return nan if up == down else inf if up else -inf


def _separated(
    players: Sequence[str], strong: Ints, reach: npt.NDArray[np.bool_]
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Pairs of neighbouring components, the upper one first."""
    members = {int(label): [i for i in range(len(players)) if strong[i] == label] for label in strong}
    heads = {label: own[0] for label, own in members.items()}
    found = []
    for a, top in heads.items():
        for b, bottom in heads.items():
            between = any(reach[top, c] and reach[c, bottom] for label, c in heads.items() if label not in (a, b))
            if a != b and reach[top, bottom] and not between:
                found.append((tuple(players[i] for i in members[a]), tuple(players[i] for i in members[b])))
    return tuple(found)


def _likelihood(x: Floats, y: Floats, w: Floats, beta: Floats, ridge: float) -> float:
    z = x @ beta
    return float(w @ (y * z - np.logaddexp(0.0, z))) - ridge / 2 * float(beta @ beta)


def _logistic(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z), np.float64)


def _pick(groups: Sequence[Hashable], mask: npt.NDArray[np.bool_]) -> list[Hashable]:
    return [group for group, used in zip(groups, mask.tolist(), strict=True) if used]


def _t(degrees: int) -> float:
    from scipy.special import stdtrit

    found = float(stdtrit(degrees, 0.975)) if degrees > 0 else inf
    return found if isfinite(found) else inf
