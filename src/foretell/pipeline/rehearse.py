"""The dry run: every stage of a recipe at about a thousandth of its size, and what the whole would take."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import RunError
from foretell.forecast.rungs import flops, lay
from foretell.measure.machine import best_device
from foretell.model.describe import flops_per_token, parameter_count
from foretell.pipeline.depth import shape_for_depth
from foretell.pipeline.documents import size_of
from foretell.pipeline.stages import run_recipe
from foretell.recipe import ModelConfig, Recipe, WorldSource
from foretell.recipes import check_recipe
from foretell.run import Report, place, silent

SHARE = 1000
CPU_PARAMETERS = 50_000_000  # a larger model is rehearsed in a smaller shape where there is no GPU
_LEAST_STEPS = 8
_LEAST_DOCUMENTS = 240  # of the world, so that each of its kinds is met
_LEAST_BYTES = 400_000


@dataclass(frozen=True)
class StageTime:
    """rehearsed: seconds measured. full: seconds estimated for the whole recipe on this machine."""

    name: str
    rehearsed: float
    full: float


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal measured. Hours and cost are estimates: the measured rates, carried to the full size.

    tokens_per_s: training, of the rehearsed shape. changes: in what the rehearsal differs beside its size.
    """

    stages: tuple[StageTime, ...]
    tokens_per_s: float
    parameters: int
    changes: tuple[str, ...]

    @property
    def hours(self) -> float:
        return sum(stage.full for stage in self.stages) / 3600

    def cost(self, price_per_hour: float) -> float:
        return self.hours * price_per_hour


def rehearse(recipe: Recipe, report: Report = silent) -> Rehearsal:
    """Run every stage of the recipe small, in a temporary directory that is removed again.

    Raises whatever the recipe's full run would raise early: that is what a rehearsal is for.
    """
    if place()[1] > 1:
        raise RunError("A rehearsal measures a single process. Start it without foretell launch, or torchrun.")
    small, changes = shrink(recipe, best_device())
    with tempfile.TemporaryDirectory(prefix="foretell-rehearse-") as folder:
        run_dir = Path(folder) / recipe.name
        manifests = run_recipe(small, run_dir, report=report)
        rate = _rate(run_dir / "pretrain" / "log.jsonl")
    ratio = _growth(recipe, small, manifests["data"]["metrics"])
    if rate:  # without what happens once: start, compilation, checkpoints
        seconds = recipe.train.tokens / rate * _work(recipe, small)
        ratio["pretrain"] = lambda measured: max(measured, seconds)
    times = tuple(StageTime(n, m["seconds"], ratio[n](m["seconds"])) for n, m in manifests.items())
    return Rehearsal(times, rate, parameter_count(_sized(recipe)), tuple(changes))


