"""How time and memory grow from 1x to 64x: with the model, the batch, the context, and the data, each alone.

    python benchmarks/growth.py [--axes model batch context data] [--largest 64]

Each point is a process of its own. Of a training step (bfloat16 where the processor multiplies it, one document a row,
no accumulation) the time is the median of three after one that warms up, and memory the peak beyond what the process
held before the model was made; data is what tokenising, packing and reading it once takes, with shards of 1 MB in place
of 64, so that memory is seen beyond the one that is being written. An exponent is the slope of
a straight line through the logarithms; beside it stands that of the last decade, where what every step costs alike
counts no more. Expected exponents are fitted to counts at the same points: FLOPs (matrix products, causal attention,
head), and the bytes that `forecast.footprint` plans. The curves are drawn in results/growth.html.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from common import RESULTS, figure, write_result
from foretell.forecast.footprint import memory
from foretell.forecast.rungs import DataShape
from foretell.model.describe import training_flops
from foretell.recipe import PythonSource, Recipe
from foretell.recipes import check_recipe

GROWTH = (1, 2, 4, 8, 16, 32, 64)
WIDTHS = (64, 96, 128, 192, 256, 384, 512)  # whose squares grow from 1 to 64
AXES = ("model", "batch", "context", "data")
UNITS = {"model": "parameters of the blocks", "batch": "rows", "context": "positions of a row", "data": "bytes of text"}
TEXT = 250_000  # bytes of text at 1x
LEAST = 1e6  # bytes, below which memory is not told apart
ABOVE = 0.1  # by which an exponent is told to be above the expected one
Point = dict[str, float]


def recipe_of(axis: str, step: int) -> Recipe:
    """The recipe of one point; every other number stays as it is."""
    width, rows, length = 128, 4, 256
    if axis == "model":
        width, rows = WIDTHS[step], 8
    elif axis == "batch":
        rows = GROWTH[step]
    elif axis == "context":
        length = 64 * GROWTH[step]
    model = {"width": width, "depth": 6 if axis == "model" else 4, "head_dim": 32, "max_length": length}
    raw = {
        "name": f"{axis}-{step}",
        "data": {"sources": [{"kind": "python"}], "sequence_length": length},
        "tokenizer": {"vocab_size": 512},
        "model": model,
        "train": {"tokens": rows * length, "batch_tokens": rows * length, "micro_batch": rows},
    }
    return check_recipe(raw)


def train_point(recipe: Recipe) -> Point:
    """Seconds and bytes of a training step, and what was to be expected."""
    import torch

    from foretell.forecast.footprint import take_steps
    from foretell.train.setup import pick_precision

    data = DataShape((recipe.data.sequence_length + 1) / 2)
    precision = pick_precision("auto", torch.device("cpu"))
    small = check_recipe(recipe.model_dump(mode="json") | {"model": {"width": 32, "depth": 1, "max_length": 4096}})
    take_steps(small, 1, data, precision, "cpu")  # what libraries keep of their own is there now
    before = reset_peak()
    batch = recipe.train.batch_tokens
    speed = take_steps(recipe, batch // recipe.data.sequence_length, data, precision, "cpu")
    used = peak() - before
    planned = memory(recipe, data, 0.0, precision, "cpu")
    config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    return {
        "seconds": speed.step(batch),
        "bytes": used,
        "expected_seconds": training_flops(config, batch, context=data.context),
        "expected_bytes": planned.total,
    }


def data_point(factor: int) -> Point:
    """Seconds and bytes of tokenising and packing so much text, and of reading it once."""
    from foretell.data import shards
    from foretell.data.document import SkipCount
    from foretell.data.loader import Loader
    from foretell.data.pack import PackSource, pack
    from foretell.data.sources import read_source
    from foretell.data.tokenizer import train_tokenizer
    from foretell.recipe import TokenizerConfig
    from foretell.template import Template

    shards.SHARD_BYTES = 1_000_000

    def documents(size: int) -> Any:
        return read_source(PythonSource(max_bytes=size), "train", 0, SkipCount())

    sample = ("\n".join(s.text for s in d.segments if s.text) for d in documents(400_000))
    tokenizer = train_tokenizer(sample, TokenizerConfig(vocab_size=512), 1)
    size = TEXT * factor
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def work(out: Path, wanted: int) -> None:
            # Where the installation holds less text, it is read again.
            stream = (d for _ in cycle([0]) for d in documents(wanted))
            tokens = wanted // 3
            pack({"python": PackSource(lambda: stream, 1.0)}, Template(tokenizer, None), tokenizer, out, 256, tokens)
            loader = Loader(out, 8, 0)
            for _ in islice(loader, tokens // 256 // 8):
                pass
            loader.close()

        work(folder / "warm", 60_000)
        before = reset_peak()
        began = time.perf_counter()
        work(folder / "pack", size)
        seconds = time.perf_counter() - began
    used = max(peak() - before, LEAST)
    return {"seconds": seconds, "bytes": used, "expected_seconds": size, "expected_bytes": LEAST}


def reset_peak() -> float:
    """Bytes resident now, from which on the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x by least squares."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    return statistics.linear_regression(a, b).slope


