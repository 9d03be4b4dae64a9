"""The larger recipe on real material: bits per byte on held-out textbooks, books and documentation.

    FORETELL_DATA=FOLDER python benchmarks/textbooks.py [--run DIR]

Runs textbooks-cpu, or reads a finished run of it; without FORETELL_DATA it says so and ends. `val_bits_per_byte` is
over the held-out text of the three Parquet sources together, the generated world left out. `minutes` is the whole
run from its command to its end; of a run that was finished earlier, its stages' times added up.
"""

from __future__ import annotations

import math
import os

from common import figure
from foretell.recipe import ParquetSource
from foretell.recipes import load_recipe
from runs import Figures, FinishedRun, benchmark, cost


def measure(run: FinishedRun) -> Figures:
    names = [source.name for source in load_recipe(run.folder).data.sources if isinstance(source, ParquetSource)]
    by_kind = run.examined()["text"]["by_kind"]
    texts = {name: by_kind[name] for name in names}
    bits = {name: text["loss"] * text["tokens"] / math.log(2) for name, text in texts.items()}
    size = sum(bits[name] / text["bits_per_byte"] for name, text in texts.items())
    figures = {
        "val_bits_per_byte": figure(sum(bits.values()) / size, "bits per byte"),
        "minutes": figure((run.seconds or run.stage_seconds) / 60, "min"),
        "tokens": figure(run.manifest("pretrain")["metrics"]["tokens"], "tokens trained on"),
    }
    for name, text in texts.items():
        unit = f"bits per byte over {text['tokens']} tokens"
        figures[f"val_bits_per_byte_{name}"] = figure(text["bits_per_byte"], unit)
    return figures | cost(run)


if __name__ == "__main__":
    if "FORETELL_DATA" in os.environ:
        benchmark("textbooks-cpu", measure, {"val_bits_per_byte", "minutes", "tokens"}, __doc__)
    else:
        print("textbooks was left out: FORETELL_DATA names no folder that holds corpus/*.parquet.")
