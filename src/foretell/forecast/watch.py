"""The live curve of a run against the curve that its ladder foretells: a band, alarms, and what is likely wrong.

Every rung's curve is taken relative to its own final loss; curves of models trained alike nearly collapse onto one
(arXiv 2507.02119), and what is left moves smoothly with compute. At each share of the horizon it is carried to the
target's compute and multiplied with its forecast loss: the expected curve, with a band from the spread of the rungs
and the interval of the forecast. Early on, where models of all sizes have learned the same, the losses themselves are
carried instead, if that makes the narrower band. A run can be far from the middle of that band and sound, or move
through it as no rung does: so its drift, the last third of the curve so far against the first, has bounds of its own.
What the run is set to, learning rate and batch, is held against the rungs' own in the same way (`schedules`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from foretell.errors import ForecastError
from foretell.forecast import schedules
from foretell.forecast.curves import CURVES, binned, logged
from foretell.forecast.noise import FALL, FALL_PRIOR
from foretell.forecast.schedules import Expected, Point, Schedules

if TYPE_CHECKING:
    from foretell.forecast.fitting import Forecast
    from foretell.forecast.table import LadderTable

BINS = 50
LEVEL = 0.99  # chance that a sound run raises no alarm, if its ladder is sound
_CHANCES = 30  # values that vary on their own, roughly, among all shares and tests: the level is divided by them
_EARLY = 0.15  # share by which a wrong rate has shown, and a wrong schedule has not
_COLUMNS = 3  # that all shares count as, where neighbouring ones say nearly the same
_LATE = 0.1  # of the run; a log that begins after it tells too little
_BLIND = 2.0  # times the expected loss
_BENDS = 0.3  # log loss a decade^1.5: what rungs' curves may bend; a few noisy rungs would allow for anything
_FINEST = 1e-3  # rungs that agree better than this (relative) do so by chance
_APART = 4  # bins in bounds that end a stretch
_LISTS = ("shares", "centre", "low", "high", "moves", "drift", "mean", "offset")  # of a band, one value a bin

Floats = npt.NDArray[np.float64]


class Alarm(NamedTuple):
    """The curve left its bounds at `share` of the horizon. low, high: the band there. text: what is likely wrong."""

    share: float
    loss: float
    low: float
    high: float
    reason: str
    text: str


@dataclass(frozen=True)
class Band:
    """The expected curve. shares: ends of bins that are each `width` wide; losses are means over a bin.

    From the third bin on, moves: the expected difference of log loss between the last third of the bins so far and the
    first; drift: how far from that a sound run may be. mean, offset: likewise of the mean log loss over the bins so
    far, in which a small but lasting difference stands out from the noise of single ones. schedules: what the run
    should be set to at the end of each bin, by quantity.
    """

    shares: tuple[float, ...]
    centre: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    moves: tuple[float, ...] = ()
    drift: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    unit: str = "loss"
    width: float = 1 / BINS
    schedules: Mapping[str, Expected] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Band:
        curves: dict[str, Any] = {name: tuple(raw.get(name, ())) for name in _LISTS}
        wanted = {
            name: Expected(tuple(each["values"]), tuple(each["room"]))
            for name, each in raw.get("schedules", {}).items()
        }
        return cls(**curves, unit=raw["unit"], width=raw["width"], schedules=wanted)

    def check(self, points: Sequence[Point], seen: Schedules | None = None) -> list[Alarm]:
        """Alarms so far, one for every stretch out of bounds; reasons may change as more of the run is seen.

        points: (share of the horizon in 0..1, loss in the table's unit), as logged, at the rungs' interval of the
        horizon or a shorter one. A bin counts once it is over; two in a row must be out, or one by twice its bound.
        seen: what the run was set to, likewise by share.
        """
        points = sorted(points)
        end = next((i for i, (_, loss) in enumerate(points) if not math.isfinite(loss)), len(points))
        alarms = self._stretches(points[:end], seen or {})
        if end < len(points):
            text = "the loss is not finite: the run has diverged, most likely by too high a learning rate"
            alarms.append(self._alarm(*points[end], "divergence", text))
        return alarms

    @property
    def is_blind(self) -> bool:
        """Whether most of the band is so wide that a loss twice off would stay in it."""
        return 2 * sum(h > _BLIND * c for h, c in zip(self.high, self.centre, strict=True)) > len(self.high)

    def means(self, points: Sequence[Point]) -> Floats:
        """Mean loss by bin; nan where a bin is not over."""
        return binned(points, np.array(self.shares), self.width)

    def _stretches(self, points: Sequence[Point], set_to: Schedules) -> list[Alarm]:
        shares, centre, low, high = (np.array(x) for x in (self.shares, self.centre, self.low, self.high))
        live = self.means(points)
        known = np.flatnonzero(np.isfinite(live))
        if not len(known) or shares[known[0]] > _LATE:  # a curve that starts late cannot be judged by its start
            return []
        live[: known[0]] = centre[: known[0]]  # before the middle of the first line
        seen = int(known[-1]) + 1
        d = np.log(live / centre)
        room = np.where(d > 0, np.log(high / centre), np.log(centre / low))[:seen]
        d = d[:seen]
        tests = np.zeros((3, seen))
        tests[0], past = d / room, max(seen - 2, 0)
        sums = ((_drift, self.moves, self.drift), (_mean, self.mean, self.offset))
        for test, (matrix, expected, bound) in zip(tests[1:], sums, strict=True):
            if expected:  # records of an earlier form have none
                test[2:] = ((matrix(seen) @ np.log(live[:seen]))[2:] - expected[:past]) / np.array(bound[:past])
        away = schedules.departures(self.schedules, set_to, shares)
        tests = np.concatenate([tests, *(row[None, :seen] for row in away.values())])
        which = np.abs(tests).argmax(0)
        out = tests[which, np.arange(seen)]
        alarms, last = [], -_APART - 1
        for i in range(seen):
            if abs(out[i]) > 2 or (i > 0 and min(abs(out[i - 1]), abs(out[i])) > 1 and out[i - 1] * out[i] > 0):
                if last < i - _APART:
                    if which[i] > 2:
                        why = self._unlike(list(away)[which[i] - 3], set_to, i)
                    else:
                        rate = away.get(schedules.RATE)
                        sure = rate is not None and bool((np.abs(rate[: i + 1]) <= 1).all())
                        why = explain(shares, d, room, i, bool(out[i] > 0), sure)
                    alarms.append(self._alarm(self.shares[i], float(live[i]), *why))
                last = i
        return alarms

    def _unlike(self, name: str, set_to: Schedules, at: int) -> tuple[str, str]:
        share = self.shares[at]
        value = schedules.value_at(set_to[name], share)
        return name, schedules.explain(name, value, self.schedules[name].values[at], share)

    def _alarm(self, share: float, loss: float, reason: str, text: str) -> Alarm:
        low, high = (float(np.interp(share, self.shares, bound)) for bound in (self.low, self.high))
        return Alarm(share, loss, low, high, reason, text)


def watch(table: LadderTable, forecast: Forecast, target: float, level: float = LEVEL) -> Band:
    """The band of a run of `target` FLOPs.

    table: with the curves of four rungs or more, of three computes at least; their losses may be training losses, or of
    another unit than the rungs' (the setting "curve unit"), since each is taken relative to its rung's final loss.
    level: chance that a sound run stays in bounds all the way.
    Raises ForecastError with fewer curves.
    """
    from scipy.stats import t as student

    # Seeds of one name have curves "name", "name-1" …
    named = [
        (rung, f"{rung.run}-{rung.seed}" if f"{rung.run}-{rung.seed}" in table.curves else rung.run)
        for rung in table.rungs
    ]
    rungs = [(rung, table.curves[name]) for rung, name in named if name in table.curves]
    names = [name for _, name in named if name in table.curves]
    final = forecast.predict(target, level)
    z = np.array([math.log10(rung.flops / target) for rung, _ in rungs])
    if len(rungs) < 4 or len(set(z)) < 3:
        raise ForecastError(
            f"The table has curves of {len(rungs)} rungs at {len(set(z))} computes; a band needs four, at three "
            "computes. Give every rung's loss over its run."
        )
    ends = np.arange(1, BINS + 1) / BINS
    logs = np.array([np.log(binned(curve, ends, 1 / BINS)) for _, curve in rungs])
    whole = np.isfinite(logs).all(0)
    if whole.sum() < BINS / 2:
        raise ForecastError(
            f"The rungs' curves have only {whole.mean():.0%} of the run in common. Log the loss of every rung from "
            f"its first {1 / BINS:.0%} to its end."
        )
    logs, ends = logs[:, whole], ends[whole]
    noise = _noise(z, logs)
    times = float(student.ppf(1 - (1 - level) / 2 / _CHANCES, len(rungs) - 2))

    def carried(y: Floats) -> tuple[Floats, Floats]:
        value, error = _carried(z, y, noise)
        window = np.ones(5)
        return value, times * np.sqrt(
            np.convolve(error**2, window, "same") / np.convolve(error * 0 + 1, window, "same")
        )

    finals = np.log([[rung.loss] for rung, _ in rungs])
    centre, half = carried(logs)
    ratio, spread = carried(logs - finals)
    up, down = (np.hypot(spread, math.log(bound / final.loss)) for bound in (final.high, final.low))
    early = 2 * half < up + down
    centre = np.where(early, centre, math.log(final.loss) + ratio)
    high, low = centre + np.where(early, half, up), centre - np.where(early, half, down)
    moves, drift = _carried(z, (logs @ _drift(len(ends)).T)[:, 2:], noise)
    mean, offset = _carried(z, (logs @ _mean(len(ends)).T)[:, 2:], noise)
    wanted = (ends, np.exp(centre), np.exp(low), np.exp(high), moves, times * drift, mean, times * offset)
    set_to = schedules.expect(z, [table.schedules.get(name, {}) for name in names], ends)
    lists: dict[str, Any] = {name: tuple(x.tolist()) for name, x in zip(_LISTS, wanted, strict=True)}
    return Band(**lists, unit=table.settings.get(CURVES, table.unit), schedules=set_to)


class Live:
    """The band of a run as the observer of its trainer (`train.trainer.Hooks.observe`).

    stop: whether the first alarm is to end the run. Judged once a bin is over, so that it costs next to nothing.
    """

    def __init__(self, band: Band, stop: bool = False) -> None:
        self.band, self.stop = band, stop
        self.points: list[Point] = []
        self._lines: list[Mapping[str, Any]] = []
        self._from, self._bins, self._told = 0.0, 0, 0

    def __call__(self, share: float, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The fields of alarms that a log line gives rise to, each stretch once. share: where the line ends."""
        middle, self._from = (self._from + share) / 2, share
        self._lines.append({name: line[name] for name in ("step", "tokens", "lr") if name in line})
        loss = logged(line, self.band.unit)
        if loss is None:
            return []
        self.points.append((middle, loss))
        bins = sum(end <= middle for end in self.band.shares)
        if bins == self._bins and math.isfinite(loss):
            return []
        self._bins = bins
        steps = line["step"] / share if "step" in line else 0.0
        alarms = self.band.check(self.points, schedules.of_lines(self._lines, steps) if steps else {})
        new, self._told = alarms[self._told :], len(alarms)
        return [alarm._asdict() | {"stop": self.stop} for alarm in new]


def _mean(count: int) -> Floats:
    """Matrix that takes a curve to its mean so far."""
    matrix: Floats = np.tri(count) / np.arange(1, count + 1)[:, None]
    return matrix


def _drift(count: int) -> Floats:
    """Matrix that takes a curve to its drift: mean of the last third of the bins so far less that of the first."""
    matrix = np.zeros((count, count))
    for i in range(2, count):
        third = (i + 1) // 3
        matrix[i, :third] -= 1 / third
        matrix[i, i + 1 - third : i + 1] += 1 / third
    return matrix


def _noise(z: Floats, y: Floats) -> Floats:
    """Variance of a run at each z against that at the largest, from runs of one compute.

    Log variance is linear in z, by a slope that is averaged over (`noise.seed_noise`). It often falls; that it goes on
    falling beyond the ladder is not relied on.
    """
    groups = [z.round(2) == at for at in np.unique(z.round(2))]
    free = np.array([group.sum() - 1.0 for group in groups])
    if (free > 0).sum() < 2:
        return np.ones(len(z))
    squares = np.array([y[group].var(0).mean() * group.sum() for group in groups]) + free * 1e-12
    away = np.array([z[group].mean() - z.max() for group in groups])  # decades, negative
    level = (squares * np.exp(FALL[:, None] * away)).sum(1) / free.sum()
    log = _COLUMNS * 0.5 * (FALL * (free @ away) - free.sum() * np.log(level))
    log -= 0.5 * ((FALL - FALL_PRIOR[0]) / FALL_PRIOR[1]) ** 2
    weights = np.exp(log - log.max())
    weights *= level / (weights @ level)
    relative: Floats = weights @ np.exp(-FALL[:, None] * (z - z.max()))
    return relative


def _carried(z: Floats, y: Floats, noise_of: Floats | None = None) -> tuple[Floats, Floats]:
    """Columns of y, known at log computes z < 0, carried to z = 0: value and standard error of one more run there.

    A column is a line in z plus a smooth departure from it (an integrated Wiener process, so that a cubic smoothing
    spline is its mean) plus noise. How smooth is judged from all columns by restricted likelihood and averaged over, so
    that the error grows with the distance by as much as the rungs' own curves bend. noise_of: relative variance of the
    noise of each run; the new one has 1.
    Source: Wahba (1978), J. R. Stat. Soc. B 40:364.
    """
    u, end, n = z - z.min(), -z.min(), len(z)
    noise_matrix = np.diag(np.ones(n) if noise_of is None else noise_of)

    def covariance(a: Floats, b: Floats) -> Floats:
        near, far = np.minimum(a, b), np.maximum(a, b)
        product: Floats = near**2 * (3 * far - near) / 6
        return product

    line, line_end = np.stack([np.ones(n), u], 1), np.array([1.0, end])
    within, across = covariance(u[:, None], u[None]), covariance(u, np.array(end))
    likelihood, values, variances = [], [], []
    for bend in np.concatenate([[0.0], np.geomspace(1e-3, 1e5, 33)]):  # variance of the departure over that of noise
        inverse = np.linalg.inv(bend * within + noise_matrix)
        normal = np.linalg.inv(line.T @ inverse @ line)
        coefficients = normal @ line.T @ inverse @ y
        residual = y - line @ coefficients
        noise = np.maximum((residual * (inverse @ residual)).sum(0) / (n - 2), _FINEST**2)
        log_det = -np.linalg.slogdet(inverse)[1] - np.linalg.slogdet(normal)[1]
        prior = -0.5 * bend * float(noise.mean()) / _BENDS**2
        likelihood.append(-0.5 * ((n - 2) * np.log(noise).mean() + log_det) + prior)
        gap = line_end - line.T @ inverse @ (bend * across)
        values.append(line_end @ coefficients + bend * across @ inverse @ residual)
        variances.append(noise * (1 + bend * end**3 / 3 - bend**2 * across @ inverse @ across + gap @ normal @ gap))
    weights = np.exp(min(_COLUMNS, y.shape[1]) * (np.array(likelihood) - max(likelihood)))[:, None]
    weights /= weights.sum()
    value: Floats = (weights * values).sum(0)
    error: Floats = np.sqrt((weights * (np.array(variances) + (np.array(values) - value) ** 2)).sum(0))
    return value, error


def explain(
    shares: Floats, d: Floats, room: Floats, at: int, behind: bool, rate_is_theirs: bool = False
) -> tuple[str, str]:
    """What is likely wrong, from how the deviation looks: a leap, or a slow departure, when, and to which side.

    d: log ratio of the live to the expected curve, by bin so far. room: its bounds. at: the bin that raised the alarm.
    behind: whether the loss was found too high. rate_is_theirs: the learning rate is known to be as on the rungs.
    """
    steps = np.abs(np.diff(d, prepend=d[0]))
    leap = max(at - 2, 0) + int(np.argmax(steps[max(at - 2, 0) : at + 1]))
    where = f"at {shares[leap]:.0%} of the run"
    if leap > 3 and steps[leap] > max(6 * float(np.median(steps[1:leap])), 0.5 * float(room[leap])):
        rest = d[leap : leap + 5] - d[leap - 1]
        if rest[0] < 0:
            return "data", f"the loss fell in one step {where}: easier or repeated data"
        if rest[rest.argmax() :].min() < 0.6 * rest.max():
            return "spike", f"the loss leapt {where} and came back: a spike"
        return "data", f"the loss leapt {where} and stayed up: bad data from there on, or a spike without recovery"
    early = shares[at] < _EARLY
    if rate_is_theirs:
        what = "behind its curve at the rungs' own learning rate: harder, damaged or otherwise encoded data"
        if not behind:
            what = "ahead of its curve at the rungs' own learning rate: easier or repeated data"
        return "data", f"the loss is {what}"
    if not behind:
        rate = "is too low" if early else "falls too early"
        return "learning rate", f"the loss runs ahead of its curve: the learning rate {rate}, or the data are easier"
    if early and d[-1] < 0.4 * d[: at + 1].max():
        return (
            "learning rate",
            "the loss started late and catches up: the learning rate is too low, or its warm-up long",
        )
    rate = "is too high or far too low" if early else "falls too late"
    return "learning rate", f"the loss is behind its curve: the learning rate {rate}, or the data are harder"
