"""One training step beside transformers' LlamaForCausalLM: same shape, optimizer, precision and packed rows.

    python benchmarks/train_throughput.py [--rounds 7] [--shapes 1m 10m 30m] [--no-compile]
        [--parts shapes images feeding]

After the shapes comes what an image costs: the 10 M step whose rows show a tile in every 64 positions beside the same
step on text, each by its own FLOPs, the tower half as wide as the decoder and as deep; and then the two figures of
feeding.py, the loader's idle share and the tokenizer's rate. Only a run of all parts is written.

Both train in bfloat16 with float32 master weights (transformers under autocast, as its users run it),
AdamW(fused=True) and clipping at 1. Rows of 512 tokens are packed from documents whose lengths are exponential with
mean 256, kept apart by position ids, and new in every step. Each in a process of its own, the two take turns step by
step; the matmul rate (bfloat16, n = 1024) is measured between them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `foretell` sets it; both candidates run under it
import numpy as np
import torch
from torch import Tensor

from common import alternate, figure, ratios, write_result
from feeding import loader_idle_pct, tokenizer_mb_s
from foretell.data.loader import PackedBatch
from foretell.measure.machine import matmul_rate
from foretell.model.describe import parameter_count, training_flops
from foretell.model.multimodal import Multimodal
from foretell.model.parametrize import parameter_groups
from foretell.recipe import ModelConfig, OptimizerConfig, VisionConfig
from foretell.train.objective import NextToken
from foretell.train.setup import keep_freed_memory
from foretell.train.sharing import add_gradients, sharers
from foretell.weights.families import hugging_face_config

TIME = 512
SHAPES = {
    "1m": (ModelConfig(width=128, depth=4, head_dim=32, max_length=TIME), 16),
    "10m": (ModelConfig(width=320, depth=7, head_dim=64, max_length=TIME), 8),
    "30m": (ModelConfig(width=512, depth=8, head_dim=64, max_length=TIME), 8),
}
PARTS = ("shapes", "images", "feeding")
AIMS = {
    "ratio_vs_transformers_1m": 1.5, "ratio_vs_transformers_10m": 1.5, "ratio_vs_transformers_30m": 1.5,
    "compiled_ratio_10m": 1.1, "matmul_share_1m": 0.5, "matmul_share_30m": 0.7, "multimodal_seconds_per_flop": 1.15,
    "loader_idle_pct": 2, "tokenizer_mb_s": 5,
}  # fmt: skip
EVERY = 64  # positions with a tile each
WARM = 3  # steps that are not counted


@dataclass(frozen=True)
class Rows:
    """A packed batch: tokens, next tokens, positions and document numbers, each (B, T)."""

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor
    tiles: Tensor | None = None

    def packed(self) -> PackedBatch:
        """As the loader hands it out."""
        tiles = np.zeros((0, 0, 0, 3), np.uint8) if self.tiles is None else self.tiles.numpy()
        text = (x.numpy() for x in (self.tokens, self.targets, self.positions, self.segments))
        return PackedBatch(*text, np.zeros(self.tokens.shape, np.uint8), tiles)

    @property
    def context(self) -> float:
        return float(self.positions.float().mean()) + 1


def packed_rows(batch: int, vocabulary: int, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(16, vocabulary, (batch, TIME + 1), generator=generator)
    positions, segments = torch.zeros(batch, TIME, dtype=torch.int64), torch.zeros(batch, TIME, dtype=torch.int64)
    for row in range(batch):
        at, document = 0, 0
        while at < TIME:
            drawn = torch.empty(1).exponential_(1 / 256, generator=generator).item()
            length = min(max(16, int(drawn)), TIME - at)
            positions[row, at : at + length] = torch.arange(length)
            segments[row, at : at + length] = document
            at, document = at + length, document + 1
    return Rows(stream[:, :-1].contiguous(), stream[:, 1:].contiguous(), positions, segments)


class Candidate:
    """A process that takes one training step when it is told to. Each has its own, as its users would: what one does
    to the C library's memory, or a compiler to torch, is not the other's."""

    def __init__(self, *what: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--candidate", *what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> float:
        """Seconds of the step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(who: str, name: str, kind: str) -> None:
    """Be a candidate: the n-th step reads the rows of seed n."""
    config, batch = SHAPES[name]
    made = showing(config) if who == "seeing" else config
    step = (theirs if who == "theirs" else ours)(made, batch * TIME, kind == "compiled")
    for seed, _ in enumerate(sys.stdin):
        rows = packed_rows(batch, config.vocab_size, seed)
        rows = shown(made, rows) if who == "seeing" else rows
        began = time.perf_counter()
        step(rows)
        print(time.perf_counter() - began, flush=True)


