"""What a training step of a shape needs of this machine: memory by counting, time by taking a few."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from foretell.forecast.rungs import DataShape, params
from foretell.measure.machine import memory_bytes
from foretell.recipe import ModelConfig, Recipe, VisionConfig

_STEPS = 3  # timed, after one that warms up
_SLACK = 1.2  # what an allocator holds beyond what is in use; 1.1 to 1.25 was measured with glibc


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step. process: what is there without a model. activations: of a micro-batch,
    with what its loss and backward pass need beside. accumulates: gradients stay while the next micro-batch is read."""

    process: float
    weights: float
    gradients: float
    moments: float
    activations: float
    accumulates: bool

    @property
    def total(self) -> float:
        # Within one micro-batch activations are freed at the pace at which gradients come.
        passing = self.gradients + self.activations if self.accumulates else max(self.gradients, self.activations)
        return self.process + self.weights + self.moments + passing


@dataclass(frozen=True)
class Speed:
    """Measured seconds: of a micro-batch of `tokens`, forward and backward, and of an optimizer's update."""

    tokens: int
    micro: float
    update: float

    def step(self, batch_tokens: int) -> float:
        """Seconds of an optimizer step."""
        return self.micro * batch_tokens / self.tokens + self.update


def micro_rows(recipe: Recipe) -> int:
    """Rows that go through the model at a time, as `train.loop.pretrain` chooses them."""
    from foretell.train.loop import MICRO_TOKENS

    length = recipe.data.sequence_length
    return min(recipe.train.batch_tokens // length, recipe.train.micro_batch or max(1, MICRO_TOKENS // length))


def memory(recipe: Recipe, data: DataShape, process: float, precision: str, device: str) -> Memory:
    """Peak memory of training a recipe: weights, gradients and two moments in float32, activations as they are kept.

    process: bytes without a model. Counted for the eager step on a CPU; fused attention on a GPU keeps no scores.
    """
    rows, length = micro_rows(recipe), recipe.data.sequence_length
    weights = 4.0 * params(recipe)
    held = _activations(recipe, rows * length, data, 4 if precision == "float32" else 2, device) * _SLACK
    return Memory(process, weights, weights, 2 * weights, held, rows * length < recipe.train.batch_tokens)


def _activations(recipe: Recipe, tokens: int, data: DataShape, size: int, device: str) -> float:
    """Bytes that a micro-batch's backward pass needs at its beginning; size: bytes a number."""
    from foretell.train.loss import CHUNK

    model, vocabulary = recipe.model, recipe.tokenizer.vocab_size
    heads = model.heads * model.head_dim
    turned = heads + model.n_kv_heads * model.head_dim
    layer = 4 * model.width + 4 * heads + 4 * model.ffn_width + turned * model.qk_norm
    scores = model.heads * _scores(_document(recipe, data)) if device == "cpu" else 0
    held = float(size * tokens * (model.depth * (layer + scores) + 2 * turned + 4 * model.width))
    if model.vision is not None:
        held += size * tokens * data.tiles * _tile(model.vision, model)
    head = vocabulary * model.width
    if size == 2:
        held += 2 * (params(recipe) - head)  # the weights as they were multiplied
    # First the loss makes probabilities and the head's gradient, then the last layer's gradients need room.
    loss = 2 * size * CHUNK * vocabulary + (2 * size * head if size == 2 else 0)
    passing = size * tokens * (6 * model.ffn_width + 3 * model.width)
    return held + 4 * head + max(loss, passing)


def _scores(length: int) -> float:
    """Scores that a query and head of a row of one document keeps on a CPU, where they are made block by block."""
    from foretell.model.attention import BLOCK, KEPT, STEP

    if length > KEPT:
        return 0  # made anew
    if length <= BLOCK:
        return -(-length // STEP) * STEP
    ends = [min(start + BLOCK, length) for start in range(0, length, BLOCK)]
    return sum(end * (end - start) for start, end in zip(range(0, length, BLOCK), ends, strict=True)) / length


def _document(recipe: Recipe, data: DataShape) -> int:
    """Length of equal documents in which a query sees as many positions as it does in the data."""
    return max(1, min(recipe.data.sequence_length, round(2 * data.context - 1)))


def _tile(vision: VisionConfig, model: ModelConfig) -> float:
    """Numbers kept of a tile."""
    patches = (vision.tile // vision.patch) ** 2
    layer = patches * (11 * vision.width + 2 * vision.ffn_width + vision.heads * patches)
    return (
        vision.depth * layer + patches * (3 * vision.patch**2 + 3 * vision.width) + vision.tokens_per_tile * model.width
    )


def take_steps(recipe: Recipe, rows: int, data: DataShape, precision: str, device: str) -> Speed:
    """Train on `rows` rows of random tokens, in documents as long as the data's, for a few steps, and time them."""
    import numpy as np
    import torch

    from foretell.data.loader import NO_LOSS, PackedBatch
    from foretell.model.multimodal import Multimodal
    from foretell.model.parametrize import parameter_groups
    from foretell.train.objective import NextToken
    from foretell.train.optim import build_adamw, clip, gradient_norm
    from foretell.train.setup import keep_freed_memory

    length, vocabulary = recipe.data.sequence_length, recipe.tokenizer.vocab_size
    config = recipe.model.model_copy(update={"vocab_size": vocabulary, "image_token": 0})
    on, train = torch.device(device), recipe.train
    if on.type == "cpu":
        keep_freed_memory()  # as training does
    model = Multimodal(config).to(on).train()
    model.compute_dtype = getattr(torch, precision)
    if train.compile:
        model.compile_blocks()
    optimizer = build_adamw(parameter_groups(model, train.optimizer, train.batch_tokens, train.tokens))
    parameters = list(model.parameters())
    tokens = np.random.default_rng(0).integers(1, vocabulary, (rows, length))
    side, tiles = 1, 0
    if config.vision is not None:
        side, slots = config.vision.tile, config.vision.tokens_per_tile
        tiles = min(round(data.tiles * tokens.size), tokens.size // slots)
        tokens.reshape(-1)[: tiles * slots] = config.image_token
    reach = _document(recipe, data)
    targets = tokens.copy()
    targets[:, round(data.learned * length) :] = NO_LOSS
    batch = PackedBatch(
        tokens,
        targets,
        np.tile(np.arange(length) % reach, (rows, 1)),
        np.tile(np.arange(length, dtype=np.int32) // reach, (rows, 1)),
        np.zeros((rows, length), np.uint8),
        np.zeros((tiles, side, side, 3), np.uint8),
    )
    objective = NextToken(["random"], np.ones(vocabulary))
    micro, update = [], []
    for _ in range(1 + _STEPS):
        begun = time.perf_counter()
        loss, _sums = objective.loss(model, batch, on)
        (loss / tokens.size).backward()  # type: ignore[no-untyped-call]
        _wait(device)
        half = time.perf_counter()
        clip(parameters, float(gradient_norm(parameters)), train.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        micro.append(half - begun)
        update.append(time.perf_counter() - half)
    return Speed(tokens.size, statistics.median(micro[1:]), statistics.median(update[1:]))


def _wait(device: str) -> None:
    if device != "cpu":
        import torch

        torch.accelerator.synchronize()


def resident(device: str) -> float:
    """Bytes that this process holds now; on a GPU, that are taken of its memory."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return float(total - free)
    import psutil

    return float(psutil.Process().memory_info().rss)


def capacity(device: str) -> float:
    """Bytes of memory that training on a device may use; infinite where unknown."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(memory_bytes()) or float("inf")