def measure(axis: str, step: int) -> Point:
    command = [sys.executable, __file__, "--point", axis, str(step)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def size_of(axis: str, step: int) -> float:
    if axis == "model":
        model = recipe_of(axis, step).model
        return model.depth * (4 * model.width**2 + 3 * model.width * model.ffn_width)
    return {"batch": 1, "context": 64, "data": TEXT}[axis] * GROWTH[step]


def summarise(axis: str, sizes: list[float], points: list[Point]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind in ("seconds", "bytes"):
        found = [point[kind] for point in points]
        wanted = [point[f"expected_{kind}"] for point in points]
        name = {"seconds": "time", "bytes": "memory"}[kind]
        last = slice(-4, None)  # eightfold, nearly a decade
        expected = exponent(sizes[last], wanted[last])
        of = f"of {name} over {UNITS[axis]}"
        figures[f"{axis}_{name}_exponent"] = figure(exponent(sizes, found), f"{of}, all points")
        figures[f"{axis}_{name}_exponent_large"] = figure(
            exponent(sizes[last], found[last]), f"{of}, last eightfold", round(expected, 3)
        )
        scale = 1e3 if kind == "seconds" else 1e-6
        figures[f"{axis}_{name}_1x"] = figure(found[0] * scale, "ms" if kind == "seconds" else "MB")
        figures[f"{axis}_{name}_{GROWTH[len(found) - 1]}x"] = figure(
            found[-1] * scale, "ms" if kind == "seconds" else "MB"
        )
    return figures


def drawn(found: dict[str, list[Point]]) -> str:
    """The page: for each of time and memory, all axes in one chart, relative to 1x."""
    from foretell.pages import Series, line_chart, page, section

    sections = []
    for kind, title in (("seconds", "Time"), ("bytes", "Memory")):
        series = []
        for colour, (axis, points) in enumerate(found.items()):
            x = [float(f) for f in GROWTH[: len(points)]]
            series.append(Series(axis, x, [p[kind] / points[0][kind] for p in points], "both", colour))
            wanted = [p[f"expected_{kind}"] / points[0][f"expected_{kind}"] for p in points]
            series.append(Series(f"{axis}, expected", x, wanted, "faint", colour))
        chart = line_chart(
            series,
            title=f"{title}, as a multiple of that at 1x",
            x_label="times the size at 1x",
            y_label="times the cost at 1x",
            x_log=True,
            y_log=True,
        )
        sections.append(section(title, chart))
    lead = "Dots are measured, each axis alone; thin lines of the same colour are what counting expects."
    return page("How cost grows", sections, kicker="Foretell benchmark", lead=lead)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--largest", type=int, choices=GROWTH[3:], default=64)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        axis, step = options.point[0], int(options.point[1])
        work: Callable[[], Point] = (
            (lambda: data_point(GROWTH[step])) if axis == "data" else (lambda: train_point(recipe_of(axis, step)))
        )
        print(json.dumps(work()))
        return
    steps = range(GROWTH.index(options.largest) + 1)
    found: dict[str, list[Point]] = {}
    figures: dict[str, Any] = {}
    for axis in options.axes:
        found[axis] = []
        for step in steps:
            found[axis].append(point := measure(axis, step))
            print(f"{axis:8} {GROWTH[step]:3}x {point['seconds']:9.4f} s {point['bytes'] / 1e6:9.1f} MB", flush=True)
        sizes = [size_of(axis, step) for step in steps]
        figures |= summarise(axis, sizes, found[axis])
        for name in ("time", "memory"):
            large = figures[f"{axis}_{name}_exponent_large"]
            note = "   above" if large["value"] > large["aim"] + ABOVE else ""
            print(f"  {name:7} exponent {large['value']:6.3f}, expected {large['aim']:6.3f}{note}", flush=True)
    if set(options.axes) == set(AXES) and options.largest == GROWTH[-1]:
        from foretell.files import write_text

        write_text(RESULTS / "growth.html", drawn(found))
        print(write_result("growth", "python benchmarks/growth.py", figures))


if __name__ == "__main__":
    main()
