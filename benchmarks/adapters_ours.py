"""Our side of adapters.py: python adapters_ours.py JOB full|lora. Prints one line of JSON.

What `foretell sft` runs: the training loop with its watch, its log and clipping, on rows that lie in memory. Of
adapters, the base is frozen and no gradient of it is made; the loss is computed in pieces, so that logits are never
held whole.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretell.align.stages import open_base
from foretell.data.loader import NO_LOSS, PackedBatch
from foretell.model.adapters import choose_trained
from foretell.train.log import read_log
from foretell.train.loop import fit
from foretell.train.objective import NextToken
from foretell.tuning import LoraConfig, SFTConfig

LONG = 1e6  # minutes


class Rows:
    """A `train.objective.Batches` over the job's rows; every step has its own."""

    idle_seconds = 0.0

    def __init__(self, tokens: list[list[list[int]]]) -> None:
        self._tokens, self._at = np.array(tokens, np.int64), 0
        _, self.rows, self.sequence_length = self._tokens.shape

    def __next__(self) -> PackedBatch:
        tokens, self._at = self._tokens[self._at], self._at + 1
        targets = np.full(tokens.shape, NO_LOSS, np.int64)
        half = self.sequence_length // 2
        targets[:, half - 1 : -1] = tokens[:, half:]
        positions = np.broadcast_to(np.arange(self.sequence_length), tokens.shape)
        flat = np.zeros(tokens.shape)
        no_tiles = np.zeros((0, 0, 0, 3), np.uint8)
        return PackedBatch(tokens, targets, positions, flat.astype(np.int32), flat.astype(np.uint8), no_tiles)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self._at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._at = state["at"]

    def close(self) -> None:
        pass


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def train(job: Mapping[str, Any], mode: str, folder: Path) -> dict[str, Any]:
    steps = job["warm_up"] + job["steps"]
    lora = LoraConfig(rank=job["rank"] if mode == "lora" else 0)
    settings = SFTConfig(
        lr=job["lr"], lora=lora, precision="float32", device="cpu", log_every=1, eval_every=0, checkpoint_minutes=LONG,
        warmup=0,
    )  # fmt: skip
    model = open_base(Path(job["base"]), "cpu", frozen=mode == "lora").model
    choose_trained(model, settings)
    loaded, peaks = memory("VmRSS"), []

    def observe(share: float, line: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Told after every step, and so before the last checkpoint is written."""
        peaks.append(memory("VmHWM"))
        yield from ()

    rows = Rows(job["tokens"])
    size = rows.rows * rows.sequence_length
    names = np.zeros(model.config.vocab_size, np.int64)
    found = fit(
        model, rows, NextToken(["text"], names), settings.training(steps * size, size), folder, total_steps=steps,
        name="adapters", seed=job["seed"], measure=None, files={}, observe=observe,
    )  # fmt: skip
    lines = [line for line in read_log(folder / "log.jsonl") if line["event"] == "train"]
    ends = [line["seconds"] for line in lines]
    return {
        "seconds": np.diff(ends)[job["warm_up"] - 1 :].tolist(),
        "losses": [line["loss"] for line in lines],
        "peak_rss": peaks[-1],
        "loaded_rss": loaded,
        "trained": found["trained_parameters"],
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(train(job, sys.argv[2], Path(folder))))


if __name__ == "__main__":
    main()
