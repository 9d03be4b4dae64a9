"""Forecasts over up to four decades of compute, where the floor is known: ladder, registration, target, verdict.

    python benchmarks/forecast_audited.py [--folder DIR] [--workers N]

Everything is made here: records of known entropy (`foretell.data.audited`), a ladder of small decoders on them, the
fits and their records, and only then the target. Three forecasts of it are registered: from all rungs (at most 1/200 of
its compute), from the same without knowing the floor, and from the rungs at most 1/10,000 of it. The result is written
whatever it is; records, ledger, bundles and pages lie in benchmarks/results/forecasts. With --folder a run that was cut
off goes on. --rehearse takes a target of seconds and keeps its results in the folder.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, figure, write_result
from foretell.data.audited import Audited, write_pack, write_tokenizer
from foretell.errors import ForetellError
from foretell.files import write_text
from foretell.forecast import LadderTable, fit
from foretell.forecast.chart import advice, findings, forecast_page, sentence
from foretell.forecast.ladder import data_shape, run_ladder
from foretell.forecast.ledger import read_ledger
from foretell.forecast.register import Record, bundle, check_before, read, register, verify
from foretell.forecast.rungs import LEAST, flops, lay, measured, target_digest
from foretell.forecast.watch import watch
from foretell.pipeline.forecasting import first_step
from foretell.recipe import Recipe
from foretell.recipes import check_recipe

SOURCE = Audited(keys=1 << 20, exponent=1.5, symbols=16, length=5)
RECORDS = 4  # of a row: small rungs need small batches
LENGTH = RECORDS * (SOURCE.places + 1)
HELDOUT_ROWS = 8_000
FAR = 10_000  # times the compute of its largest rung is the target of the third forecast
RECIPE: dict[str, Any] = {
    "name": "audited",
    "description": "Records of Zipf-distributed keys and their values; rows by foretell.data.audited.",
    "data": {
        "sources": [{"kind": "folder", "name": "audited", "path": "target", "license": "generated"}],
        "sequence_length": LENGTH,
        "max_epochs": 1.0,
    },
    "tokenizer": {"vocab_size": SOURCE.vocab_size},
    "model": {
        "depth": 1,
        "head_dim": 16,
        "q_heads": 1,
        "max_length": LENGTH,
        "base_width": 32,
        "base_depth": 1,
        "logit_multiplier": 3.0,
        "zero_init_outputs": False,
    },
    "train": {
        "precision": "float32",
        "device": "cpu",
        "eval_every": 0.0,
        "log_every": 20,
        "watch": "off",
        "optimizer": {"lr": 0.01, "tau": 0.0},
    },
    # The batch grows with the root of the tokens, and the rate stays: what was best at widths 12 to 32. One head on all
    # rungs: with four the loss fell ever faster. Below width 16 much of a run goes by before
    # the alphabets are found.
    "forecast": {
        "batch_exponent": 0.5,
        "horizon_exponent": 0.25,
        "unit": "nats per token",
        "floor": SOURCE.floor,
    },
}
TOKENS_PER_PARAMETER = 4
TARGET: dict[str, Any] = {
    "width": 400,
    "batch_tokens": 1_400,
    "widths": (20, 22, 24, 26, 28, 30, 32, 34, 44, 60, 80, 100),
    "seeds": (10,) * 8 + (6, 5, 4, 4),
}
REHEARSED: dict[str, Any] = {"width": 72, "batch_tokens": 252, "widths": (8, 10, 12, 14, 16, 20), "seeds": (2, 1)}


def recipe_of(width: int, batch_tokens: int, widths: Sequence[int], seeds: Sequence[int]) -> Recipe:
    """The target's recipe; its rungs follow from it."""
    parameters = width * (SOURCE.vocab_size + 4 * 16 + 12 * width + 3)
    batch = batch_tokens // LENGTH * LENGTH
    tokens = round(TOKENS_PER_PARAMETER * parameters / batch) * batch
    raw = {
        **RECIPE,
        "model": {**RECIPE["model"], "width": width, "ffn": 4 * width},
        "train": {**RECIPE["train"], "batch_tokens": batch, "tokens": tokens},
        "forecast": {**RECIPE["forecast"], "widths": widths, "seeds": seeds},
    }
    return check_recipe(raw, "audited")


