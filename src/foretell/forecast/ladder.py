"""Train the ladder: every rung by the one trainer, many at a time, each resumable; then the table that is fitted."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foretell.errors import ForecastError, TrainingError
from foretell.files import sha256_file, write_json, write_text
from foretell.forecast.curves import CURVE_UNIT, CURVES, curves_of
from foretell.forecast.rungs import DataShape, RungPlan, measured
from foretell.forecast.schedules import kept
from foretell.forecast.table import LadderTable, Rung, make_table
from foretell.measure.fanout import Where, fan_out
from foretell.measure.machine import best_device
from foretell.recipe import ForecastConfig, digest
from foretell.run import Report, silent

RESULT = "result.json"
RUNGS = "rungs"
LOOKED_AT = 256  # rows of a pack
ON_GPU = 4  # rungs that share one: each holds a context of its own, and small ones leave most of it idle


@dataclass(frozen=True)
class _Task:
    rung: RungPlan
    pack: Path
    heldout: Path
    tokenizer: Path
    out: Path
    data: dict[str, str]  # SHA-256 of what it reads

    @property
    def key(self) -> str:
        """Of everything that decides the rung's numbers."""
        plain = self.rung.recipe.model_dump(mode="json")
        numbers = {name: plain[name] for name in ("seed", "model", "train")}
        return digest({"recipe": numbers, "length": plain["data"]["sequence_length"], "data": self.data})


def data_shape(pack: Path) -> DataShape:
    """What a token of this pack costs, from rows spread over it."""
    import numpy as np

    from foretell.data.loader import NO_LOSS, assemble
    from foretell.data.shards import Shards

    shards = Shards(pack)
    batch = assemble(shards, np.linspace(0, shards.rows - 1, min(shards.rows, LOOKED_AT)).astype(np.int64))
    size = batch.tokens.size
    learned = float((batch.targets != NO_LOSS).sum()) / size
    return DataShape(float(batch.positions.mean()) + 1, len(batch.tiles) / size, learned)


def run_ladder(
    rungs: Sequence[RungPlan],
    pack: Path,
    heldout: Path,
    tokenizer: Path,
    out: Path,
    *,
    config: ForecastConfig,
    workers: int | None = None,
    on: Where = "local",
    report: Report = silent,
) -> LadderTable:
    """Train every rung that is not done, the longest first, and return the ladder's table.

    A rung's folder out/rungs/NAME holds what `train.loop.pretrain` writes, and result.json when it is done. All read
    the same pack and are measured on the same held-out one. A rung that diverges is kept with its reason.
    workers: rungs at a time; default one a core, or four on a GPU. on: where (see `measure.fanout`); all machines of a
    cluster must see the same folders. A rung whose worker is lost goes on from its last checkpoint on another.
    Raises KeyboardInterrupt after the running rungs have saved; the same call goes on.
    """
    read = {
        "training data": pack / "index.json",
        "evaluation set": heldout / "index.json",
        "tokenizer": tokenizer / "tokenizer.json",
    }
    data = {name: sha256_file(path) for name, path in read.items()}
    # A worker of a cluster may have begun in another folder.
    pack, heldout, tokenizer, place = (folder.absolute() for folder in (pack, heldout, tokenizer, out / RUNGS))
    tasks = [_Task(rung, pack, heldout, tokenizer, place / rung.name, data) for rung in rungs]
    shared = bool(rungs) and rungs[0].recipe.train.device in ("auto", "cuda")
    if workers is None and on == "local" and shared and best_device() == "cuda":
        workers = ON_GPU
    waiting = sorted((task for task in tasks if not _done(task)), key=lambda task: -task.rung.flops)
    finished = sum(task.rung.flops for task in tasks if _done(task))
    total = sum(rung.flops for rung in rungs)
    open_tasks = {id(task): task for task in waiting}
    note = f"{len(tasks) - len(waiting)} of {len(tasks)} rungs were done before" if len(waiting) < len(tasks) else ""

    def tell() -> None:
        running = sum(task.rung.flops * _share(task) for task in open_tasks.values())
        report("ladder", finished + running, total, note)

    tell()

    def announce(said: str) -> None:
        report("ladder", 0, 0, said)

    gpu = 1 / ON_GPU if shared else 0.0
    for i, metrics in fan_out(train_rung, waiting, workers=workers, on=on, gpu=gpu, tick=tell, tell=announce):
        rung = waiting[i].rung
        del open_tasks[id(waiting[i])]
        finished += rung.flops
        done = len(tasks) - len(open_tasks)
        said = "diverged" if "error" in metrics else f"{measured(metrics, config):.4g} {config.unit}"
        note = f"{rung.name} {said} ({done} of {len(tasks)})"
        tell()
    table = read_ladder(out, [rung.name for rung in rungs], config)
    write_json(out / "ladder.json", table.to_json())
    return table


