"""Two gloo ranks of one thread each beside one rank's share alone: time, memory, and what a checkpoint costs.

    python benchmarks/scale.py [--shape 10m] [--steps 15]

The 10 M shape (T = 512, vocabulary 4,096) is trained by `train.loop.fit` under `parallel: {shard: 2}`, 4 rows a rank.

two_rank_overhead: seconds of a step over (seconds of a step of a single process with the rows of one rank, nothing
beside it, + bytes that a rank receives in a step / the rate of the same collectives of a layer's size, alone). The
update of all parameters is in the single process's step, that of half of them in the two ranks'. side_by_side: the same
for two single processes at a time, which is what the machine, and not the exchange, takes.
ckpt_stall_pct: how much longer the steps around a checkpoint take than the others, of the minute that it is one in;
three checkpoints are written, 20 s apart. plan_memory_error_pct: the larger of both ranks' peak resident memory
against forecast.footprint.memory. Other figures of results/scale.json stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from common import RESULTS, figure, write_result
from foretell.data.loader import PackedBatch
from foretell.forecast.footprint import memory, resident
from foretell.forecast.job import Layout
from foretell.forecast.rungs import DataShape
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, Recipe
from foretell.run import Report, silent
from foretell.train.distributed import Group
from foretell.train.loop import fit
from foretell.train.objective import NextToken
from foretell.train.setup import pick_precision

TIME, ROWS = 512, 4  # of a rank
SHAPES = {
    "tiny": {"width": 32, "depth": 1, "head_dim": 16},
    "1m": {"width": 128, "depth": 4, "head_dim": 32},
    "10m": {"width": 320, "depth": 7, "head_dim": 64},
}
WARM = 3  # steps that are not counted
CHECKPOINTS, APART = 3, 20.0  # how many, and seconds from one to the next


class Rows:
    """The same rows of random tokens for ever, in documents of 256 tokens."""

    idle_seconds, sequence_length = 0.0, TIME

    def __init__(self, rows: int, rank: int) -> None:
        self.rows = rows
        tokens = np.random.default_rng(rank).integers(16, 4096, (rows, TIME + 1))
        index = np.tile(np.arange(TIME), (rows, 1))
        self.batch = PackedBatch(
            tokens[:, :-1].copy(),
            tokens[:, 1:].copy(),
            index % 256,
            (index // 256).astype(np.int32),
            np.zeros((rows, TIME), np.uint8),
            np.zeros((0, 1, 1, 3), np.uint8),
        )

    def __next__(self) -> PackedBatch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def recipe(shape: str, world: int, steps: int) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "scale",
            "data": {"sources": [{"kind": "python"}], "sequence_length": TIME},
            "model": {**SHAPES[shape], "max_length": TIME},
            "train": {
                "tokens": steps * world * ROWS * TIME,
                "batch_tokens": world * ROWS * TIME,
                "micro_batch": ROWS,
                "device": "cpu",
                "checkpoint_minutes": APART / 60,
            },
            "parallel": {"shard": world},
        }
    )


def peak(reset: bool = False) -> int:
    """Largest resident memory of this process since it was last reset, in bytes (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def worker(shape: str, steps: int, checkpoints: int, out: Path) -> None:
    """One process of a run: the seconds of each of its steps and its memory, in out/RANK.json."""
    torch.set_num_threads(1)
    with Group.join() as group:
        chosen = recipe(shape, group.world, steps)
        rates = collectives(chosen.model, group) if group.world > 1 else {}
        # What a first run loads and keeps belongs to the process.
        train("tiny", 2, out / "warm", group, silent, time.monotonic)
        bare = resident("cpu")
        at, held = [time.perf_counter()], [0]

        def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
            if done:
                at.append(time.perf_counter())
            if done == WARM:
                peak(reset=True)
            if done == total:  # before the last checkpoint is copied
                held.append(peak())

        def clock() -> float:
            """Of the first process, by which all save: it ticks APART seconds each time that a checkpoint is due."""
            spent = time.perf_counter() - at[0]
            return APART * sum(spent > WARM + APART * (n + 0.5) for n in range(0 if group.rank else checkpoints))

        train(shape, steps, out / "run", group, report, clock)
        found = {"steps": np.diff(at).tolist(), "peak": held[-1], "bare": bare, **rates}
        (out / f"{group.rank}.json").write_text(json.dumps(found))


def train(shape: str, steps: int, out: Path, group: Group, report: Report, clock: Callable[[], float]) -> None:
    chosen = recipe(shape, group.world, steps)
    fit(
        Multimodal(chosen.model) if group.world == 1 else Multimodal.empty(chosen.model),
        Rows(ROWS, group.rank),
        NextToken(["random"], np.ones(chosen.model.vocab_size)),
        chosen.train,
        out,
        total_steps=steps,
        name="scale",
        seed=0,
        measure=None,
        files={},
        report=report,
        clock=clock,
        group=group,
        parallel=chosen.parallel,
        device=torch.device("cpu"),
    )


def collectives(model: ModelConfig, group: Group) -> dict[str, float]:
    """Bytes a second that a rank receives in an all-gather, and in a reduce-scatter, of a layer."""
    layer = 4 * model.width**2 + 3 * model.width * model.ffn_width
    whole, part = torch.ones(layer), torch.ones(layer // 2)
    kinds = {
        "gather": lambda: dist.all_gather_single(whole, part),
        "scatter": lambda: dist.reduce_scatter_single(part, whole),
    }
    rates = {}
    for name, move in kinds.items():
        spent = []
        for _ in range(12):
            group.wait()
            began = time.perf_counter()
            move()
            spent.append(time.perf_counter() - began)
        rates[name] = 4 * part.numel() / statistics.median(spent[2:])
    return rates


def moved(model: ModelConfig, precision: str) -> tuple[float, float]:
    """Bytes that one of two ranks receives in a step's all-gathers, and in its reduce-scatters.

    Layers are gathered twice, in the compute type; what is in none once; gradients travel in float32.
    """
    layers = model.depth * (4 * model.width**2 + 3 * model.width * model.ffn_width + 2 * model.width)
    root = model.vocab_size * model.width + model.width
    size = 4 if precision == "float32" else 2
    return (2 * size * layers + 4 * root) / 2, 4 * (layers + root) / 2


def launch(world: int, arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([*command, __file__, "--worker", str(out), *arguments], env=environment)


def finish(started: subprocess.Popen[bytes], world: int, out: Path) -> list[dict[str, Any]]:
    if started.wait():
        sys.exit(f"a run of {world} ended with {started.returncode}; what it printed says why")
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]


def stall(steps: list[float], lines: list[dict[str, Any]]) -> list[float]:
    """For each checkpoint, how many seconds longer its steps took than others do, of 60, in percent.

    Its steps are those from its beginning until it was on the disk; the one that ends the run is left out.
    """
    usual = statistics.median(steps[WARM:])
    found = []
    for line in lines[:-1]:
        first = last = line["step"]  # it was begun after this step, which is the time of the next one
        took = line["took"]
        while took > 0 and last < len(steps):
            took, last = took - steps[last], last + 1
        found.append(100 * (sum(steps[first:last]) - usual * (last - first)) / 60)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="10m")
    parser.add_argument("--steps", type=int, default=15, help="counted ones of each timed run")
    parser.add_argument("--checkpoints", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.shape, options.steps, options.checkpoints, options.worker)
        return
    precision = pick_precision("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        base, count = Path(folder), options.steps + WARM
        plain = ["--shape", options.shape, "--steps", str(count)]

        def run(world: int, name: str, arguments: list[str] = plain) -> list[dict[str, Any]]:
            return finish(launch(world, arguments, base / name), world, base / name)

        alone, both = run(1, "alone"), [run(2, f"both-{turn}") for turn in range(2)]
        pair = [launch(1, plain, base / f"beside-{turn}") for turn in range(2)]
        beside = [finish(started, 1, base / f"beside-{turn}")[0] for turn, started in enumerate(pair)]
        rate = {kind: min(rank[kind] for ranks in both for rank in ranks) for kind in ("gather", "scatter")}
        gathered, scattered = moved(recipe(options.shape, 2, count).model, precision)
        transfer = gathered / rate["gather"] + scattered / rate["scatter"]
        share_s = statistics.median(alone[0]["steps"][WARM:])
        steps = [step for ranks in both for step in ranks[0]["steps"][WARM:]]
        crowd = [step / share_s for one in beside for step in one["steps"][WARM:]]
        overhead = [step / (share_s + transfer) for step in steps]
        middle = statistics.quantiles(overhead, n=20)
        print(f"a share alone {share_s:.3f} s, transfer {transfer:.3f} s, two ranks {statistics.median(steps):.3f} s")
        print({kind: f"{value / 1e6:.0f} MB/s" for kind, value in rate.items()})
        needed = round((CHECKPOINTS + 1) * APART / statistics.median(steps)) + WARM
        long = ["--shape", options.shape, "--steps", str(needed), "--checkpoints", str(CHECKPOINTS)]
        saved = run(2, "saved", long)
        log = [json.loads(line) for line in (base / "saved/run/log.jsonl").read_text().splitlines()]
        lines = [line for line in log if line["event"] == "checkpoint"]
        stalls = stall(saved[0]["steps"], lines)
        print("checkpoints:", [{key: line[key] for key in ("step", "took", "stall")} for line in lines], stalls)

    def planned(rank: dict[str, Any], world: int) -> float:
        spread, data = Layout(shard=world, rows=ROWS), DataShape(context=128.5)
        return memory(recipe(options.shape, world, count), data, rank["bare"], precision, "cpu", spread).total

    errors = [100 * abs(rank["peak"] / planned(rank, 2) - 1) for rank in both[0]]
    for name, rank, world in (("alone", alone[0], 1), ("a rank", both[0][0], 2)):
        told = {"bare": rank["bare"], "peak": rank["peak"], "planned": planned(rank, world)}
        print(name, {key: f"{value / 1e6:.0f} MB" for key, value in told.items()})
    figures = {
        "two_rank_overhead": figure(statistics.median(overhead), "x", 1.15, (middle[0], middle[-1])),
        "side_by_side": figure(crowd, "x, of two processes that exchange nothing"),
        "ckpt_stall_pct": figure(stalls, "% of a minute, one checkpoint", 2),
        "plan_memory_error_pct": figure(max(errors), "% of the plan", 10),
        "rank_memory_share": figure(both[0][0]["peak"] / alone[0]["peak"], "of a single process with as many rows"),
    }
    if options.shape == "10m":
        path = RESULTS / "scale.json"
        before = json.loads(path.read_text())["figures"] if path.is_file() else {}
        print(write_result("scale", "python benchmarks/scale.py", {**before, **figures}))


if __name__ == "__main__":
    main()
