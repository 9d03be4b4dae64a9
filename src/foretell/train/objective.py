"""What a stage trains on: a loss summed over a batch, its weight, and the sums its log lines are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from foretell.data.loader import PackedBatch
from foretell.train.loss import IGNORE, chunked_cross_entropy

Sums = dict[str, Tensor]


class Batches(Protocol):
    """Where batches come from: a `Loader`, or whatever makes them as training goes on.

    Its state is JSON data; loaded again, the same batches follow. rows of `sequence_length` tokens make a step.
    """

    rows: int
    idle_seconds: float

    @property
    def sequence_length(self) -> int: ...
    def __next__(self) -> PackedBatch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Model(Protocol):
    """What the loop and its objectives ask of a model: `Multimodal`, or a wrapper of it."""

    training: bool

    @property
    def head_weight(self) -> Tensor: ...
    def hidden(self, tokens: Tensor, positions: Tensor, segments: Tensor, tiles: Tensor | None) -> Tensor: ...
    def train(self, mode: bool) -> Any: ...


class Objective(Protocol):
    """A loss and its bookkeeping. The loop divides by the weight of the whole optimizer step, so that gradient
    accumulation equals one big batch."""

    def weight(self, batch: PackedBatch) -> float:
        """What the summed loss is divided by, known on the host: for example the number of target tokens."""
        ...

    def loss(self, model: Model, batch: PackedBatch, device: torch.device) -> tuple[Tensor, Sums]:
        """Summed loss (scalar, differentiable) and detached sums, added up over batches."""
        ...

    def summary(self, sums: Sums) -> dict[str, Any]:
        """Fields of a log line from accumulated sums: "loss" and whatever else the stage reports."""
        ...


class NextToken:
    """Next-token cross-entropy on packed rows, reported by kind of document.

    kinds: names that `PackedBatch.kinds` index. token_bytes: (V,) bytes of text that each token stands for.
    """

    def __init__(self, kinds: list[str], token_bytes: np.ndarray) -> None:
        self.kinds = list(kinds)
        self.token_bytes = token_bytes.astype(np.int64)

    def weight(self, batch: PackedBatch) -> float:
        return float((batch.targets != IGNORE).sum())

    def loss(self, model: Model, batch: PackedBatch, device: torch.device) -> tuple[Tensor, Sums]:
        flat = batch.targets.reshape(-1)
        counted = np.flatnonzero(flat != IGNORE)
        targets, kinds = flat[counted], batch.kinds.reshape(-1)[counted]
        hidden = model.hidden(*inputs(batch, device))
        total, nll = chunked_cross_entropy(
            hidden,
            model.head_weight,
            to_device(flat, device),
            to_device(counted, device),
        )
        size = len(self.kinds)
        by_kind = torch.zeros(size, dtype=nll.dtype, device=device)
        by_kind.index_add_(0, to_device(kinds.astype(np.int64), device), nll)
        return total, {
            "nll": by_kind.double() if device.type != "mps" else by_kind,
            "tokens": torch.from_numpy(np.bincount(kinds, minlength=size)),
            "bytes": torch.from_numpy(np.bincount(kinds, self.token_bytes[targets], minlength=size)),
        }

    def summary(self, sums: Sums) -> dict[str, Any]:
        nll, tokens, sizes = (sums[key].tolist() for key in ("nll", "tokens", "bytes"))
        by_kind = {
            kind: {"loss": n / t, "bits_per_byte": _bits_per_byte(n, b), "tokens": int(t)}
            for kind, n, t, b in zip(self.kinds, nll, tokens, sizes, strict=True)
            if t
        }
        count = max(1.0, sum(tokens))
        return {"loss": sum(nll) / count, "bits_per_byte": _bits_per_byte(sum(nll), sum(sizes)), "by_kind": by_kind}


def _bits_per_byte(nats: float, size: float) -> float | None:
    return nats / math.log(2) / size if size else None


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def inputs(batch: PackedBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """tokens, positions, segments (B, T) and tiles (N, S, S, 3) or None, as `Multimodal.hidden` takes them."""
    tiles = to_device(batch.tiles, device) if len(batch.tiles) else None
    return (
        to_device(batch.tokens, device),
        to_device(batch.positions, device),
        to_device(batch.segments, device),
        tiles,
    )


def split(batch: PackedBatch, rows: int, image_token: int, tokens_per_tile: int) -> Iterator[PackedBatch]:
    """The batch in parts of at most `rows` rows, each with the tiles its slots need."""
    if rows >= len(batch.tokens):
        yield batch
        return
    slots = (batch.tokens == image_token).sum(axis=1) if len(batch.tiles) else np.zeros(len(batch.tokens), np.int64)
    edges = np.concatenate([[0], np.cumsum(slots // max(1, tokens_per_tile))])
    for start in range(0, len(batch.tokens), rows):
        part = slice(start, start + rows)
        stop = min(start + rows, len(batch.tokens))
        yield replace(
            batch,
            tokens=batch.tokens[part],
            targets=batch.targets[part],
            positions=batch.positions[part],
            segments=batch.segments[part],
            kinds=batch.kinds[part],
            tiles=batch.tiles[edges[start] : edges[stop]],
            examples=None if batch.examples is None else batch.examples[part],
            values={name: value[part] for name, value in batch.values.items()},
        )


def add(left: Sums, right: Sums) -> Sums:
    """Sums added key by key, on the devices of `right`."""
    return right if not left else {key: left[key].to(value.device) + value for key, value in right.items()}


def evaluate(
    model: Model,
    objective: Objective,
    batches: Iterable[PackedBatch],
    device: torch.device,
) -> dict[str, Any]:
    """The objective's summary over frozen batches, without gradients; the model's mode is restored."""
    training, sums = model.training, Sums()
    model.train(False)
    with torch.no_grad():
        for batch in batches:
            sums = add(sums, objective.loss(model, batch, device)[1])
    model.train(training)
    return objective.summary(sums) if sums else {}
