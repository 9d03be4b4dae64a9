"""Whole runs of a preset recipe as benchmarks: made now and timed, or finished earlier and read."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import figure, write_result
from foretell.errors import ForetellError
from foretell.pipeline import run_status
from foretell.recipes import load_recipe
from foretell.run import read_manifest

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class FinishedRun:
    """seconds: from the start of the process to its end; peak_rss: bytes, the largest resident set of it and its
    children; both None for a run that was made earlier. stage_seconds: the stages' own times, added up."""

    folder: Path
    stages: int
    stage_seconds: float
    seconds: float | None = None
    peak_rss: int | None = None

    def manifest(self, stage: str) -> dict[str, Any]:
        found = read_manifest(self.folder / stage)
        assert found is not None, "run_status called it done"
        return found

    def examined(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "examine" / "examine.json").read_text(encoding="utf-8")))


def benchmark(preset: str, measure: Callable[[FinishedRun], Figures], wanted: set[str], about: str | None) -> None:
    """What `python benchmarks/<name>.py` does.

    benchmarks/results gets only a finished run of the unchanged preset, and only with every `wanted` figure; --results
    takes anything.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="read this finished run instead of making one")
    parser.add_argument("--results", type=Path, help="write here instead of benchmarks/results, also of other recipes")
    parser.add_argument("--recipe", default=preset, help="run this one instead, to try the benchmark")
    options = parser.parse_args()
    name = Path(sys.argv[0]).stem
    try:
        with _made(options.recipe) if options.run is None else _read(options.run) as run:
            figures = measure(run)
            same = run_status(run.folder)[0] == load_recipe(preset)
    except ForetellError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(figures, indent=2))
    if options.results is None and not same:
        print(f"Not written: the run's settings are not those of {preset} (see foretell recipe show).")
    elif options.results is None and (missing := sorted(wanted - figures.keys())):
        print(f"Not written: {', '.join(missing)} cannot be told from a run made earlier.")
    else:
        print(write_result(name, f"python benchmarks/{name}.py", figures, options.results))


@contextmanager
def _made(recipe: str) -> Iterator[FinishedRun]:
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as folder:
        out = Path(folder) / "run"
        program = str(Path(sys.executable).with_name("foretell"))
        began = time.perf_counter()
        process = os.posix_spawn(program, [program, "run", recipe, "--out", str(out)], os.environ)
        try:
            _, status, usage = os.wait4(process, 0)
        except KeyboardInterrupt:  # the run has it too, and ends by itself
            os.waitpid(process, 0)
            raise
        seconds = time.perf_counter() - began
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"foretell run {recipe} ended with exit code {code}; nothing was written.")
        with _read(out) as run:
            unit = 1 if sys.platform == "darwin" else 1024
            yield FinishedRun(out, run.stages, run.stage_seconds, seconds, usage.ru_maxrss * unit)


@contextmanager
def _read(folder: Path) -> Iterator[FinishedRun]:
    _, stages = run_status(folder)
    unfinished = [f"{stage.name} is {stage.state} ({stage.why})" for stage in stages if stage.state != "done"]
    if unfinished:
        sys.exit(f"{folder} is not a finished run: {'; '.join(unfinished)}. Finish it with: foretell run {folder}")
    yield FinishedRun(folder, len(stages), sum(stage.seconds for stage in stages))


def cost(run: FinishedRun, aim_gb: float | None = None) -> Figures:
    """Memory and the stages' times, as far as they were measured."""
    figures = {"stage_seconds": figure(run.stage_seconds, "s")}
    if run.peak_rss is not None:
        figures["peak_rss_gb"] = figure(run.peak_rss / 1e9, "GB", aim_gb)
    return figures