def train_rung(task: _Task) -> dict[str, Any]:
    """Train one rung in this process and write its result; a diverged run's result is its error."""
    from foretell.train.loop import pretrain

    begun = task.out / "key"
    if begun.is_file() and begun.read_text() != task.key:
        _clear(task.out)
    task.out.mkdir(parents=True, exist_ok=True)
    write_text(begun, task.key)
    try:
        metrics = pretrain(task.rung.recipe, task.pack, task.heldout, task.tokenizer, task.out)
    except TrainingError as error:
        metrics = {"error": str(error), "flops": task.rung.flops, "tokens": task.rung.tokens}
    _clear(task.out / "checkpoints")
    found = {"key": task.key, "seed": task.rung.seed, "data": task.data, "metrics": metrics}
    write_json(task.out / RESULT, found)
    return metrics


def read_ladder(out: Path, names: Sequence[str], config: ForecastConfig) -> LadderTable:
    """The table of trained rungs, with the curve of each.

    Raises ForecastError for a rung that is not there or was trained on other data than the rest, or a kind of document
    that the held-out data do not have.
    """
    rungs, curves, set_to, excluded = [], {}, {}, []
    settings: dict[str, str] = {}
    for name in names:
        folder = out / RUNGS / name
        try:
            result = json.loads((folder / RESULT).read_bytes())
        except (OSError, ValueError) as error:
            raise ForecastError(f"{folder} is not trained to its end. Run the ladder again: it goes on.") from error
        metrics = result["metrics"]
        loss = math.nan if "error" in metrics else measured(metrics, config)
        rung = Rung(metrics["flops"], loss, result["seed"], name, metrics.get("parameters"), metrics["tokens"])
        if "error" in metrics:
            excluded.append((rung, metrics["error"]))
            continue
        mine = {key: value[:16] for key, value in result["data"].items()} | {"precision": metrics["precision"]}
        settings = settings or mine
        if unlike := [key for key in mine if mine[key] != settings[key]]:
            raise ForecastError(
                f"{folder} has another {unlike[0]} than the first rung. Delete it and run the ladder again."
            )
        rungs.append(rung)
        # Five decimals are finer than any noise, and half the size of a record.
        curve, schedules = curves_of(folder / "log.jsonl")
        curves[name] = [(round(share, 5), round(loss, 5)) for share, loss in curve]
        set_to[name] = kept(schedules)
    return make_table(_mean_compute(rungs), config.unit, settings | {CURVES: CURVE_UNIT}, curves, excluded, set_to)


def _mean_compute(rungs: list[Rung]) -> list[Rung]:
    """Seeds of one shape at one compute: their data differ by a few image tiles or document ends."""
    by_shape: dict[str, list[float]] = {}
    for rung in rungs:
        by_shape.setdefault(rung.run.rpartition("-")[0], []).append(rung.flops)
    means = {shape: sum(values) / len(values) for shape, values in by_shape.items()}
    return [replace(rung, flops=means[rung.run.rpartition("-")[0]]) for rung in rungs]


def _done(task: _Task) -> bool:
    try:
        return bool(json.loads((task.out / RESULT).read_text())["key"] == task.key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _share(task: _Task) -> float:
    """How far a rung in training is, from the last lines of its log."""
    try:
        with (task.out / "log.jsonl").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 4096))
            lines = stream.read().split(b"\n")
    except OSError:
        return 0.0
    for text in reversed(lines):
        try:
            line = json.loads(text)
            if line["event"] == "train":
                return min(1.0, float(line["tokens"]) / task.rung.tokens)
        except (ValueError, KeyError, TypeError):
            continue
    return 0.0


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
