"""Plan a run: the shape that a budget of compute or of time buys on this machine, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from foretell.errors import ForecastError, MissingExtraError
from foretell.forecast.footprint import Memory, Speed, capacity, memory, micro_rows, resident, take_steps
from foretell.forecast.rungs import DataShape, RungPlan, flops, lay, paced, params, scaled
from foretell.measure.machine import has_torch
from foretell.model.describe import Part, describe
from foretell.recipe import ForecastConfig, Recipe
from foretell.recipes import check_recipe
from foretell.run import Report, silent

_MEASURED = 4  # shapes, at most
_PATIENCE = 3.0  # seconds that one forward and backward pass may take while measuring
_FIRST_GUESS = 1e9  # FLOP/s of a shape before anything was measured
_NEAR = 1.1  # ratio of widths within which a measured rate holds
_WIDTH_STEP = 32  # where width and heads do not hang together
_MOST = 1 << 16  # steps of width
_SHOWN = 2  # shapes below and above the chosen one


@dataclass(frozen=True)
class Shape:
    """A run that could be. rate: FLOP/s on this machine."""

    recipe: Recipe
    parameters: int
    flops: float
    rate: float
    memory: Memory

    @property
    def tokens(self) -> int:
        return self.recipe.train.tokens

    @property
    def seconds(self) -> float:
        return self.flops / self.rate


@dataclass(frozen=True)
class Machine:
    """Where a run would train. steps: times training steps on so many rows. memory: peak of a shape. limit: bytes."""

    steps: Callable[[Recipe, int], Speed]
    memory: Callable[[Recipe], Memory]
    limit: float

    @classmethod
    def here(cls, recipe: Recipe, data: DataShape) -> Machine:
        """This machine, on the recipe's device and in its precision. Raises TrainingError where it has none such."""
        if not has_torch():
            raise MissingExtraError("Measuring how fast this machine trains", "torch")
        from foretell.train.setup import check_compiler, pick_device, pick_precision

        check_compiler(recipe.train)
        device = pick_device(recipe.train.device)
        precision = pick_precision(recipe.train.precision, device)
        process = cache(lambda: resident(str(device)))  # once, before large models leave their traces
        return cls(
            lambda shape, rows: take_steps(shape, rows, data, precision, str(device)),
            lambda shape: memory(shape, data, process(), precision, str(device)),
            capacity(str(device)),
        )

    def shape(self, recipe: Recipe, cost: float, rate: float) -> Shape:
        """The recipe with the largest micro-batch that fits."""
        while (needed := self.memory(recipe)).total > self.limit and (rows := micro_rows(recipe)) > 1:
            train = recipe.train.model_copy(update={"micro_batch": rows // 2})
            recipe = recipe.model_copy(update={"train": train})
        return Shape(recipe, params(recipe), cost, rate, needed)


@dataclass(frozen=True)
class Plan:
    """shapes: by size, the chosen one and its neighbours. ladder: of the chosen one, or `no_ladder` says why not.
    rates: width -> FLOP/s, as measured. data: what was assumed of the pack."""

    shapes: tuple[Shape, ...]
    chosen: Shape
    ladder: tuple[RungPlan, ...]
    no_ladder: str
    rates: Mapping[int, float]
    data: DataShape

    @property
    def ladder_flops(self) -> float:
        return sum(rung.flops for rung in self.ladder)

    @property
    def ladder_seconds(self) -> float:
        """One rung after another; a process a core is as fast or faster."""
        return sum(rung.flops / between(self.rates, rung.recipe.model.width) for rung in self.ladder)

    def parts(self) -> list[Part]:
        """The chosen model's parts, with what each takes of the whole run's FLOPs."""
        model = self.chosen.recipe.model.model_copy(update={"vocab_size": self.chosen.recipe.tokenizer.vocab_size})
        shares = {"token": 1.0, "tile": self.data.tiles}
        found = []
        for part in describe(model, self.data.context):
            of = self.data.learned if part.name.startswith("head") else shares[part.per]
            times = self.chosen.tokens * of
            found.append(Part(part.name, part.parameters, part.forward * times, part.backward * times, "run"))
        return found


def plan(
    recipe: Recipe,
    *,
    budget: float | None = None,
    hours: float | None = None,
    tokens_per_parameter: float | None = None,
    depth: int | None = None,
    data: DataShape | None = None,
    machine: Machine | None = None,
    report: Report = silent,
) -> Plan:
    """The widest model whose training stays within a budget of FLOPs, or within hours on this machine.

    Tokens per parameter are the recipe's unless given; depth likewise; batch and learning rate follow by the exponents
    of `recipe.forecast`. The machine's rate is measured on a few shapes up to the chosen one, and interpolated.
    data: what a token of the pack costs; default text, a document a row. machine: where it would train; default here.
    Raises ForecastError for a budget below the smallest shape, or a chosen shape beyond the machine's memory.
    """
    if (budget is None) == (hours is None):
        found = "neither was" if budget is None else "both were"
        raise ForecastError(
            f"Give a budget of FLOPs or of hours; {found} given. For example --budget 1e15, or --hours 2."
        )
    for name, value in {"budget": budget, "hours": hours, "tokens per parameter": tokens_per_parameter}.items():
        if value is not None and not (0 < value < math.inf):
            raise ForecastError(f"{name.capitalize()} is {value:g}; allowed is a number above 0.")
    ratio = tokens_per_parameter or recipe.train.tokens / params(recipe)
    base = paced(recipe, ratio * params(recipe) / recipe.train.tokens)
    data = data or DataShape((recipe.data.sequence_length + 1) / 2)
    machine = machine or Machine.here(recipe, data)
    unit = recipe.model.head_dim if recipe.model.q_heads is None else _WIDTH_STEP

    @cache
    def at(width: int) -> Recipe:
        shape = scaled(base, width, depth)
        if base.model.ffn is None:  # the default is a multiple of 32, as others' kernels want it
            shape = shape.model_copy(update={"model": shape.model.model_copy(update={"ffn": None})})
        return paced(shape, ratio * params(shape) / shape.train.tokens)

    rates: dict[int, float] = {}

    def affordable(width: int) -> bool:
        cost = flops(at(width), data)
        return cost <= budget if budget is not None else cost <= 3600 * (hours or 0) * between(rates, width)

    def measurable(width: int) -> bool:
        rate = between(rates, width)
        return _row(at(width), data) <= _PATIENCE * rate and machine.memory(at(width)).total <= machine.limit

    width = chosen = unit
    for count in range(_MEASURED):
        shape = at(width)
        report("plan", count, _MEASURED, f"measuring width {width}")
        rows = int(_PATIENCE * between(rates, width) / _row(shape, data))
        speed = machine.steps(shape, min(max(1, rows), micro_rows(shape)))
        batch = shape.train.batch_tokens
        rates[width] = flops(shape, data) * batch / shape.train.tokens / speed.step(batch)
        chosen = unit * _largest(affordable, unit)
        width = max(unit, unit * min(chosen // unit, _largest(measurable, unit)))
        if any(max(width / known, known / width) < _NEAR for known in rates):
            break
    report("plan", 1, 1, f"measured {len(rates)} shapes")
    if chosen == 0:
        raise ForecastError(_too_small(at(unit), flops(at(unit), data), rates[unit], hours))
    steps = range(max(1, chosen // unit - _SHOWN), chosen // unit + _SHOWN + 1)
    shapes = [machine.shape(at(unit * k), flops(at(unit * k), data), between(rates, unit * k)) for k in steps]
    best = next(shape for shape in shapes if shape.recipe.model.width == chosen)
    if best.memory.total > machine.limit:
        raise ForecastError(
            f"Width {chosen}, which the budget buys, needs {best.memory.total / 1e9:.1f} GB to train with one row at a "
            f"time; this machine has {machine.limit / 1e9:.1f} GB. Lower the budget, raise --tokens-per-parameter "
            f"(now {ratio:.3g}), or lower --depth (now {best.recipe.model.depth})."
        )
    best, ladder, no_ladder = _ladder(best, data, moved=chosen != recipe.model.width)
    shapes = [best if shape.recipe.model.width == chosen else shape for shape in shapes]
    return Plan(tuple(shapes), best, ladder, no_ladder, rates, data)


def _ladder(shape: Shape, data: DataShape, moved: bool) -> tuple[Shape, tuple[RungPlan, ...], str]:
    """The shape with its ladder, or why it has none. Widths that were named for another shape give way, where its own
    make a ladder."""
    named = shape.recipe.forecast or ForecastConfig()
    said = []
    for config in [named.model_copy(update={"widths": ()}), named] if moved and named.widths else [named]:
        recipe = shape.recipe.model_copy(update={"forecast": config})
        try:
            ladder = tuple(lay(recipe, data))
        except ForecastError as error:
            said.append(str(error))
            continue
        return (replace(shape, recipe=recipe) if shape.recipe.forecast else shape), ladder, ""
    # A run with a forecast that cannot be made would stop at it.
    without = shape.recipe.model_copy(update={"forecast": None})
    return replace(shape, recipe=without), (), said[0]


def ready(chosen: Shape, recipe: Recipe) -> Recipe:
    """The chosen shape as a recipe to run: what is read from the sources grows with its tokens."""
    growth = chosen.tokens / recipe.train.tokens
    raw = chosen.recipe.model_dump(mode="json")
    raw["name"] = f"{recipe.name}-w{chosen.recipe.model.width}-d{chosen.recipe.model.depth}"
    raw["data"]["tokens"] = math.ceil(recipe.data.tokens * growth)
    for source in raw["data"]["sources"]:
        for amount in ("documents", "max_bytes"):
            if source.get(amount):
                source[amount] = math.ceil(source[amount] * growth)
    return check_recipe(raw, f"the plan of {recipe.name}")


def between(rates: Mapping[int, float], width: int) -> float:
    """FLOP/s at a width: log-linear between the measured ones, the nearest beyond them."""
    known = sorted(rates)
    if not known:
        return _FIRST_GUESS
    low = max((k for k in known if k <= width), default=known[0])
    high = min((k for k in known if k >= width), default=known[-1])
    if low == high:
        return rates[low]
    share = math.log(width / low) / math.log(high / low)
    return math.exp((1 - share) * math.log(rates[low]) + share * math.log(rates[high]))


def _row(recipe: Recipe, data: DataShape) -> float:
    """Training FLOPs of one row."""
    return flops(recipe, data) * recipe.data.sequence_length / recipe.train.tokens


def _largest(fits: Callable[[int], bool], unit: int) -> int:
    """The largest k with fits(unit · k), where it holds up to some k and not beyond; 0 for none."""
    low, high = 0, 1
    while high < _MOST and fits(unit * high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(unit * middle) else (low, middle)
    return low


def _too_small(least: Recipe, cost: float, rate: float, hours: float | None) -> str:
    has = f"{cost:.3g} FLOPs" if hours is None else f"{cost / rate / 3600:.2g} hours"
    return (
        f"The smallest shape (width {least.model.width}, depth {least.model.depth}, {params(least):,} parameters, "
        f"{least.train.tokens:,} tokens) takes {has}, more than the budget. Raise it, or lower --depth, "
        "--tokens-per-parameter or tokenizer.vocab_size."
    )
