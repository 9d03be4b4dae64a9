"""How many held-out programs a run gets right, foretold from its ladder: the whole of it, in one command.

    python benchmarks/forecast_capability.py [--folder DIR] [--workers N]

Trains the ladder of programs-cpu, draws from each rung, registers the loss, the pass rate of six difficulty buckets and
the mean pass rate in one record, and only then trains the target, asks it the same, and notes what came of it. The
result is written whatever it is; the bundle and the page lie in benchmarks/results/forecasts. With --folder a run that
was cut off goes on. --rehearse takes a target of minutes, easier problems, and keeps its results in the folder.

Vocabulary, kinds of value and learning rate were chosen on other seeds and problems, on models of width 48 and less: at
9e10 and 3e11 FLOPs these passed 2 and 33 % of draws on grade 3, none and 2 % on grade 6. Written before the target
was first run: its mean pass rate is expected between 0.85 and 0.99, with at least five of six buckets inside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, figure, write_result
from foretell.cli.draw import progress
from foretell.errors import ForetellError
from foretell.files import write_text
from foretell.forecast.buckets import MEAN
from foretell.forecast.chart import forecast_page
from foretell.forecast.ledger import RECORDS
from foretell.forecast.register import LOSS, Record, bundle
from foretell.pipeline import run_recipe
from foretell.pipeline.capability import compare_capability, exam_of, foretell_capability, write_page
from foretell.recipes import load_recipe

EXAM: dict[str, Any] = {"grades": (3, 4, 5, 6), "per_grade": 40, "seed": 0, "wanted": 40}
REHEARSED = (
    "model.width=64",
    "model.q_heads=2",
    "train.tokens=1250000",
    "train.batch_tokens=768",
    "data.tokens=1250000",
    "data.heldout_tokens=20000",
    "data.sources.0.documents=16000",
    "forecast.widths=[24,28,32,36,40]",
    "forecast.seeds=[1,2]",
)
REHEARSED_EXAM: dict[str, Any] = {"grades": (3, 4), "per_grade": 12, "seed": 1, "most": 300}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on from what lies there")
    parser.add_argument("--workers", type=int, help="processes of ladder and sampling; default one a core")
    parser.add_argument("--rehearse", action="store_true", help="a small target; results stay in the folder")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary:
            run(options.folder or Path(temporary), options.rehearse, options.workers)
    except ForetellError as error:
        sys.exit(f"Error: {error}")


def run(folder: Path, rehearse: bool, workers: int | None) -> None:
    began, fresh = time.perf_counter(), not (folder / "run").exists()
    recipe = load_recipe("programs-cpu", REHEARSED if rehearse else ())
    results = folder if rehearse else RESULTS
    with progress() as report:
        run_recipe(recipe, folder / "run", "ladder", report, workers=workers)
        if not (folder / "run" / "pretrain").exists():
            exam = exam_of(recipe, **(REHEARSED_EXAM if rehearse else EXAM))
            foretell_capability(
                folder / "run", recipe, exam, buckets=2 if rehearse else 6, workers=workers, report=report
            )
        run_recipe(recipe, folder / "run", "pretrain", report)
        record, _ = compare_capability(folder / "run", recipe, workers=workers, report=report)
    records = results / "forecasts"
    bundle(folder / "run" / RECORDS / record.name, records / f"{Path(record.name).stem}.bundle.json")
    write_page(folder / "run", record, records / f"{Path(record.name).stem}.html")
    loss_page = forecast_page(record.forecast(), record.table(), record=record)
    write_text(records / f"{Path(record.name).stem}-loss.html", loss_page)
    figures = figures_of(record)
    if fresh:
        figures["minutes"] = figure((time.perf_counter() - began) / 60, "min, all of this command")
    for name, value in figures.items():
        print(f"{name}: {value['value']} {value['unit']}")
    print(write_result("forecast_capability", "python benchmarks/forecast_capability.py", figures, results))


def figures_of(record: Record) -> dict[str, dict[str, Any]]:
    outcomes = {outcome.claim.name: outcome for outcome in record.outcomes}
    buckets = [outcome for name, outcome in outcomes.items() if name not in (LOSS, MEAN)]
    mean, loss, rungs = outcomes[MEAN], outcomes[LOSS], record.table().rungs
    missed = 100.0  # a diverged target, or one that passed nothing
    figures = {
        "compute_ratio": figure(record.target / rungs[-1].flops, "x", 50),
        "buckets": figure(len(buckets), "difficulty buckets", 6),
        "buckets_covered": figure(sum(outcome.hit for outcome in buckets), "outcomes inside their 90 % interval", 5),
        "mean_pass_rel_error_pct": figure(
            missed if mean.error is None else 100 * abs(mean.error), "% of the mean pass rate", 5
        ),
        "mean_pass": figure(mean.measured or 0.0, "mean pass rate of the target"),
        "mean_pass_forecast": figure(mean.claim.value, "forecast", interval=(mean.claim.low, mean.claim.high)),
        "mean_pass_covered": figure(int(mean.hit), "1 if the interval holds the outcome"),
        "loss_error_pct": figure(missed if loss.error is None else 100 * abs(loss.error), "% of final loss"),
        "loss_covered": figure(int(loss.hit), "1 if the interval holds the outcome"),
        "target_flops": figure(record.target, "FLOPs"),
        "runs": figure(len(rungs), "runs in the ladder"),
    }
    for i, outcome in enumerate(buckets):
        claim = outcome.claim
        said = figure(claim.value, "nats, -E[log pass rate], forecast", interval=(claim.low, claim.high))
        figures[f"bucket_{i + 1}_forecast"] = said
        if outcome.measured is not None:
            figures[f"bucket_{i + 1}"] = figure(outcome.measured, "nats, -E[log pass rate], measured")
    return figures


if __name__ == "__main__":
    main()
