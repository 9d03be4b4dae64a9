"""Rollouts by engines of their own beside those of the process that learns: tokens a second, and what a step takes.

    python benchmarks/rlhf_workers.py [--rounds 3] [--tiny]

Four arms take turns, each as a run of PPO of a few steps on the model and prompts of rlhf.py (width 128, depth 4,
random weights, so that replies hardly ever end before they are as long as they may be): replies drawn by the learning
process, as without the setting; by one worker; by two; and by two that draw a round ahead (`max_staleness: 1`), beside
the learning. Workers share the cores: one has the threads that two have together. Generation is timed from the call to
the last reply, the weights' way to the workers included; where rounds are drawn ahead only whole steps are told. The
first steps of a run, in which workers begin and load, are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import rlhf
from common import figure, ratios, write_result
from foretell.align.policy import Sources, train_policy
from foretell.align.rewarding import Part
from foretell.align.samples import Sample
from foretell.train.log import read_log
from foretell.tuning import PPOConfig, RolloutConfig

ARMS: dict[str, dict[str, Any] | None] = {
    "in_process": None,
    "one_worker": {"workers": 1},
    "two_workers": {"workers": 2},
    "two_workers_ahead": {"workers": 2, "max_staleness": 1},
}
TOLD = {
    "in_process": "the learning process",
    "one_worker": "one worker",
    "two_workers": "two workers",
    "two_workers_ahead": "two workers, a round ahead",
}
WARM_UP = 2


def run(policy: Path, data: Path, work: rlhf.Work, rollout: dict[str, Any] | None, folder: Path) -> dict[str, float]:
    """Means over the steps that count: tokens/s of generation, seconds a step, mismatch in nats a token."""
    asked: list[float] = []

    def clock(samples: Sequence[Sample]) -> Sequence[float]:
        asked.append(time.perf_counter())
        return [float(len(sample.reply)) for sample in samples]

    settings = PPOConfig(
        rounds=WARM_UP + work.steps, prompts=work.batch, max_tokens=work.reply, minibatches=work.minibatches,
        lr=work.lr, critic_lr=work.lr, seed=work.seed, precision="float32", device="cpu", heldout=0.0,
        checkpoint_minutes=1e6, most_kl=1e6, rollout=None if rollout is None else RolloutConfig(**rollout),
    )  # fmt: skip
    train_policy("ppo", policy, data, folder, settings, Sources(parts=(Part("clock", clock),)))
    lines = [line for line in read_log(folder / "ppo" / "log.jsonl") if line["event"] == "train"]
    rounds = list({line["round"]: line for line in lines}.values())[WARM_UP:]
    tokens = [work.batch * line["length"] for line in rounds]
    found = {
        "tokens_s": sum(tokens) / max(1e-9, sum(line["timing"]["generation"] for line in rounds)),
        "step_s": fmean(later - earlier for earlier, later in pairwise(asked[WARM_UP - 1 :])),
    }
    if rollout is not None:
        found["mismatch"] = fmean(line["mismatch"]["logprob"] for line in rounds)
        found["staleness"] = fmean(line["staleness"] for line in rounds)
    return found


def figures_of(told: dict[str, list[dict[str, float]]], work: rlhf.Work) -> dict[str, dict[str, Any]]:
    about = f"{work.batch} prompts, replies of {work.reply} tokens, width {work.width}, depth {work.depth}, float32"
    found: dict[str, dict[str, Any]] = {}
    for arm, rounds in told.items():
        if "ahead" not in arm:
            found[f"tokens_s_{arm}"] = figure([one["tokens_s"] for one in rounds], f"tokens/s, {TOLD[arm]}, {about}")
        found[f"step_s_{arm}"] = figure([one["step_s"] for one in rounds], f"s a step of PPO, {TOLD[arm]}")
        if "mismatch" in rounds[0]:
            unit = f"nats a token, mean |log π − log μ|, {TOLD[arm]}"
            found[f"mismatch_{arm}"] = figure([one["mismatch"] for one in rounds], unit)
    pairs = {"two_vs_one": ("tokens_s", "two_workers", "one_worker")}
    pairs |= {"two_vs_in_process": ("tokens_s", "two_workers", "in_process")}
    pairs |= {"step_in_process_vs_ahead": ("step_s", "in_process", "two_workers_ahead")}
    for name, (key, a, b) in pairs.items():
        values = ratios([one[key] for one in told[a]], [one[key] for one in told[b]])
        found[name] = figure(values, f"x, {key}, {TOLD[a]} over {TOLD[b]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a model 32 wide, to try it; writes nothing")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    work = rlhf.TINY if options.tiny else rlhf.MADE
    told: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        policy = rlhf.write_model(folder, work)
        data = Path(rlhf.write_job(folder, policy, work)["data"])
        for turn in range(options.rounds):
            for arm in list(ARMS) if turn % 2 == 0 else list(reversed(ARMS)):
                told[arm].append(run(policy, data, work, ARMS[arm], folder / f"{arm}-{turn}"))
                print(arm, {key: round(value, 6) for key, value in told[arm][-1].items()}, flush=True)
    figures = figures_of(told, work)
    print(json.dumps(figures, indent=1))
    if not options.tiny:
        command = f"python benchmarks/rlhf_workers.py --rounds {options.rounds}"
        print(f"Written: {write_result('rlhf_workers', command, figures)}")


if __name__ == "__main__":
    main()