def ours(config: ModelConfig, tokens: int, compiled: bool) -> Callable[[Rows], None]:
    keep_freed_memory()  # as `train.loop.fit` does
    model = Multimodal(config).train()
    model.compute_dtype = torch.bfloat16
    if compiled:
        model.compile_blocks()
    groups = parameter_groups(model, OptimizerConfig(lr=1e-3), tokens, 10**7)
    optimizer = torch.optim.AdamW(groups, fused=True)

    parameters, objective = list(model.parameters()), NextToken(["random"], np.ones(config.vocab_size))

    def step(rows: Rows) -> None:
        add_gradients(objective, model, rows.packed(), tokens, parameters, sharers(*rows.tokens.shape, config.width))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def theirs(config: ModelConfig, tokens: int, compiled: bool) -> Callable[[Rows], None]:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**hugging_face_config(config), use_cache=False)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if compiled else model

    def step(rows: Rows) -> None:
        # Their loss shifts labels itself; position ids that restart tell them where documents end.
        labels = torch.cat([rows.tokens[:, :1], rows.targets[:, :-1]], 1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = forward(input_ids=rows.tokens, position_ids=rows.positions, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(name: str, compiled: bool, rounds: int) -> dict[str, list[float]]:
    config, batch = SHAPES[name]
    kind = "compiled" if compiled else "eager"
    rates: list[float] = []
    with Candidate("ours", name, kind) as left, Candidate("theirs", name, kind) as right:

        def with_rate() -> float:
            rates.append(matmul_rate("bfloat16", seconds=0.2))
            return left()

        for _ in range(WARM):
            left()
            right()
        our_times, their_times = alternate(with_rate, right, rounds)
    tokens = batch * TIME
    flops = [training_flops(config, tokens, context=context) for context in contexts(name, rounds)]
    measured = {
        "ratio": ratios(their_times, our_times),
        "share": [f / seconds / rate for f, seconds, rate in zip(flops, our_times, rates, strict=True)],
        "tokens_per_s": [tokens / seconds for seconds in our_times],
        "gflops": [f / seconds / 1e9 for f, seconds in zip(flops, our_times, strict=True)],
        "matmul_gflops": [rate / 1e9 for rate in rates],
        "transformers_tokens_per_s": [tokens / seconds for seconds in their_times],
    }
    print(f"{name} {kind}: {parameter_count(config) / 1e6:.1f} M parameters, {tokens} tokens a step")
    for key, values in measured.items():
        print(f"  {key:28} {statistics.median(values):10.4g}   [{min(values):.4g}, {max(values):.4g}]")
    return measured


def contexts(name: str, rounds: int) -> list[float]:
    """Mean positions that a query of each counted step sees."""
    config, batch = SHAPES[name]
    return [packed_rows(batch, config.vocab_size, WARM + n).context for n in range(rounds)]


def showing(config: ModelConfig) -> ModelConfig:
    """The model with a tower."""
    tower = VisionConfig(tile=64, patch=8, shuffle=2, width=config.width // 2, depth=config.depth, head_dim=32)
    return config.model_copy(update={"vision": tower, "image_token": 0})


def shown(config: ModelConfig, text: Rows) -> Rows:
    """Rows that show a tile in every EVERY positions."""
    assert config.vision is not None
    slots = torch.arange(TIME) % EVERY < config.vision.tokens_per_tile
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (text.tokens.numel() // EVERY, 64, 64, 3), generator=generator, dtype=torch.uint8)
    return replace(text, tokens=text.tokens.masked_fill(slots, config.image_token), tiles=pixels)


def images(rounds: int) -> dict[str, list[float]]:
    """Seconds a FLOP of the step with tiles over those of the step on text."""
    config, batch = SHAPES["10m"]
    with Candidate("seeing", "10m", "eager") as left, Candidate("ours", "10m", "eager") as right:
        for _ in range(WARM):
            left()
            right()
        with_tiles, without = alternate(left, right, rounds)
    tokens = batch * TIME
    extra = [
        training_flops(showing(config), tokens, tokens // EVERY, context)
        / training_flops(config, tokens, context=context)
        for context in contexts("10m", rounds)
    ]
    return {"multimodal_seconds_per_flop": ratios(ratios(with_tiles, without), extra), "multimodal_flops": extra}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--candidate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        serve(*options.candidate)
        return
    figures: dict[str, Any] = {}

    def keep(name: str, values: list[float], unit: str) -> None:
        figures[name] = figure(values, unit, AIMS.get(name))

    for shape in options.shapes if "shapes" in options.parts else ():
        eager = compare(shape, False, options.rounds)
        keep(f"ratio_vs_transformers_{shape}", eager["ratio"], "x")
        keep(f"eager_matmul_share_{shape}", eager["share"], "of the bfloat16 matmul rate")
        keep(f"eager_tokens_per_s_{shape}", eager["tokens_per_s"], "tokens/s")
        if options.no_compile:
            continue
        compiled = compare(shape, True, options.rounds)
        keep(f"compiled_ratio_{shape}", compiled["ratio"], "x")
        keep(f"matmul_share_{shape}", compiled["share"], "of the bfloat16 matmul rate")
        keep(f"tokens_per_s_{shape}", compiled["tokens_per_s"], "tokens/s")
    if "images" in options.parts:
        for name, values in images(options.rounds).items():
            unit = "x of the text step's" if name.endswith("per_flop") else "x of the text step's FLOPs"
            keep(name, values, unit)
            print(name, figures[name])
    if "feeding" in options.parts:
        keep("loader_idle_pct", loader_idle_pct(options.rounds), "% of training time")
        keep("tokenizer_mb_s", tokenizer_mb_s(options.rounds), "MB/s in one thread, the Python installation's own text")
    if set(options.shapes) == set(SHAPES) and set(options.parts) == set(PARTS) and not options.no_compile:
        print(write_result("train_throughput", "python benchmarks/train_throughput.py", figures))


if __name__ == "__main__":
    main()
