"""Tune on small rungs: where learning rate, batch and weight decay are best, how that moves with compute, and so what
the target should be given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from foretell.errors import ForecastError
from foretell.forecast.rungs import DataShape, RungPlan, flops, params, scaled
from foretell.measure.fanout import Where
from foretell.recipe import ForecastConfig, Recipe
from foretell.recipes import check_recipe
from foretell.run import Report, silent

Setting = Literal["lr", "batch", "tau"]
SETTINGS: dict[Setting, str] = {"lr": "learning rate", "batch": "batch", "tau": "weight-decay time-scale"}
Evaluate = Callable[[Sequence[RungPlan]], Mapping[str, float]]
"""Runs -> the loss of each by its name; nan or infinite for one that diverged."""

_REACH = 2  # steps of the grid on each side of the middle, a factor of two each
_MOST = 6  # steps that the middle may move
_LEAST_STEPS = 50  # of the optimizer in a run, so that rounding to whole ones changes its tokens little
_SEEDS = 3  # of each rung's first setting, which show the noise of a loss
_EDGE = 1.0  # octaves: error of an optimum that lies at the end of what can be tried
_SURE = 0.975  # probability that a curvature is above nothing, or a movement is one


@dataclass(frozen=True)
class Bowl:
    """The losses of one rung over one setting. octaves: log2 of the setting over what the rule gives this rung.
    best, error: the lowest point in octaves and its standard error, both None where the bowl is too flat to tell."""

    setting: Setting
    width: int
    flops: float
    values: tuple[float, ...]
    octaves: tuple[float, ...]
    losses: tuple[float, ...]
    best: float | None
    error: float | None


@dataclass(frozen=True)
class Trend:
    """How the best value departs from the rule along compute: octaves at the target and a decade of compute.

    value, before: the target's setting after and before. said: what was concluded.
    """

    setting: Setting
    octaves: float
    slope: float
    slope_error: float
    before: float
    value: float
    said: str


@dataclass(frozen=True)
class Tuning:
    """recipe: the target with its settings. runs, flops: what it took."""

    recipe: Recipe
    bowls: tuple[Bowl, ...]
    trends: tuple[Trend, ...]
    runs: int
    flops: float


def tune(
    recipe: Recipe,
    evaluate: Evaluate,
    *,
    widths: Sequence[int] = (),
    seeds: int = 1,
    rounds: int = 1,
    data: DataShape | None = None,
    report: Report = silent,
) -> Tuning:
    """Search the settings of a recipe on rungs below it, one after another, and carry them to the recipe itself.

    On every rung the learning rate is searched first, then the batch (learning rate ∝ √batch), then tau, each on a grid
    of factors of two around the best so far, which is extended while its end is best. Parabolas in the setting's
    logarithm give the lowest point with its error; a line through these over the logarithm of compute gives the
    target's. A bowl whose curvature does not stand out of the noise of three seeds is left out, a movement within its
    error is taken as none.
    evaluate: trains runs; see `trained`. widths: of the rungs, two or more; default three from 1/10,000 to 1/300 of the
    recipe's compute. rounds: how often the three are searched.
    Raises ForecastError where there are no two rungs below the recipe.
    """
    rungs = rungs_below(recipe, widths, data)
    settings = [name for name in SETTINGS if name != "tau" or recipe.train.optimizer.tau]
    search = _Search(recipe, rungs, evaluate, seeds, data, report)
    bowls: dict[Setting, list[Bowl]] = {}
    for _ in range(rounds):
        for setting in settings:
            bowls[setting] = search.along(setting)
    target = math.log10(flops(recipe, data))
    computes = [math.log10(flops(rung, data)) - target for rung in rungs]
    trends = {setting: _trend(setting, found, computes, recipe) for setting, found in bowls.items()}
    # Exponents are over tokens, of which there is about one decade for two of compute.
    decades = computes[0] / math.log10(rungs[0].train.tokens / recipe.train.tokens)
    tuned = _with(recipe, trends, decades)
    every = tuple(bowl for found in bowls.values() for bowl in found)
    return Tuning(tuned, every, tuple(trends.values()), len(search.losses), search.flops)


def tune_page(tuning: Tuning, unit: str) -> str:
    """The bowls of every setting, and what was made of them."""
    from foretell.pages import Series, compact, figure, line_chart, number, page, section, table

    sections = []
    for trend in tuning.trends:
        bowls = [bowl for bowl in tuning.bowls if bowl.setting == trend.setting]
        series = []
        for bowl in bowls:
            order = sorted(range(len(bowl.octaves)), key=bowl.octaves.__getitem__)
            x, y = ([values[i] for i in order] for values in (bowl.octaves, bowl.losses))
            series.append(Series(f"width {bowl.width}", x, y, mark="both"))
        name = SETTINGS[trend.setting].capitalize()
        chart = line_chart(series, title=name, x_label="octaves from the rule", y_label=unit)
        rows = [
            [bowl.width, compact(bowl.flops), "flat" if bowl.best is None else f"{bowl.best:+.2f} ± {bowl.error:.2f}"]
            for bowl in bowls
        ]
        found = table(["Width", "FLOP", "Lowest, in octaves from the rule"], rows, align="rrr")
        sections.append(
            section(name, figure(chart, f"{number(trend.before, 3)} → {number(trend.value, 3)}: {trend.said}."), found)
        )
    cost = f"{tuning.runs} small runs of {compact(tuning.flops)}FLOP in all"
    lead = f"Settings of {tuning.recipe.name}, decided on {cost}."
    return page("Tuning", sections, lead=lead)


def trained(
    pack: Path,
    heldout: Path,
    tokenizer: Path,
    out: Path,
    config: ForecastConfig,
    workers: int | None = None,
    on: Where = "local",
    report: Report = silent,
) -> Evaluate:
    """Runs by the one trainer, as a ladder's are: many at a time, resumable, under out/rungs."""
    from foretell.forecast.ladder import run_ladder

    def evaluate(runs: Sequence[RungPlan]) -> dict[str, float]:
        table = run_ladder(runs, pack, heldout, tokenizer, out, config=config, workers=workers, on=on, report=report)
        return {rung.run: rung.loss for rung in [*table.rungs, *(rung for rung, _ in table.excluded)]}

    return evaluate


