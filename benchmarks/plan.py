"""What `foretell forecast plan --cluster` says, beside training steps of this machine, finished runs, published runs.

Three recipes are timed to fit this machine's curve; then recipes of other widths, depths, lengths and vocabularies are
planned, and each is trained for a few steps in a process of its own: its step time and its peak memory are compared
with the plan's. With --runs FOLDER ... finished pre-training runs below those folders are planned and compared as well,
where they ran with as many threads and as fast products as are found here. About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, figure, write_result
from foretell.data.tokenizer import Tokenizer
from foretell.files import write_text
from foretell.forecast.cluster import Cluster
from foretell.forecast.estimate import estimate
from foretell.forecast.footprint import memory, micro_rows
from foretell.forecast.here import here
from foretell.forecast.job import Job, Layout
from foretell.forecast.ladder import data_shape
from foretell.forecast.rungs import DataShape, with_vocabulary
from foretell.recipe import Recipe
from foretell.recipes import load_recipe
from plan_published import leave_out, read_runs, table
from plan_table import published_page

TEXT = ("model.vision=null", "forecast=null", "align=null")
FITTED_TO = (
    ("model.width=64", "model.depth=4", "train.batch_tokens=4096"),
    ("model.width=160", "model.depth=4", "train.batch_tokens=4096"),
    ("model.width=320", "model.depth=4", "train.batch_tokens=4096"),
)
TRIED = {
    "narrow": ("model.width=96", "model.depth=6", "train.batch_tokens=4096"),
    "deep": ("model.width=128", "model.depth=12", "train.batch_tokens=4096"),
    "wide": ("model.width=448", "model.depth=3", "train.batch_tokens=4096"),
    "long": ("model.width=192", "model.depth=4", "data.sequence_length=1024", "model.max_length=1024",
             "train.batch_tokens=4096"),
    "vocabulary": ("model.width=192", "model.depth=3", "tokenizer.vocab_size=16384", "train.batch_tokens=4096"),
    "accumulated": ("model.width=256", "model.depth=4", "train.batch_tokens=8192", "train.micro_batch=8"),
}  # fmt: skip
CONTEXT = 128.5  # positions that a query sees
ROUNDS = 3
MEMORY_AIM = 10.0
NEAR = 0.15  # how far the rate of a finished run's products may be from what is found here
LEAST = 60.0  # seconds of a run that is compared

CHILD = """
import json, re, sys
import torch
from foretell.forecast.footprint import micro_rows, resident, take_steps
from foretell.forecast.rungs import DataShape, scaled
from foretell.recipes import load_recipe
overrides, context, rounds = json.loads(sys.argv[1])
recipe, data = load_recipe("quickstart", overrides), DataShape(context)
take_steps(scaled(recipe, 32), 1, data, "bfloat16", "cpu")
held = resident("cpu")
first = take_steps(recipe, micro_rows(recipe), data, "bfloat16", "cpu")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
speeds = [first, *(take_steps(recipe, micro_rows(recipe), data, "bfloat16", "cpu") for _ in range(rounds - 1))]
print(json.dumps([held, 1024 * int(peak[1]), min(s.step(recipe.train.batch_tokens) for s in speeds)]))
"""


def shape(overrides: Sequence[str]) -> tuple[Recipe, DataShape]:
    return load_recipe("quickstart", [*TEXT, *overrides]), DataShape(CONTEXT)


def steps(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Planned and measured seconds of a step and bytes at its peak, of each recipe that the curve has not seen."""
    for name, overrides in TRIED.items():
        recipe, data = shape(overrides)
        words = json.dumps([[*TEXT, *overrides], CONTEXT, ROUNDS])
        done = subprocess.run([sys.executable, "-c", CHILD, words], capture_output=True, text=True, check=True)
        held, peak, seconds = json.loads(done.stdout.splitlines()[-1])
        found = estimate(Job.of(recipe, data), Layout(rows=micro_rows(recipe)), cluster)
        planned = memory(recipe, data, held, "bfloat16", "cpu").total
        yield {"name": name, "seconds": [seconds, found.step.total], "memory": [peak, planned]}


