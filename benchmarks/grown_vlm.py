"""Grow a model that sees: an image tower grafted on SmolLM2-135M, trained on figures of textbooks within an hour.

    FORETELL_DATA=FOLDER python benchmarks/grown_vlm.py [--lm LM] [--vision VISION] [--run DIR]

Under torchrun several processes train together; on two cores that others use too, two of one thread each
(OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -- benchmarks/grown_vlm.py …) were twice as fast as one of
two. Without FORETELL_DATA it says so and ends. What is asked, and what counts, was settled before the run:

- figures.description, figures.caption: how much less surprising, in nats a token, a held-out figure makes its own
  description (alt text) and caption than a grey picture does. Mean over figures, 95 % interval over modules.
- figures.matching: which of two descriptions of held-out figures of one subject is the figure's: that whose likelihood
  the picture raises more. Blind is a guess, 50 %.
- figures.subject, figures.kind: closed questions, answered greedily.
- scenes.*, charts.*, reading.*: questions about held-out pictures of the generated world, answered greedily.

Blind is the same model with a grey picture of the same size in place of the figure. One training picture in eight is
such a grey one, so blind is what the model has learned to say without a picture, and no accident of a picture it never
met. `above_blind` counts the tasks whose 95 % interval of the gain over blind lies above zero; every task is reported.
The run is held to have worked if description, caption and one question about figures are among them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import foretell
from common import figure, write_result
from foretell.files import read_json, write_json
from foretell.pipeline.growing import ConnectorConfig, GrowConfig, WholeConfig, grow
from foretell.pipeline.looking import EXAMINED, show, summary
from foretell.report.grown import write_page
from grown_vlm_asked import descriptions, examine, scored, told_gains
from grown_vlm_data import divide, figures, lessons, write_lessons

COMMAND = "FORETELL_DATA=FOLDER python benchmarks/grown_vlm.py"
PASSES, WORLD = 4, 6000
SHOWN = 12
PACKING: dict[str, Any] = {"sequence_length": 512, "heldout": 0.02}
WATCHING: dict[str, Any] = {"checkpoint_minutes": 8.0, "log_every": 10, "eval_batches": 4, "watch": "off"}
SETTINGS = GrowConfig(
    tower_lr=10.0,
    connector=ConnectorConfig(
        lr=1e-4, epochs=0.36, batch_tokens=1024, warmup=0.03, freeze=("decoder", "embedding"), **PACKING, **WATCHING
    ),
    sft=WholeConfig(lr=3e-5, epochs=0.1, batch_tokens=2048, warmup=0.1, **PACKING, **WATCHING),
)
TASKS = ("figures.description", "figures.caption")


class Say:
    """A Report that prints a line now and then."""

    def __init__(self, every: float = 20.0) -> None:
        self._every, self._last = every, 0.0

    def __call__(self, task: str, done: float, total: float | None = None, note: str = "") -> None:
        if (now := time.monotonic()) - self._last > self._every:
            self._last = now
            print(time.strftime("%H:%M:%S"), task, f"{done:g}/{total or 0:g}", note, flush=True)


def asked(run: Path, corpus: Path, world: int = 360) -> dict[str, Any]:
    """Every task of the grown model, and what it was asked. world: how many held-out pictures of the world."""
    train, held, near = divide(figures(corpus))
    generator = foretell.load(run, dtype="bfloat16").generator
    started = time.monotonic()
    rows, matched = scored(generator, held)
    print(f"likelihoods: {time.monotonic() - started:.0f} s", flush=True)
    shown = show(generator, descriptions(held, SHOWN))
    seen = examine(generator, train, held, world, SHOWN)
    print(f"questions: {time.monotonic() - started:.0f} s", flush=True)
    return {
        "texts": told_gains(rows, matched),
        "rows": [*rows, *matched],
        **seen,
        "shown": [*shown, *seen["shown"]],
        "figures": {"train": len(train), "heldout": len(held), "left out as near duplicates": near},
    }


def result(found: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The figures of the committed result."""
    out: dict[str, Any] = {}
    above = 0
    for row in [*found["texts"], *found["tasks"]]:
        interval = row["above_blind_low"], row["above_blind_high"]
        above += interval[0] > 0
        unit = "nats a token" if row["task"] in TASKS else "share"
        unit += f" over blind, {row['questions']} held-out questions"
        out[row["task"].replace(".", "_")] = figure(row["above_blind"], unit, interval=interval)
    tasks = len(found["texts"]) + len(found["tasks"])
    head = {
        "above_blind": figure(above, f"of {tasks} tasks", aim=3),
        "minutes": figure(minutes, "min of training", aim=60),
    }
    return head | out


def lessons_file(run: Path, corpus: Path) -> Path:
    """The lessons beside the run; under torchrun the first process writes them."""
    path = run.with_name(run.name + "-lessons.jsonl")
    while not path.is_file():
        if int(os.environ.get("RANK", "0")):
            time.sleep(1)
            continue
        train, held, near = divide(figures(corpus))
        count = write_lessons(path.with_suffix(".part"), lessons(train, PASSES, WORLD))
        path.with_suffix(".part").rename(path)
        print(f"{count:,} lessons; {len(train)} figures to train on, {len(held)} held out, {near} near duplicates out")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vision", default="runs/quickstart")
    parser.add_argument("--lm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--run", type=Path, default=Path("runs/grown"))
    parser.add_argument("--ask", action="store_true", help="ask a run that is trained, and train none")
    args = parser.parse_args()
    corpus = Path(os.environ["FORETELL_DATA"]) / "corpus"
    if not args.ask:
        args.run.parent.mkdir(parents=True, exist_ok=True)
        if not grow(args.vision, args.lm, lessons_file(args.run, corpus), args.run, SETTINGS, Say()):
            return  # under torchrun, a process for which the first one speaks
    found = asked(args.run, corpus)
    write_json(args.run / "asked.json", found)
    print(write_page(args.run, found, args.run / "asked"))
    texts = [row for row in found["texts"] if row["task"] in TASKS]
    write_json(args.run / "asked" / "seeing.summary.json", summary(texts, args.run.name))
    write_json(args.run / "examine" / EXAMINED, found)  # which a card reads
    seconds = sum(read_json(args.run / stage / "manifest.json")["seconds"] for stage in ("connector", "sft"))
    told = result(found, seconds / 60)
    print(json.dumps(told, indent=1))
    print(write_result("grown_vlm", COMMAND, told))


if __name__ == "__main__":
    if "FORETELL_DATA" in os.environ:
        main()
    else:
        print("grown_vlm was left out: FORETELL_DATA names no folder that holds corpus/*.parquet.")
