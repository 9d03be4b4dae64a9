"""Adapters beside full fine-tuning, and both beside PEFT and transformers: tokens a second, and memory.

    python benchmarks/adapters.py [--peft PYTHON] [--rounds 3] [--tiny]

--peft: interpreter of an environment with peft and transformers beside the same torch, such as
`pip install peft==0.21.2 transformers==5.23.0 torch==2.13.0`. Without it only ours is measured.

A model with random weights of the shape that the throughput benchmark calls 30 M (width 512, depth 8, 4,096 ids) is
trained for some steps on rows of random tokens, a loss on the second half of each: whole, and by adapters of rank 16 on
all seven matrices of every block. Both sides get the same weights (ours exported to a LlamaForCausalLM) and the same
rows, without padding, in float32 on as many threads, with fused AdamW and gradients clipped at 1. Ours is the training
loop behind `foretell sft` (adapters_ours.py); theirs a bare loop over the model, which costs less than a trainer of
theirs would (adapters_peer.py). Every side is a process of its own; they take turns, and the first steps of each are
not counted. The first losses of all four must agree to 1e-4, since they compute the same.

Memory is the largest resident set of a process until the last step, libraries included, so figures of it are told
beside that of the process once the model lay in it, before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import figure, ratios, write_result

HERE = Path(__file__).resolve().parent
MODES = ("full", "lora")
Figures = dict[str, dict[str, Any]]
Told = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """rows of `length` tokens make a step. warm_up: steps that are not counted. rank: of the adapters."""

    rows: int = 4
    length: int = 256
    steps: int = 8
    warm_up: int = 2
    threads: int = 2
    width: int = 512
    depth: int = 8
    head: int = 64
    vocabulary: int = 4096
    rank: int = 16
    lr: float = 1e-4
    seed: int = 0


TINY = Work(rows=2, length=32, steps=2, warm_up=1, threads=1, width=32, depth=2, head=16, vocabulary=512, rank=4)


def write_job(folder: Path, work: Work) -> Told:
    """What both sides read: the weights in both forms, and the tokens of every step."""
    from pydoc_data.topics import topics

    import torch

    from foretell.data.tokenizer import train_tokenizer
    from foretell.model.multimodal import Multimodal
    from foretell.recipe import ModelConfig, TokenizerConfig
    from foretell.train.checkpoint import save_checkpoint
    from foretell.weights.exporting import export

    texts = (topics[name] for name in sorted(topics))
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=work.vocabulary), grid=1)
    tokenizer.save(folder / "tokenizer")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, image_token=tokenizer.special("<image>"),
        width=work.width, depth=work.depth, head_dim=work.head, base_width=work.width, base_depth=work.depth,
        max_length=work.length, zero_init_outputs=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(work.seed)
    files: dict[str, Path | str] = {path.name: path for path in (folder / "tokenizer").iterdir()}
    save_checkpoint(folder / "base", Multimodal(config, generator), None, files)
    export(folder / "base", folder / "exported", dtype="float32")
    shape = (work.warm_up + work.steps, work.rows, work.length)
    plain = max(tokenizer.controls.values()) + 1  # control tokens come first
    tokens = torch.randint(plain, config.vocab_size, shape, generator=generator)
    return asdict(work) | {
        "base": str(folder / "base"),
        "exported": str(folder / "exported"),
        "tokens": tokens.tolist(),
    }


def run_side(python: str, script: str, job: Path, mode: str, threads: int) -> Told:
    """What one side tells of a run of the job, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment.setdefault("GOMP_SPINCOUNT", "2000")  # as `foretell` sets it; both sides run under it
    # -P: a peer's imports must not find files of this folder, such as evals.py.
    words = [python, "-P", str(HERE / script), str(job), mode]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{script} {mode} failed:\n{done.stderr[-3000:]}")
    told: Told = json.loads(done.stdout.splitlines()[-1])
    return told


def tokens_per_second(told: Told, job: Mapping[str, Any]) -> float:
    return float(job["rows"] * job["length"] * len(told["seconds"]) / sum(told["seconds"]))


