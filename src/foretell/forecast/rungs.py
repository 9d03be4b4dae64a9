"""The rungs below a run: the same recipe at other widths (or depths), every other number following by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foretell.errors import ForecastError
from foretell.model.describe import parameter_count, training_flops
from foretell.recipe import ForecastConfig, ModelConfig, Recipe, VisionConfig, digest
from foretell.recipes import check_recipe

LEAST = 5  # rungs of different compute that a forecast needs
MOST = 12  # that are laid without being asked for
LOG_LINES = 200  # of a rung's curve
SEED_STEP = 1000  # so that targets of neighbouring seeds do not share rungs


@dataclass(frozen=True)
class DataShape:
    """What a token of the pack costs beside the matrices. context: mean positions a query sees, itself included.
    tiles, learned: image tiles, and positions that carry loss, a position of a row."""

    context: float
    tiles: float = 0.0
    learned: float = 1.0


@dataclass(frozen=True)
class RungPlan:
    """One run of the ladder. flops, tokens: of its training. seed: counted from 0, which is the target's own."""

    name: str
    recipe: Recipe
    flops: float
    params: int
    tokens: int
    seed: int


def scaled(recipe: Recipe, width: int | None = None, depth: int | None = None) -> Recipe:
    """The same recipe at another width or depth.

    Heads keep their size, so that a width between whole heads has a part of one more than its share, which a clean
    ladder avoids; the image tower follows in whole heads; the MLPs keep their ratio. Tokens stay in proportion to
    parameters, batch and learning rate follow by the exponents of `recipe.forecast`, and what lies between is the
    parametrisation's. It is for one process, whatever the recipe's `parallel` says.
    Raises RecipeError for a shape that cannot be.
    """
    model = recipe.model
    raw = recipe.model_dump(mode="json", exclude={"parallel"})
    raw["model"] |= _shape(model, width or model.width, depth or model.depth)
    where = f"{recipe.name} at width {raw['model']['width']}, depth {raw['model']['depth']}"
    shape = check_recipe(raw, where)
    return paced(shape, params(shape) / params(recipe))


def paced(recipe: Recipe, growth: float) -> Recipe:
    """The same recipe over `growth` times the tokens: batch and learning rate follow by their exponents."""
    config, train, length = recipe.forecast or ForecastConfig(), recipe.train, recipe.data.sequence_length
    rows = max(1, round(train.batch_tokens // length * growth**config.batch_exponent))
    steps = max(1, round(train.tokens * growth / (rows * length)))
    rate = math.sqrt(rows * length / train.batch_tokens) * growth**-config.horizon_exponent
    raw = recipe.model_dump(mode="json")
    raw["train"] |= {"tokens": steps * rows * length, "batch_tokens": rows * length}
    raw["train"]["optimizer"]["lr"] = train.optimizer.lr * rate
    return check_recipe(raw, f"{recipe.name} over {growth:.3g} times its tokens")


def params(recipe: Recipe) -> int:
    """Parameters of a recipe's model; its vocabulary is the tokenizer's."""
    return parameter_count(_sized(recipe))


def _sized(recipe: Recipe) -> ModelConfig:
    return recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})


def with_vocabulary(recipe: Recipe, size: int) -> Recipe:
    """The recipe with the vocabulary that its tokenizer has in fact, which may be smaller than was asked for."""
    return recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"vocab_size": size})})


def lay(recipe: Recipe, data: DataShape | None = None) -> list[RungPlan]:
    """The ladder of a recipe, every seed of every rung, cheapest first; its vocabulary is the recipe's.

    Raises ForecastError for fewer than five rungs of different compute, or rungs that are not below the target.
    """
    config = recipe.forecast or ForecastConfig()
    target = flops(recipe, data)
    if config.depths:
        recipes = [scaled(recipe, depth=depth) for depth in sorted(set(config.depths))]
    elif config.widths:
        recipes = [scaled(recipe, width) for width in sorted(set(config.widths))]
    else:
        recipes = _automatic(recipe, data, config.largest * target)
    below = [rung for rung in recipes if flops(rung, data) < target]
    if len(below) < LEAST or len(below) < len(recipes):
        most = f"{config.largest:.3g} times " if len(below) == len(recipes) else ""
        raise ForecastError(
            f"{len(below)} of the {len(recipes)} rungs lie below {most}the {target:.3g} FLOPs of {recipe.name}; a "
            f"forecast needs {LEAST} or more, all below. Give forecast.widths (best are multiples of "
            f"{recipe.model.head_dim}, the head size), raise forecast.largest, or take a larger target."
        )
    return [
        _plan(rung, seed, data)
        for i, rung in enumerate(below)
        for seed in range(config.seeds[min(i, len(config.seeds) - 1)])
    ]


