"""A ladder of small decoders on the world's bets: judged by the outcome at first, by what was to be expected at last?

    python benchmarks/inverse_scaling.py [--folder DIR] [--workers N]

One in five outcomes of the training data speaks against the expected value, all of the outcomes of hindsight.neglect
do. Compute grows by width and by tokens. The result is written whatever it is; with --folder a run that was cut off
goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import RESULTS, figure, write_result
from foretell.cli.draw import progress
from foretell.files import write_text
from foretell.forecast.inverse import find_models, measure, soft_series, verdict
from foretell.forecast.inverse_page import turns_page
from foretell.forecast.ladder import data_shape, run_ladder
from foretell.forecast.questions import world_questions
from foretell.forecast.rungs import RungPlan, flops
from foretell.model.describe import parameter_count
from foretell.pipeline.stages import run_recipe
from foretell.recipe import ForecastConfig, Recipe
from foretell.recipes import check_recipe

BETS = {"lucky": 0.2, "step": 10, "margin": 3.0, "forms": ["question"]}
RECIPE = {
    "name": "hindsight",
    "data": {
        "sources": [
            {
                "kind": "world",
                "documents": 60_000,
                "heldout_documents": 1_500,
                "kinds": {"hindsight": 1},
                "options": {"hindsight": BETS},
            }
        ],
        "sequence_length": 128,
        "tokens": 2_000_000,
        "heldout_tokens": 20_000,
    },
    "tokenizer": {"vocab_size": 512, "train_bytes": 1_000_000},
    "model": {"depth": 2, "head_dim": 16, "init_std": 0.06, "max_length": 128, "base_width": 64, "base_depth": 2},
    "train": {"batch_tokens": 2048, "precision": "float32", "device": "cpu", "watch": "off", "eval_every": 0.0},
}
RUNGS = (
    (16, 100_000, 2),
    (16, 400_000, 2),
    (32, 400_000, 2),
    (32, 1_000_000, 2),
    (64, 1_000_000, 2),
    (64, 2_000_000, 2),
)
QUESTIONS = 300


def rung(recipe: Recipe, width: int, tokens: int, seed: int, pack: Path, vocab_size: int) -> RungPlan:
    """The learning rate falls with the root of the tokens, from 0.01 at 400,000."""
    rate = min(0.01, 0.01 * (400_000 / tokens) ** 0.5)
    model = recipe.model.model_copy(update={"width": width, "vocab_size": vocab_size})
    optimizer = recipe.train.optimizer.model_copy(update={"lr": rate})
    train = recipe.train.model_copy(update={"tokens": tokens, "optimizer": optimizer})
    made = recipe.model_copy(update={"model": model, "train": train, "seed": seed})
    name = f"w{width}-{tokens // 1000}k-s{seed}"
    return RungPlan(name, made, flops(made, data_shape(pack)), parameter_count(model), tokens, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="inverse-"))
    recipe = check_recipe(RECIPE)
    with progress() as report:
        done = run_recipe(recipe, folder / "data", until="pack", report=report)
        pack, tokenizer = folder / "data" / "pack", folder / "data" / "tokenizer"
        vocab_size = done["tokenizer"]["metrics"]["vocab_size"]
        rungs = [
            rung(recipe, width, tokens, seed, pack / "train", vocab_size)
            for width, tokens, seeds in RUNGS
            for seed in range(seeds)
        ]
        run_ladder(
            rungs,
            pack / "train",
            pack / "heldout",
            tokenizer,
            folder,
            config=ForecastConfig(),
            workers=arguments.workers,
            report=report,
        )
        questions = world_questions("hindsight", QUESTIONS, **BETS)
        scores = measure(find_models([str(folder)]), questions, folder / "inverse", report)
    series = {s.group: s for s in soft_series(scores)}
    write_text(RESULTS / "inverse_scaling.html", turns_page(list(series.values())))
    for s in series.values():
        print(f"{s.group}: {verdict(s)}.")
    neglect, agree = series["hindsight.neglect"], series["hindsight.agree"]
    by_size: dict[float, list[float]] = {}
    for point in neglect.points:
        by_size.setdefault(round(point.model.flops, -8), []).append(point.value)
    means = [sum(values) / len(values) for values in by_size.values()]
    figures = {
        "neglect_turns": figure(int(bool(neglect.turn and neglect.turn.before < 0)), "yes", aim=1),
        "agree_turns": figure(int(agree.turn is not None), "yes", aim=0),
        "smallest_log_odds": figure(by_size[min(by_size)], "nats"),
        "lowest_log_odds": figure(min(means), "nats"),
        "largest_log_odds": figure(by_size[max(by_size)], "nats"),
        "models": figure(len(scores), "models"),
    }
    if neglect.turn:
        figures |= {"turn_flops": figure(neglect.turn.flops, "FLOPs"), "turn_p": figure(neglect.turn.p, "probability")}
    write_result("inverse_scaling", "make bench-inverse_scaling", figures)


if __name__ == "__main__":
    main()