def grown_mb(told: Told) -> float:
    """Memory that training took beside the model and the libraries, in MB."""
    return float(told["peak_rss"] - told["loaded_rss"]) / 1e6


def check_same(told: Mapping[str, Sequence[Told]]) -> None:
    """Raises SystemExit where the first losses of the sides differ: then they do not train the same."""
    first = {side: rounds[0]["losses"][0] for side, rounds in told.items() if rounds}
    if max(first.values()) - min(first.values()) > 1e-4:
        raise SystemExit(f"The sides begin with other losses, so they do not compute the same: {first}")


def figures_of(told: Mapping[str, Sequence[Told]], job: Mapping[str, Any]) -> Figures:
    """Figures of the rounds of every side; those of the peer may be missing."""
    check_same(told)
    about = f"{job['rows']} rows of {job['length']} tokens, rank {job['rank']}, float32"
    names = {"full": "whole", "lora": "adapters", "full_peer": "whole, transformers", "lora_peer": "adapters, PEFT"}
    found: Figures = {}
    rates = {side: [tokens_per_second(one, job) for one in rounds] for side, rounds in told.items() if rounds}
    for side in rates:
        rounds = told[side]
        found[f"tokens_s_{side}"] = figure(rates[side], f"tokens/s, {names[side]}, {about}")
        found[f"peak_rss_mb_{side}"] = figure(
            [one["peak_rss"] / 1e6 for one in rounds], f"MB, {names[side]}, the whole process until the last step"
        )
        found[f"training_mb_{side}"] = figure(
            [grown_mb(one) for one in rounds], f"MB, {names[side]}, on top of the loaded model"
        )
        found[f"trained_{side}"] = figure(rounds[0]["trained"], f"parameters, {names[side]}")
    found["lora_speed"] = figure(ratios(rates["lora"], rates["full"]), "x, adapters over the whole model")
    grown = {side: [grown_mb(one) for one in told[side]] for side in rates}
    found["lora_memory"] = figure(ratios(grown["lora"], grown["full"]), "x, the same, of memory on top of the model")
    for mode, name in (("lora", "peft"), ("full", "transformers")):
        if peer := rates.get(f"{mode}_peer"):
            versions = ", ".join(f"{n} {v}" for n, v in told[f"{mode}_peer"][0]["versions"].items())
            found[f"{mode}_vs_{name}"] = figure(ratios(rates[mode], peer), f"x, tokens/s over {versions}")
            found[f"{mode}_memory_vs_{name}"] = figure(
                ratios(grown[mode], grown[f"{mode}_peer"]), "x, of memory on top of the model"
            )
    return found


def measure(peft: str | None, work: Work, rounds: int, scratch: Path) -> Figures:
    job = write_job(scratch, work)
    file = scratch / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    sides = {mode: (sys.executable, "adapters_ours.py", mode) for mode in MODES}
    if peft is None:
        print("No PEFT: give --peft PYTHON for the ratios.")
    else:
        sides |= {f"{mode}_peer": (peft, "adapters_peer.py", mode) for mode in MODES}
    told: dict[str, list[Told]] = {side: [] for side in sides}
    order = list(sides)
    for _ in range(rounds):
        for side in order:
            found = run_side(*sides[side][:2], file, sides[side][2], work.threads)
            told[side].append(found)
            print(
                f"{side}: {tokens_per_second(found, job):,.0f} tokens/s, {median(found['seconds']):.3f} s a step, "
                f"{grown_mb(found):.0f} MB on top of the model, losses {found['losses'][0]:.4f} to "
                f"{found['losses'][-1]:.4f}",
                flush=True,
            )
        order.reverse()  # a slow spell of the machine falls on all
    return figures_of(told, job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peft", metavar="PYTHON", help="interpreter of an environment with peft and transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a model 32 wide and one thread, to try it; writes nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.peft, TINY if options.tiny else Work(), options.rounds, Path(folder))
    print(json.dumps(figures, indent=1), flush=True)
    if not options.tiny:
        command = "python benchmarks/adapters.py" + " --peft PYTHON" * bool(options.peft)
        print(f"Written: {write_result('adapters', f'{command} --rounds {options.rounds}', figures)}")


if __name__ == "__main__":
    main()
