"""Grow a model that sees: an image tower grafted on SmolLM2-135M, trained on figures of textbooks for an hour.

    FORETELL_DATA=FOLDER python benchmarks/grown_vlm.py --lm LM [--vision VISION] [--run DIR]

Without FORETELL_DATA it says so and ends. What is asked, and what counts, was settled before the run:

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

from common import figure, write_result
from foretell.align.growing import ConnectorConfig, GrowConfig, WholeConfig, grow
from foretell.files import write_json
from grown_vlm_asked import examine, gains, likelihoods
from grown_vlm_data import divide, figures, lessons, write_lessons

PASSES, WORLD = 4, 6000
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
QUESTIONS = ("figures.matching", "figures.subject", "figures.kind")


def say(task: str, done: float, total: float | None = None, note: str = "") -> None:
    now = time.monotonic()
    if now - say.last > 20:  # type: ignore[attr-defined]
        say.last = now  # type: ignore[attr-defined]
        print(time.strftime("%H:%M:%S"), task, f"{done:g}/{total or 0:g}", note, flush=True)


say.last = 0.0  # type: ignore[attr-defined]


def asked(run: Path, corpus: Path, model: Path | None = None, held_every: int = 1, world: int = 900) -> dict[str, Any]:
    """Every task of the grown model, and what it was asked."""
    import foretell

    train, held, near = divide(figures(corpus))
    generator = foretell.load(model or run, dtype="bfloat16").generator
    held = held[::held_every]
    started = time.monotonic()
    rows = likelihoods(generator, held)
    print(f"likelihoods: {time.monotonic() - started:.0f} s", flush=True)
    seen = examine(generator, train, held, world)
    print(f"questions: {time.monotonic() - started:.0f} s", flush=True)
    return {
        "texts": gains(rows),
        "rows": rows,
        **seen,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vision", default="runs/quickstart")
    parser.add_argument("--lm", required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/grown"))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    corpus = Path(os.environ["FORETELL_DATA"]) / "corpus"
    args.run.mkdir(parents=True, exist_ok=True)
    data = args.run.with_name(args.run.name + "-lessons.jsonl")
    if not data.is_file() and int(os.environ.get("RANK", "0")) == 0:
        train, held, near = divide(figures(corpus))
        count = write_lessons(data.with_suffix(".part"), lessons(train, PASSES, WORLD))
        data.with_suffix(".part").rename(data)
        print(f"{count:,} lessons; {len(train)} figures to train on, {len(held)} held out, {near} near duplicates out")
    manifests = grow(args.vision, args.lm, data, args.run, SETTINGS, say)
    if not manifests:  # under torchrun, a process for which the first one speaks
        return
    seconds = sum(manifests[stage]["seconds"] for stage in ("connector", "sft"))
    found = asked(args.run, corpus)
    write_json(args.run / "asked.json", found)
    figures_ = result(found, seconds / 60)
    print(json.dumps(figures_, indent=1))
    command = f"FORETELL_DATA=FOLDER python benchmarks/grown_vlm.py --lm {Path(args.lm).name}"
    print(write_result("grown_vlm", command, figures_, args.results))


if __name__ == "__main__":
    if "FORETELL_DATA" in os.environ:
        main()
    else:
        print("grown_vlm was left out: FORETELL_DATA names no folder that holds corpus/*.parquet.")