def prepare(folder: Path, name: str, tokens: int, draw: int, even: bool = False) -> Path:
    """A pack of at least so many tokens, made unless it lies there."""
    rows = -(-tokens // LENGTH)
    path = folder / f"{name}-{rows}"
    if not path.exists():
        write_pack(SOURCE, path, rows=rows, records=RECORDS, draw=draw, even=even)
    return path


def registered(folder: Path, records: Path, recipe: Recipe, target: float, ladder: LadderTable) -> list[Path]:
    """The records of this ladder, the headline first; those of a run that was cut off stay."""
    notes = folder / "records.txt"
    if notes.exists():
        return [records / name for name in notes.read_text().split()]
    far = replace(ladder, rungs=tuple(rung for rung in ladder.rungs if rung.flops * FAR <= target))
    asked: dict[str, tuple[LadderTable, float | None]] = {"": (ladder, SOURCE.floor), "-floor-unknown": (ladder, None)}
    if len({rung.flops for rung in far.rungs}) >= LEAST:
        asked["-far"] = (far, SOURCE.floor)
    names = {entry["record"] for entry in read_ledger(records)} if records.exists() else set()
    number = next(n for n in range(1, 100) if f"audited-{n:02d}.json" not in names)
    paths = []
    for end, (table, floor) in asked.items():
        found = fit(table, floor=floor, target=target)
        path = records / f"audited-{number:02d}{end}.json"
        curve = watch(table, found, target).to_json()
        register(path, table, found, target=target, recipe=target_digest(recipe), curve=curve, anyway=True)
        print(f"\nRegistered {path.name}: {sentence(found.predict(target), table.unit)}")
        print("\n".join(f"- {said}" for said in findings(found)), advice(found), sep="\n", flush=True)
        paths.append(path)
    write_text(notes, "\n".join(path.name for path in paths))
    return paths


def figures_of(record: Record, end: str) -> dict[str, dict[str, Any]]:
    """What became of one forecast; end: of the figures' names."""
    outcome, ladder = record.outcomes[0], record.table()
    claim = outcome.claim
    assert outcome.measured is not None and outcome.error is not None
    ratio, flops = record.target / ladder.rungs[-1].flops, ladder.rungs[0].flops
    found = {
        "compute_ratio": figure(ratio, "x", FAR if end == "_far" else 200),
        "error_pct": figure(100 * abs(outcome.error), "% of final loss", 0.5),
        "covered": figure(int(outcome.hit), "1 if the interval holds the outcome", 1),
        "interval_pct": figure(50 * (claim.high - claim.low) / claim.value, "% of the forecast, half-width"),
        "forecast": figure(claim.value, "nats a token", interval=(claim.low, claim.high)),
        "excess_error_pct": figure(
            100 * abs(claim.value - outcome.measured) / (outcome.measured - SOURCE.floor),
            "% of the loss over the floor",
        ),
        "rungs": figure(len({rung.flops for rung in ladder.rungs}), "computes"),
        "runs": figure(len(ladder.rungs), "runs in the ladder"),
        "ladder_decades": figure(math.log10(ladder.rungs[-1].flops / flops), "decades of compute"),
    }
    return {name + end: value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on from what lies there")
    parser.add_argument("--workers", type=int, help="processes of the ladder; default one a core")
    parser.add_argument("--rehearse", action="store_true", help="a small target; results stay in the folder")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary:
            run(options.folder or Path(temporary), options.rehearse, options.workers)
    except ForetellError as error:
        sys.exit(f"Error: {error}")


def run(folder: Path, rehearse: bool, workers: int | None) -> None:
    from foretell.train.loop import pretrain

    began = time.perf_counter()
    results = folder if rehearse else RESULTS
    records = results / "forecasts"
    recipe = recipe_of(**(REHEARSED if rehearse else TARGET))
    assert recipe.forecast is not None
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        write_tokenizer(SOURCE, tokenizer)
    heldout = prepare(folder, "heldout", HELDOUT_ROWS * LENGTH, 0, even=True)
    rungs = lay(recipe, data_shape(heldout))
    pack = prepare(folder, "ladder", max(rung.tokens for rung in rungs), 1)
    last = [0.0]

    def report(task: str, done: float, total: float | None, note: str) -> None:
        if time.perf_counter() - last[0] > 20:
            last[0] = time.perf_counter()
            print(f"{task}: {done / (total or 1):.0%} {note}", flush=True)

    ladder = run_ladder(
        rungs, pack, heldout, tokenizer, folder / "ladder", config=recipe.forecast, workers=workers, report=report
    )
    target = flops(recipe, data_shape(heldout))
    paths = registered(folder, records, recipe, target, ladder)
    train, out = prepare(folder, "train", recipe.train.tokens, 2), folder / "target"
    for path in paths:
        check_before(path, first_step(out / "log.jsonl"), target_digest(recipe))
    metrics = pretrain(recipe, train, heldout, tokenizer, out, report=report)
    loss = measured(metrics, recipe.forecast)
    figures = {
        "target_flops": figure(metrics["flops"], "FLOPs"),
        "loss": figure(loss, "nats a token"),
        "floor": figure(SOURCE.floor, "nats a token, in closed form"),
    }
    for path in paths:
        check_before(path, first_step(out / "log.jsonl"), target_digest(recipe))
        record = read(path) if read(path).outcomes else verify(path, loss)
        write_text(path.with_suffix(".html"), forecast_page(record.forecast(), record.table(), record=record))
        figures |= figures_of(record, path.stem[len("audited-00") :].replace("-", "_"))
    for path in paths:
        bundle(path, records / f"{path.stem}.bundle.json")
    figures["minutes"] = figure((time.perf_counter() - began) / 60, "min, all of it")
    for name, value in figures.items():
        print(f"{name}: {value['value']} {value['unit']}")
    print(write_result("forecast_audited", "python benchmarks/forecast_audited.py", figures, results))


if __name__ == "__main__":
    main()