def flops(recipe: Recipe, data: DataShape | None = None) -> float:
    """Training FLOPs of a whole run; its vocabulary is the tokenizer's."""
    data = data or DataShape((recipe.data.sequence_length + 1) / 2)
    tokens = recipe.train.tokens // recipe.train.batch_tokens * recipe.train.batch_tokens
    return training_flops(_sized(recipe), tokens, tokens * data.tiles, data.context, tokens * data.learned)


def target_digest(recipe: Recipe) -> str:
    """Hex SHA-256 of what decides a run's loss: a record is of this, not of how the run is watched or examined."""
    plain = recipe.model_dump(mode="json")
    train = {k: v for k, v in plain["train"].items() if k not in ("checkpoint_minutes", "keep", "log_every")}
    return digest({key: plain[key] for key in ("seed", "data", "tokenizer", "model")} | {"train": train})


def measured(metrics: Mapping[str, Any], config: ForecastConfig) -> float:
    """The loss that is forecast, out of the metrics of `train.loop.pretrain`.

    Raises ForecastError for a kind that the held-out data do not have.
    """
    kinds: Mapping[str, Mapping[str, float]] = metrics.get("by_kind") or {}
    if unknown := sorted(set(config.kinds) - kinds.keys()):
        raise ForecastError(f"The held-out data have no kind {unknown[0]!r}; they have {', '.join(sorted(kinds))}.")
    chosen = [kinds[name] for name in config.kinds or kinds]
    nats = sum(kind["loss"] * kind["tokens"] for kind in chosen)
    if config.unit == "nats per token":
        return nats / sum(kind["tokens"] for kind in chosen)
    return nats / sum(kind["loss"] * kind["tokens"] / kind["bits_per_byte"] for kind in chosen)


def _shape(model: ModelConfig, width: int, depth: int) -> dict[str, Any]:
    """What changes in a model's settings when its decoder takes another width or depth."""
    share = width / model.width
    change: dict[str, Any] = {"width": width, "depth": depth}
    if width != model.width:
        change["ffn"] = max(4, 4 * round(share * model.ffn_width / 4))
        # Whole heads: a width between them has a part of a head more than its share.
        heads = math.ceil(share * model.heads - 1e-9)
        change["q_heads"] = None if heads * model.head_dim == width else heads
        if model.kv_heads is not None:
            group = model.heads // model.kv_heads
            change["kv_heads"] = heads // group if heads % group == 0 else 1
        if model.vision is not None:
            change["vision"] = _tower(model.vision, share).model_dump(mode="json")
    if model.sliding_layers:
        change["sliding_layers"] = [layer for layer in model.sliding_layers if layer < depth]
    return change


def _tower(vision: VisionConfig, share: float) -> VisionConfig:
    width = max(1, round(share * vision.width / vision.head_dim)) * vision.head_dim
    ffn = None if vision.ffn is None else max(4, 4 * round(vision.ffn * width / vision.width / 4))
    return vision.model_copy(update={"width": width, "ffn": ffn})


def _automatic(recipe: Recipe, data: DataShape | None, most: float) -> list[Recipe]:
    head, found = recipe.model.head_dim, []
    for width in range(head, recipe.model.width, head):
        rung = scaled(recipe, width)
        if flops(rung, data) > most:
            break
        found.append(rung)
    if len(found) <= MOST:
        return found
    logs = [math.log(flops(rung, data)) for rung in found]
    wanted = [logs[0] + (logs[-1] - logs[0]) * i / (MOST - 1) for i in range(MOST)]
    nearest = {min(range(len(logs)), key=lambda i: abs(logs[i] - at)) for at in wanted}
    return [found[i] for i in sorted(nearest)]


def _plan(rung: Recipe, seed: int, data: DataShape | None) -> RungPlan:
    steps = rung.train.tokens // rung.train.batch_tokens
    quiet = {"eval_every": 0.0, "compile": False, "log_every": max(1, steps // LOG_LINES)}
    recipe = rung.model_copy(
        update={
            "name": f"{rung.name}-w{rung.model.width}-d{rung.model.depth}-s{seed}",
            "seed": (rung.seed + SEED_STEP * seed) % 2**31,
            "train": rung.train.model_copy(update=quiet),
        }
    )
    name = f"w{rung.model.width:04d}-d{rung.model.depth:03d}-s{seed}"
    return RungPlan(name, recipe, flops(rung, data), params(rung), rung.train.tokens, seed)