def shrink(recipe: Recipe, device: str) -> tuple[Recipe, list[str]]:
    """The recipe at about a thousandth of its size, and what else had to change on this machine.

    device: what `auto` stands for here.
    """
    changes: list[str] = []
    raw = recipe.model_dump(mode="json")
    train, data = raw["train"], raw["data"]
    model = recipe.model
    if recipe.train.device not in ("auto", device):
        train["device"], train["compile"] = "auto", recipe.train.compile and device == "cuda"
        changes.append(f"the recipe asks for {recipe.train.device}; this machine has {device}, without compiling")
    if device == "cpu" and parameter_count(_sized(recipe)) > CPU_PARAMETERS:
        depth = model.depth
        while depth > 1 and parameter_count(_sized(recipe, shape_for_depth(model, depth))) > CPU_PARAMETERS:
            depth -= 1
        model = shape_for_depth(model, depth)
        raw["model"] = model.model_dump(mode="json")
        changes.append(
            f"{parameter_count(_sized(recipe)) / 1e6:.0f} M parameters are too many for a CPU; rehearsed with depth "
            f"{depth}, width {model.width}, and the time scaled by the floating-point operations"
        )
    if recipe.forecast is not None:
        raw["forecast"] = None
        share = sum(rung.flops for rung in lay(recipe)) / flops(recipe)
        changes.append(
            f"the ladder is left out, runs of seconds being no rungs; it has {share:.0%} of the run's operations"
        )
    if recipe.align is not None:
        raw["align"] = None
        changes.append(
            "alignment is left out; of lessons and rounds it takes what its settings say, whatever the model"
        )
    length = recipe.data.sequence_length
    rows = recipe.train.micro_batch or 8
    if device == "cpu":
        rows = train["micro_batch"] = min(rows, max(1, 8192 // length))
    train["batch_tokens"] = min(recipe.train.batch_tokens, rows * length)
    train["tokens"] = max(recipe.train.tokens // SHARE, _LEAST_STEPS * train["batch_tokens"])
    train |= {"log_every": 1, "eval_batches": min(2, recipe.train.eval_batches), "eval_every": 0.5}
    data["tokens"] = max(recipe.data.tokens // SHARE, 2 * train["batch_tokens"], 64 * length)
    data["heldout_tokens"] = max(recipe.data.heldout_tokens // SHARE, 8 * length)
    for source in data["sources"]:
        if source["kind"] == "world":
            source["documents"] = max(source["documents"] // SHARE, min(source["documents"], _LEAST_DOCUMENTS))
            source["heldout_documents"] = min(source["heldout_documents"], _LEAST_DOCUMENTS)
        else:
            limit = source["max_bytes"]
            source["max_bytes"] = _LEAST_BYTES if limit is None else max(limit // SHARE, min(limit, _LEAST_BYTES))
            source["heldout"] = max(source["heldout"], 0.1)  # so that a few documents still give both splits
    raw["tokenizer"]["train_bytes"] = max(recipe.tokenizer.train_bytes // SHARE, _LEAST_BYTES)
    if recipe.examine.exams:
        changes.append(
            f"the exams ({', '.join(recipe.examine.exams)}) are left out; they are asked whole or not at all"
        )
    raw["examine"] |= {"exams": [], "questions": 2, "shown": 2, "samples": 1, "max_tokens": 8}
    return check_recipe(raw, f"the rehearsal of {recipe.name}"), changes


def _sized(recipe: Recipe, model: ModelConfig | None = None) -> ModelConfig:
    return (model or recipe.model).model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})


def _work(recipe: Recipe, small: Recipe) -> float:
    """Operations of a token of the full shape, in those of a token of the rehearsed one."""
    return flops_per_token(_sized(recipe)) / flops_per_token(_sized(small))


def _rate(log: Path) -> float:
    """Training tokens a second: the median over the logged steps but the first two, which warm up."""
    from foretell.train.log import read_log

    train = [event for event in read_log(log) if event.get("event") == "train"]
    rates = [float(event["tokens_per_s"]) for event in train if event.get("tokens_per_s")]
    return statistics.median(rates[2:] or rates) if rates else 0.0


def _growth(recipe: Recipe, small: Recipe, data: Mapping[str, Any]) -> dict[str, Callable[[float], float]]:
    """How each stage's time grows to the full size: in proportion to what it reads."""

    def by(factor: float) -> Callable[[float], float]:
        return lambda seconds: seconds * max(1.0, factor)

    def read(seconds: float) -> float:
        full = 0.0
        for before, after in zip(recipe.data.sources, small.data.sources, strict=True):
            splits = [data["sources"][after.name][split] for split in ("train", "heldout")]
            taken = sum(s["documents"] if isinstance(after, WorldSource) else s["bytes"] for s in splits)
            full += sum(s.get("seconds", 0.0) for s in splits) * max(1.0, size_of(before) / max(1, taken))
        return max(seconds, full)

    packed = small.data.tokens + small.data.heldout_tokens
    return {
        "data": read,
        "tokenizer": by(recipe.tokenizer.train_bytes / small.tokenizer.train_bytes),
        "pack": by((recipe.data.tokens + recipe.data.heldout_tokens) / packed),
        "pretrain": by(recipe.train.tokens / small.train.tokens * _work(recipe, small)),
        "examine": by(recipe.examine.questions / small.examine.questions * _work(recipe, small)),
        "page": by(1.0),
        "card": by(1.0),
    }
