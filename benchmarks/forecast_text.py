"""The loss of a run on real text, forecast from rungs with at most 1/50 of its compute, registered and verified.

    python benchmarks/forecast_text.py [--folder DIR] [--recipe RECIPE]

Runs the recipe text-cpu: prose and documentation from the Parquet files in $FORETELL_DATA, a ladder in width, the
record, then the target (more than an hour on two cores) and its outcome, in bits per byte of held-out text. A run that
was cut off goes on with the same --folder. The result is written whatever it is, and the record's bundle and page
beside it in benchmarks/results/forecasts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from common import RESULTS, figure, write_result
from foretell.cli import draw
from foretell.errors import ForetellError
from foretell.forecast.ledger import RECORDS
from foretell.forecast.register import Record, bundle, read
from foretell.pipeline import run_recipe
from foretell.recipes import load_recipe

PRESET = "text-cpu"


def is_free(path: Path, record: Record) -> bool:
    """Whether a bundle may be written there: earlier forecasts, hits and misses, stay."""
    return not path.exists() or json.loads(path.read_text())["record"]["utc"] == record.utc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs") / PRESET, help="run directory")
    parser.add_argument("--recipe", default=PRESET, help="another one, to try the benchmark; then nothing is committed")
    options = parser.parse_args()
    try:
        with draw.progress() as report:
            done = run_recipe(load_recipe(options.recipe), options.folder, "outcome", report)
        record = read(options.folder / RECORDS / done["outcome"]["metrics"]["record"])
        out = RESULTS / "forecasts" if options.recipe == PRESET else options.folder
        out.mkdir(parents=True, exist_ok=True)
        name = next(f"text-{n:02d}" for n in range(1, 100) if is_free(out / f"text-{n:02d}.json", record))
        bundle(record.ledger / record.name, out / f"{name}.json")
        shutil.copyfile(options.folder / "outcome" / "index.html", out / f"{name}.html")
    except ForetellError as error:
        sys.exit(f"Error: {error}")
    claim, outcome = record.claims[0], record.outcomes[0]
    largest = max(rung.flops for rung in record.table().rungs)
    train = done["pretrain"]["metrics"]
    ladder = done["ladder"]
    figures = {
        "compute_ratio": figure(record.target / largest, "x, target over largest rung", 50),
        "error_pct": figure(abs(outcome.error or 0) * 100, "% of the final loss", 2),
        "covered": figure(int(outcome.hit), "1 if the 90 % interval holds the outcome", 1),
        "interval_pct": figure(50 * (claim.high - claim.low) / claim.value, "% to either side"),
        "target_flops": figure(train["flops"], "FLOPs"),
        "bits_per_byte": figure(outcome.measured or float("nan"), "bits per byte, held out"),
        "target_minutes": figure(train["seconds"] / 60, "min of training", 60),
        "ladder_minutes": figure(ladder["seconds"] / 60, "min"),
        "rungs": figure(len(ladder["metrics"]["rungs"]), "runs of the ladder, seeds included"),
    }
    print(json.dumps(figures, indent=2))
    folder = RESULTS if options.recipe == PRESET else options.folder
    print(write_result("forecast_text", "make bench-forecast_text", figures, folder))


if __name__ == "__main__":
    main()