def finished(folders: Sequence[Path], cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Seconds of pre-training, logged and planned, of finished runs that this machine made undisturbed."""
    import torch

    rate = next(iter(cluster.flops.values()))
    for folder in sorted({log.parent.parent for root in folders for log in root.rglob("pretrain/log.jsonl")}):
        events = [json.loads(line) for line in (folder / "pretrain" / "log.jsonl").read_text().splitlines()]
        ends = [event for event in events if event.get("event") == "end"]
        if not ends or not (folder / "recipe.yaml").is_file() or any(e.get("event") == "resume" for e in events):
            continue
        end = ends[-1]
        alike = end["threads"] == torch.get_num_threads() and end["precision"] == next(iter(cluster.flops))
        if not alike or abs(end["matmul_rate"] / rate - 1) > NEAR or end["seconds"] < LEAST or end["compile"]:
            continue
        if not (folder / "pack" / "train" / "index.json").is_file():
            continue
        vocabulary = Tokenizer.load(folder / "tokenizer").vocab_size
        recipe = with_vocabulary(load_recipe(folder), vocabulary)
        job = replace(Job.of(recipe, data_shape(folder / "pack" / "train")), tokens=end["tokens"])
        found = estimate(job, Layout(rows=micro_rows(recipe)), cluster)
        yield {"name": folder.name, "seconds": [end["seconds"], found.seconds]}


def errors(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Of the planned values, in percent of the measured ones."""
    return [100 * (planned / measured - 1) for measured, planned in pairs]


def absolute(signed: Sequence[float]) -> dict[str, Any]:
    """The median of the errors' sizes, with the least and largest error as its spread."""
    return figure(statistics.median(map(abs, signed)), "%", interval=(min(signed), max(signed)))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=Path, nargs="*", default=[], help="folders with finished runs")
    options.add_argument("--results", type=Path, default=RESULTS, help="write here instead of benchmarks/results")
    given = options.parse_args()
    recipe, data = shape(FITTED_TO[1])
    cluster = here(recipe, data, [shape(overrides)[0] for overrides in FITTED_TO])
    print(f"{cluster.flops} FLOP/s, {cluster.bandwidth:.3g} bytes/s, {cluster.curve}", flush=True)
    tried = []
    for one in steps(cluster):
        tried.append(one)
        (seconds, planned), (peak, counted) = one["seconds"], one["memory"]
        print(
            f"{one['name']:12} step {seconds:.3f} s, planned {planned:.3f} ({planned / seconds - 1:+.1%}); "
            f"peak {peak / 1e6:.0f} MB, planned {counted / 1e6:.0f} ({counted / peak - 1:+.1%})",
            flush=True,
        )
    figures = {
        "plan_time_error_pct": absolute(errors([one["seconds"] for one in tried])),
        "plan_memory_error_pct": absolute(errors([one["memory"] for one in tried])) | {"aim": MEMORY_AIM},
    }
    runs = list(finished(given.runs, cluster))
    for one in runs:
        print(f"{one['name']:12} {one['seconds'][0]:.0f} s, planned {one['seconds'][1]:.0f}")
    if runs:
        figures["run_time_error_pct"] = absolute(errors([one["seconds"] for one in runs]))
        figures["runs"] = figure(len(runs), "finished runs")
    published = read_runs()
    curve, left = leave_out(published)
    signed = [100 * math.expm1(left[run.name]) for run in published if run.said.get("fit", True)]
    figures |= {
        "published_time_error_pct": absolute(signed),
        "published_runs": figure(len(signed), "runs of published figures"),
        "published_within_25_pct": figure(100 * sum(abs(error) <= 25 for error in signed) / len(signed), "% of them"),
        "published_range": figure(1.0, "x the planned time, eight of ten", interval=curve.range),
    }
    path = write_result("plan", f"python benchmarks/plan.py{' --runs …' if given.runs else ''}", figures, given.results)
    write_text(path.with_suffix(".html"), published_page(table(published, curve, left), curve, tried, runs))
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
