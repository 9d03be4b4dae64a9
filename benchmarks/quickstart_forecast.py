"""The quickstart's forecast of its own final loss, over five seeds: how often its interval holds the outcome.

    python benchmarks/quickstart_forecast.py [--folder DIR] [--seeds N]

Runs the recipe quickstart up to its outcome with seeds 0, 1, … (seven minutes each on two cores): data, tokenizer,
ladder and target are all drawn anew. With --folder a set that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import figure, write_result
from foretell.cli import draw
from foretell.errors import ForetellError
from foretell.pipeline import run_recipe
from foretell.recipes import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the runs here, and go on from what lies there")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    outcomes, ratios = [], []
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary:
        for seed in range(options.seeds):
            folder = (options.folder or Path(temporary)) / f"seed-{seed}"
            try:
                with draw.progress() as report:
                    done = run_recipe(load_recipe("quickstart", [f"seed={seed}"]), folder, "outcome", report)
            except ForetellError as error:
                sys.exit(f"Error: {error}")
            outcomes.append(done["outcome"]["metrics"])
            ratios.append(done["ladder"]["metrics"]["compute_ratio"])
            print(json.dumps(outcomes[-1]), flush=True)
    figures = {
        "seeds": figure(len(outcomes), "seeds"),
        "seeds_covered": figure(sum(outcome["covered"] for outcome in outcomes), "outcomes in their 90 % interval", 4),
        "error_pct": figure([100 * abs(outcome["error"]) for outcome in outcomes], "% of the final loss"),
        "interval_pct": figure(
            [50 * (outcome["high"] - outcome["low"]) / outcome["value"] for outcome in outcomes], "% to either side"
        ),
        "compute_ratio": figure(ratios, "x, target over largest rung", 30),
    }
    print(json.dumps(figures, indent=2))
    print(write_result("quickstart_forecast", "python benchmarks/quickstart_forecast.py", figures))


if __name__ == "__main__":
    main()
