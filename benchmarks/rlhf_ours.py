"""Our PPO on a job of rlhf.py: python rlhf_ours.py JOB. Prints one line of JSON.

A step (`align/rollout.py`, `align/ppo.py`): the engine answers all prompts of the step; the reward model reads prompt
and reply once; policy ("old"), reference and critic each read them once, packed without padding; GAE and whitened
advantages follow; then policy and critic are trained by minibatches. So there are four forward passes beside
generation, one more than TRL makes, which keeps the logits of generation instead.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from foretell.align.policy import Sources, train_policy
from foretell.align.rewarding import Part
from foretell.align.samples import Sample
from foretell.train.log import read_log
from foretell.tuning import PPOConfig

LONG = 1e6  # minutes


def settings(job: dict[str, Any]) -> PPOConfig:
    """What is not named is TRL's default too: β, γ, λ, both clips, the weight of the value loss, a linear schedule."""
    return PPOConfig(
        rounds=job["warm_up"] + job["steps"], prompts=job["batch"], samples=1, max_tokens=job["reply"], epochs=1,
        minibatches=job["minibatches"], lr=job["lr"], critic_lr=job["lr"], seed=job["seed"], precision=job["precision"],
        device="cpu", heldout=0.0, missing_end=1.0, log_every=1, checkpoint_minutes=LONG, most_kl=LONG,
    )  # fmt: skip


def ppo(job: dict[str, Any], folder: Path) -> tuple[list[dict[str, float]], list[float]]:
    """The timed steps, and mean lengths of their replies.

    A reward of weight 0 stands behind the reward model and notes when it is asked. From there to the same place a round
    later are measuring and update of the one, generation and scoring of the other: a whole step, with all that is
    between its parts.
    """
    asked: list[float] = []

    def note(samples: Sequence[Sample]) -> Sequence[float]:
        asked.append(time.perf_counter())
        return [0.0] * len(samples)

    sources = Sources(reward=job["reward"], parts=(Part("clock", note, 0.0),))
    train_policy("ppo", job["policy"], Path(job["data"]), folder / "run", settings(job), sources)
    lines = [line for line in read_log(folder / "run" / "ppo" / "log.jsonl") if line["event"] == "train"]
    rounds = list({line["round"]: line for line in lines}.values())
    steps = []
    for (before, line), (began, ended) in zip(pairwise(rounds), pairwise(asked), strict=True):
        # A line tells of the update that came before its round.
        parts = {name: line["timing"][name] for name in ("generation", "scoring", "update")}
        parts["scoring"] += before["timing"]["measuring"]
        steps.append({"seconds": ended - began, **parts})
    first = job["warm_up"] - 1  # the first round only begins the first step
    return steps[first:], [line["length"] for line in rounds[1:]][first:]


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        steps, lengths = ppo(job, Path(folder))
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    told = {
        "steps": steps,
        "reply_tokens": sum(lengths) / len(lengths),
        "peak_rss": next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