class _Search:
    """The state of a coordinate search on several rungs at once: where each stands, in steps of the grid."""

    def __init__(
        self,
        recipe: Recipe,
        rungs: Sequence[Recipe],
        evaluate: Evaluate,
        seeds: int,
        data: DataShape | None,
        report: Report,
    ) -> None:
        self.rungs, self.evaluate, self.seeds, self.data, self.report = rungs, evaluate, seeds, data, report
        self.at: list[dict[Setting, int]] = [dict.fromkeys(SETTINGS, 0) for _ in rungs]
        self.losses: dict[str, float] = {}
        self.flops = 0.0
        firsts = [self._runs(i, at, max(seeds, _SEEDS)) for i, at in enumerate(self.at)]
        self._measure([run for runs in firsts for run in runs])
        # Settings tried with one seed share its data and first weights, so their noise is no more than this.
        spreads = [np.std([self.losses[run.name] for run in runs], ddof=1) for runs in firsts]
        self.noise = [float(spread) / math.sqrt(seeds) for spread in spreads]

    def along(self, setting: Setting) -> list[Bowl]:
        """Search one setting on every rung, move each to its best, and return the bowls."""
        reach = [[self.at[i][setting] - _REACH, self.at[i][setting] + _REACH] for i in range(len(self.rungs))]
        while True:
            grids = [self._grid(i, setting, range(low, high + 1)) for i, (low, high) in enumerate(reach)]
            self._measure([run for grid in grids for runs in grid.values() for run in runs])
            losses = [{step: self._loss(runs) for step, runs in grid.items()} for grid in grids]
            wider = False
            for known, ends in zip(losses, reach, strict=True):
                best = min(known, key=known.__getitem__)
                # Beside a wall (divergence, a batch of one row) the other side has to tell the bowl's form.
                short = sum(map(math.isfinite, known.values())) <= 2 * _REACH
                if ends[0] > -_MOST and (best == ends[0] or (short and math.isfinite(known.get(ends[0], math.inf)))):
                    ends[0], wider = ends[0] - 1, True
                elif ends[1] < _MOST and (best == ends[1] or (short and math.isfinite(known.get(ends[1], math.inf)))):
                    ends[1], wider = ends[1] + 1, True
            if not wider:
                break
        found = [self._bowl(i, setting, grids[i], losses[i]) for i in range(len(self.rungs))]
        for i, bowl in enumerate(found):
            if bowl.best is not None:
                self.at[i][setting] = min(losses[i], key=losses[i].__getitem__)
        return found

    def _grid(self, i: int, setting: Setting, steps: Sequence[int]) -> dict[int, list[RungPlan]]:
        """The runs of each step that can be trained, a seed each."""
        found = {step: self._runs(i, {**self.at[i], setting: step}) for step in steps}
        return {step: runs for step, runs in found.items() if runs}

    def _runs(self, i: int, at: Mapping[Setting, int], seeds: int | None = None) -> list[RungPlan]:
        rung = self.rungs[i]
        train, length = rung.train, rung.data.sequence_length
        rows = train.batch_tokens // length * 2.0 ** at["batch"]
        batch = round(rows) * length
        steps = round(train.tokens / batch) if batch else 0
        if abs(rows - round(rows)) > 0.25 * rows or (steps < _LEAST_STEPS and at["batch"] > 0) or steps < 1:
            return []
        optimizer = train.optimizer.model_copy(
            update={
                "lr": train.optimizer.lr * 2.0 ** at["lr"] * math.sqrt(batch / train.batch_tokens),
                "tau": train.optimizer.tau * 2.0 ** at["tau"],
            }
        )
        changed = train.model_copy(
            update={
                "batch_tokens": batch,
                "tokens": steps * batch,
                "optimizer": optimizer,
                "eval_every": 0.0,
                "compile": False,
                "log_every": max(1, steps // 20),
            }
        )
        shape = f"w{rung.model.width:04d}-lr{optimizer.lr:.4g}-b{batch}-tau{optimizer.tau:.4g}"
        runs = []
        for seed in range(seeds or self.seeds):
            recipe = rung.model_copy(update={"seed": rung.seed + seed, "train": changed, "name": f"{shape}-s{seed}"})
            cost = flops(recipe, self.data)
            runs.append(RungPlan(recipe.name, recipe, cost, params(rung), changed.tokens, seed))
        return runs

    def _measure(self, runs: Sequence[RungPlan]) -> None:
        new = [run for run in runs if run.name not in self.losses]
        if not new:
            return
        self.report("tune", len(self.losses), None, f"{len(new)} runs")
        for run, loss in self.evaluate(new).items():
            self.losses[run] = loss if math.isfinite(loss) else math.inf
        self.flops += sum(run.flops for run in new)

    def _loss(self, runs: Sequence[RungPlan]) -> float:
        return float(np.mean([self.losses[run.name] for run in runs]))

    def _bowl(
        self, i: int, setting: Setting, grid: Mapping[int, Sequence[RungPlan]], losses: Mapping[int, float]
    ) -> Bowl:
        rung = self.rungs[i]
        used = [runs[0].recipe.train for runs in grid.values()]
        if setting == "lr":
            values = [train.optimizer.lr for train in used]
            rule = [rung.train.optimizer.lr * math.sqrt(train.batch_tokens / rung.train.batch_tokens) for train in used]
        elif setting == "batch":
            values, rule = [float(train.batch_tokens) for train in used], [float(rung.train.batch_tokens)] * len(used)
        else:
            values, rule = [train.optimizer.tau for train in used], [rung.train.optimizer.tau] * len(used)
        octaves = np.log2(np.array(values) / np.array(rule))
        found = list(losses.values())
        best, error = lowest(octaves, found, self.noise[i])
        cost = flops(rung, self.data)
        return Bowl(setting, rung.model.width, cost, tuple(values), tuple(octaves), tuple(found), best, error)


def lowest(
    x: Sequence[float] | np.ndarray, losses: Sequence[float], noise: float, seeds: int = _SEEDS
) -> tuple[float | None, float | None]:
    """Where losses over x are lowest, and the standard error of that; both None where it cannot be told.

    A parabola is laid through the five points around the lowest, and one through the lowest and its neighbours; half
    their distance is the error of the form. The first one's curvature must stand out of the noise: the standard
    deviation of a loss, known from so many seeds. If the lowest is the last that could be tried, it is the answer, an
    octave uncertain.
    """
    octaves, y = np.asarray(x, float), np.asarray(losses, float)
    order = np.argsort(octaves)
    octaves, y = octaves[order][np.isfinite(y[order])], y[order][np.isfinite(y[order])]
    if len(y) < 4:
        return None, None
    sure = float(student.ppf(_SURE, seeds - 1)) * noise
    low = int(y.argmin())
    if low in (0, len(y) - 1):
        return (float(octaves[low]), _EDGE) if y.max() - y.min() > math.sqrt(2) * sure else (None, None)
    near = np.argsort(np.abs(octaves - octaves[low]), kind="stable")[: 2 * _REACH + 1]
    basis = np.vander(octaves[near] - octaves[low], 3)
    spread = np.linalg.inv(basis.T @ basis)
    a, b, _ = (float(value) for value in spread @ (basis.T @ y[near]))
    if a <= sure * math.sqrt(spread[0, 0]):
        return None, None
    three = np.polyfit(octaves[low - 1 : low + 2] - octaves[low], y[low - 1 : low + 2], 2)
    reach = octaves[near].min() - octaves[low], octaves[near].max() - octaves[low]
    wide, narrow = (float(np.clip(-q / (2 * p), *reach)) for p, q in ((a, b), three[:2]))
    gradient = np.array([b / (2 * a * a), -1 / (2 * a), 0.0])
    statistical = noise * math.sqrt(gradient @ spread @ gradient)
    # However smooth the points, a tenth of a step is what a grid of this width can tell.
    return float(octaves[low]) + (wide + narrow) / 2, math.hypot(statistical, (wide - narrow) / 2, 0.1)


def _trend(setting: Setting, bowls: Sequence[Bowl], decades: Sequence[float], recipe: Recipe) -> Trend:
    """The line of the lowest points over decades of compute (0 at the target, below it before)."""
    before = {
        "lr": recipe.train.optimizer.lr,
        "batch": float(recipe.train.batch_tokens),
        "tau": recipe.train.optimizer.tau,
    }[setting]
    told = [
        (at, bowl.best, bowl.error)
        for at, bowl in zip(decades, bowls, strict=True)
        if bowl.best is not None and bowl.error
    ]
    if len(told) < 2:
        # A single bowl that stands out shows where to be; nothing shows that it moves.
        level, said = (told[0][1], "its level is taken") if told else (0.0, "kept")
        said = f"flat on {len(bowls) - len(told)} of {len(bowls)} rungs: {said}"
        return Trend(setting, level, 0.0, math.inf, before, before * 2**level, said)
    x, y, error = (np.array(column) for column in zip(*told, strict=True))
    weight = 1 / error**2
    level = float(weight @ y / weight.sum())
    basis = np.stack([np.ones_like(x), x], 1)
    covariance = np.linalg.inv(basis.T * weight @ basis)
    octaves, slope = (float(value) for value in covariance @ (basis.T * weight @ y))
    left = y - basis @ (octaves, slope)
    scatter = max(1.0, float(weight @ left**2) / (len(x) - 2)) if len(x) > 2 else 1.0
    slope_error = math.sqrt(covariance[1, 1] * scatter)
    if abs(slope) > norm.ppf(_SURE) * slope_error:
        said = f"times {2**slope:.2f} a decade of compute beside the rule"
    else:
        said, slope, octaves = "moves no more than its error: the rule is kept, with the rungs' level", 0.0, level
    if ends := sum(bowl.error == _EDGE for bowl in bowls):
        said += f"; on {ends} of {len(bowls)} rungs the last that could be tried is best"
    return Trend(setting, octaves, slope, slope_error, before, before * 2**octaves, said)


def _with(recipe: Recipe, trends: Mapping[Setting, Trend], decades: float) -> Recipe:
    """The target with what was found. decades: of compute for one of tokens."""
    config, train, length = recipe.forecast or ForecastConfig(), recipe.train, recipe.data.sequence_length
    exponents = {name: trends[name].slope * decades * math.log10(2) for name in trends}
    rows = max(1, round(trends["batch"].value / length))
    batch = rows * length
    raw = recipe.model_dump(mode="json")
    raw["train"]["batch_tokens"] = batch
    raw["train"]["tokens"] = max(1, round(train.tokens / batch)) * batch
    raw["train"]["optimizer"] |= {
        "lr": trends["lr"].value * math.sqrt(batch / train.batch_tokens),
        "tau": trends["tau"].value if "tau" in trends else 0.0,
    }
    raw["forecast"] = config.model_dump(mode="json") | {
        "batch_exponent": min(1.0, max(0.0, config.batch_exponent + exponents["batch"])),
        "horizon_exponent": min(1.0, max(-1.0, config.horizon_exponent - exponents["lr"])),
    }
    return check_recipe(raw, f"{recipe.name}, tuned")


def rungs_below(recipe: Recipe, widths: Sequence[int] = (), data: DataShape | None = None) -> list[Recipe]:
    """The recipe at small widths: those named, or three from 1/10,000 to 1/300 of its compute.

    Raises ForecastError where there are no two rungs below the recipe.
    """
    target, unit = flops(recipe, data), recipe.model.head_dim
    if widths:
        rungs = [scaled(recipe, width) for width in sorted(set(widths))]
    else:
        below = [scaled(recipe, width) for width in range(unit, recipe.model.width, unit)]
        small = [rung for rung in below if 1e-4 <= flops(rung, data) / target <= 1 / 300]
        rungs = [small[i] for i in sorted({0, len(small) // 2, len(small) - 1})] if small else []
    if len(rungs) < 2 or any(flops(rung, data) >= target for rung in rungs):
        raise ForecastError(
            f"The search needs two rungs or more below the {target:.3g} FLOPs of {recipe.name}; "
            f"{len(rungs)} {'were named' if widths else 'lie between 1/10,000 and 1/300 of them'}. Name widths below "
            f"{recipe.model.width} with --widths, or take a larger target."
        )
    return rungs
