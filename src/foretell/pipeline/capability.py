"""Pass rates of a run foretold from its ladder, in one record with its loss, and compared when the run is done.

The exam, the buckets and their laws lie in the run's folder `capability`; the record names their SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell.errors import ForecastError
from foretell.files import sha256_file, write_json, write_text
from foretell.forecast.buckets import Capability, capability_page, fit_capability
from foretell.forecast.ledger import RECORDS
from foretell.forecast.passing import Exam, sit
from foretell.forecast.rungs import measured as measured_loss
from foretell.measure.fanout import Where
from foretell.pipeline import forecasting
from foretell.recipe import ForecastConfig, Recipe, WorldSource
from foretell.run import Report, read_manifest, silent

if TYPE_CHECKING:
    from foretell.forecast.register import Record

FOLDER, FILE = "capability", "capability.json"
SORTING_DRAWS = 300  # a problem and model: enough to sort, and no more are used up


def exam_of(recipe: Recipe, **changes: Any) -> Exam:
    """The exam on a recipe's own kind of programs: those of its world source, and their grades."""
    worlds = [s for s in recipe.data.sources if isinstance(s, WorldSource) and "programs" in (s.kinds or {"programs"})]
    if not worlds:
        raise ForecastError("The recipe has no world source of programs, so its models write none. Add kind programs.")
    options = worlds[0].options.get("programs", {})
    known: dict[str, Any] = {key: options[key] for key in ("values", "constants") if key in options}
    known["grades"] = tuple(range(1, options.get("grades", 6) + 1))
    return Exam(**known | changes)


def foretell_capability(
    run_dir: Path,
    recipe: Recipe,
    exam: Exam,
    *,
    buckets: int = 6,
    workers: int | None = None,
    on: Where = "local",
    report: Report = silent,
) -> tuple[Record, Capability]:
    """Ask the ladder of a run, and register its loss and pass rates in one record; it is the one the run will use.

    Of widths with several seeds the last seed sorts the problems into buckets and is not fitted; without such, all
    models sort with draws of their own. Raises ForecastError where the ladder is not trained, or the run has begun.
    """
    from foretell.forecast.fitting import fit
    from foretell.forecast.ladder import read_ladder
    from foretell.forecast.register import STOP_RULE

    folder, ladder = run_dir / FOLDER, read_manifest(run_dir / "ladder")
    if ladder is None:
        raise ForecastError(f"{run_dir} has no finished ladder. Train it with: foretell forecast ladder {run_dir}.")
    if (run_dir / "pretrain" / "log.jsonl").exists():
        raise ForecastError(f"The run in {run_dir} has begun; a forecast counts only if it was made before.")
    settings, target = recipe.forecast or ForecastConfig(), float(ladder["metrics"]["target_flops"])
    table = read_ladder(run_dir / "ladder", ladder["metrics"]["rungs"], settings)
    flops = {str(rung.run): rung.flops for rung in table.rungs}
    places = {name: run_dir / "ladder" / "rungs" / name / "checkpoint" for name in flops}
    sorters, fitted = split_seeds(list(flops))
    sorting = replace(exam, draws=exam.draws + 1, most=min(exam.most, SORTING_DRAWS))
    ask = partial(sit, workers=workers, on=on, report=report)
    first = ask({name: places[name] for name in sorters}, sorting, folder / "sort")
    told = ask({name: places[name] for name in fitted}, exam, folder / "fit")
    found = fit_capability(list(first.values()), [(flops[name], tallies) for name, tallies in told.items()], buckets)
    points = [[flops[name], found.losses_of(tallies)] for name, tallies in told.items()]
    write_json(folder / FILE, {"exam": asdict(exam), "rungs": points, **asdict(found)})
    forecast = fit(table, floor=settings.floor, target=target, precision=settings.precision)
    rule = f"{STOP_RULE} Pass rates: the problems, buckets and draws of {FILE}, SHA-256 {_digest(folder)}."
    claims = found.claims(target, settings.level)
    return forecasting.new_record(run_dir, recipe, table, forecast, target, capabilities=claims, stop_rule=rule), found


def compare_capability(
    run_dir: Path, recipe: Recipe, *, workers: int | None = None, on: Where = "local", report: Report = silent
) -> tuple[Record, dict[str, float]]:
    """Ask the finished run what its ladder was asked, and note the outcome of each claim, the loss included."""
    from foretell.forecast.register import LOSS, verify

    folder, pretrain = run_dir / FOLDER, read_manifest(run_dir / "pretrain")
    if pretrain is None:
        raise ForecastError(f"The run in {run_dir} is not finished. Train it with: foretell run {run_dir}.")
    if not (folder / FILE).is_file():
        raise ForecastError(
            f"No pass rates were forecast for {run_dir}, and a forecast counts only if it was made before. In a "
            "new folder: foretell forecast ladder, then foretell forecast capability, then foretell run."
        )
    record = forecasting.usable(run_dir, recipe, forecasting.first_step(run_dir / "pretrain" / "log.jsonl"))
    if _digest(folder) not in record.raw["stop_rule"]:
        raise ForecastError(
            f"{folder / FILE} is not the one that {record.name} was registered with. Take it from a copy."
        )
    exam, _, found = read_capability(run_dir)
    target = {"target": run_dir / "pretrain" / "checkpoint"}
    tallies = sit(target, exam, folder / "outcome", workers=workers, on=on, report=report)
    measured = found.outcomes(tallies["target"])
    loss = measured_loss(pretrain["metrics"], recipe.forecast or ForecastConfig())
    if not any(outcome.claim.name != LOSS for outcome in record.outcomes):
        record = verify(run_dir / RECORDS / record.name, loss, measured)
    return record, measured


def read_capability(run_dir: Path) -> tuple[Exam, list[tuple[float, list[float]]], Capability]:
    """What `foretell_capability` wrote: the exam, each fitted model's FLOPs and −E[log p] by bucket, and the laws."""
    raw = json.loads((run_dir / FOLDER / FILE).read_bytes())
    exam = raw["exam"]
    rungs = [(float(flops), [float(value) for value in values]) for flops, values in raw["rungs"]]
    return Exam(**exam | {"grades": tuple(exam["grades"])}), rungs, Capability.from_json(raw)


def write_page(run_dir: Path, record: Record, path: Path) -> None:
    """The figure of the buckets, with what the record says of them."""
    _, rungs, found = read_capability(run_dir)
    write_text(path, capability_page(found, rungs, record))


def split_seeds(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Models that sort the problems, and models that are fitted; a name ends in "-s" and its seed."""
    seeds: dict[str, list[str]] = {}
    for name in names:
        seeds.setdefault(name.rpartition("-")[0], []).append(name)
    last = [same[-1] for same in seeds.values() if len(same) > 1]
    return (last, [name for name in names if name not in last]) if last else (list(names), list(names))


def _digest(folder: Path) -> str:
    return sha256_file(folder / FILE)
