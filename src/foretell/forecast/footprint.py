"""What a training step of a shape needs of a device: memory by counting, time by taking a few."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from foretell.forecast.job import Job, Layout
from foretell.forecast.rungs import DataShape
from foretell.measure.machine import memory_bytes
from foretell.recipe import ModelConfig, Recipe, VisionConfig

_CHUNK = 512  # of `train.loss`, which needs torch
_STEPS = 3  # timed, after one that warms up
_SLACK = 1.2  # what an allocator holds beyond what is in use; 1.1 to 1.25 was measured with glibc


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step. process: what is there without a model. activations: of a micro-batch,
    with what its loss and backward pass need beside. accumulates: gradients stay while the next micro-batch is read.
    gathered: weights and gradients that are whole for a while, where they are sharded."""

    process: float
    weights: float
    gradients: float
    moments: float
    activations: float
    accumulates: bool
    gathered: float = 0.0

    @property
    def total(self) -> float:
        # Within one micro-batch activations are freed at the pace at which gradients come.
        passing = self.gradients + self.activations if self.accumulates else max(self.gradients, self.activations)
        return self.process + self.weights + self.moments + self.gathered + passing


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


def memory(
    recipe: Recipe,
    data: DataShape,
    process: float,
    precision: str,
    device: str,
    layout: Layout | None = None,
) -> Memory:
    """Peak memory of training a recipe on one device, or on each rank of a layout: see `memory_per_rank`.

    layout: its rows are those of a rank's micro-batch; default one device, with the rows that training chooses.
    """
    return memory_per_rank(
        Job.of(recipe, data), layout or Layout(rows=micro_rows(recipe)), process, precision, device, _SLACK
    )


def memory_per_rank(
    job: Job, layout: Layout, process: float, precision: str, device: str = "cuda", slack: float = 1.0
) -> Memory:
    """Peak memory of a training step on each rank of a layout, in bytes.

    Weights, gradients and two moments are float32. A layer's lie once over `shard` x `tensor` ranks, embedding and head
    once over `shard`. Where they are sharded, embedding and head are gathered in float32 through the step, and three
    layers (all and one, where reshard is never) in the compute type: FSDP2 gathers into one buffer and copies tensors
    out while the next layer is on its way. Gradients are whole, in float32, where they travel after the last of several
    micro-batches; else one layer's waits beside the buffer that it travels from. Activations are those of a
    micro-batch, as the checkpoint policy keeps them: all; a layer's products (selective); or its input (full), with one
    layer made anew.

    process: bytes without a model. slack: what the allocator holds beyond what is in use, over activations. Counted
    for this project's step: the loss never holds whole logits. On a CPU attention keeps its scores, on a GPU the fused
    kernel keeps none.
    """
    size = 4 if precision == "float32" else 2
    depth, block, several = job.model.depth, job.block / layout.tensor, layout.micro_batches(job) > 1
    held = _activations(job, layout, layout.rows * job.length, size, device) * slack
    state = 4.0 * (depth * block + job.rest)
    if layout.shard == 1:
        return Memory(process, state, state * _threads(job, layout, device), 2 * state, held, several)
    part = state / layout.shard
    gradients = part + 8 * job.rest  # what is in no layer is summed last, from a buffer of its own
    if several:
        gradients = part if layout.reshard == "always" else state
    layers = size * block * (depth + 1 if layout.reshard == "never" else 3)
    gathered = 4 * job.rest + layers + (size + 4) * block
    return Memory(process, part, gradients, 2 * part, held, several, gathered)


def kept(job: Job, layout: Layout) -> tuple[float, float]:
    """Numbers that a layer keeps a token on a rank: all that its backward pass needs, and what the policy keeps."""
    model = job.model
    heads, groups = model.heads * model.head_dim, model.n_kv_heads * model.head_dim
    width = model.width / (layout.tensor if layout.sequence else 1)
    # Under sequence parallelism a product's input is gathered, and kept so.
    whole = 4 * width + (4 * heads + 4 * model.ffn_width + (heads + groups) * model.qk_norm) / layout.tensor
    whole += 2 * model.width * layout.sequence
    some = {
        "none": whole,
        "selective": 3 * width + (heads + 2 * groups + 2 * model.ffn_width) / layout.tensor,
        "full": width,
    }
    return whole, some[layout.checkpoint]


def _activations(job: Job, layout: Layout, tokens: int, size: int, device: str) -> float:
    """Bytes that a micro-batch's backward pass needs at its beginning; size: bytes a number."""
    model, vocabulary, data, threads = job.model, job.model.vocab_size, job.data, _threads(job, layout, device)
    turned = (model.heads + model.n_kv_heads) * model.head_dim
    whole, some = kept(job, layout)
    scores = model.heads / layout.tensor * _scores(_document(job)) if device == "cpu" else 0
    layers = model.depth * (some + scores * (layout.checkpoint == "none"))
    if layout.checkpoint != "none":
        layers += whole + scores - some
    held = float(size * tokens * (layers + 2 * turned + 4 * model.width))
    if model.vision is not None:
        held += size * tokens * data.tiles * _tile(model.vision, model)
    head = job.head
    if size == 2 and layout.shard == 1:
        held += 2 * threads * (model.depth * job.block / layout.tensor + job.rest - head)  # weights as multiplied
    # First the loss makes probabilities and the head's gradient, then the last layer's gradients need room.
    loss = threads * (2 * size * _CHUNK * vocabulary + (2 * size * head if size == 2 else 0))
    passing = size * tokens * (4 * model.ffn_width / layout.tensor + 3 * model.width)
    return held + 4 * threads * head + max(loss, passing)


def _threads(job: Job, layout: Layout, device: str) -> int:
    """That share a micro-batch, each with gradients and weights of its own."""
    if device != "cpu" or layout.tensor > 1:
        return 1
    from foretell.train.sharing import sharers

    return sharers(layout.rows, job.length, job.model.width)


def _scores(length: int) -> float:
    """Scores that a query and head of a row of one document keeps on a CPU, where they are made block by block."""
    from foretell.model.attention import BLOCK, KEPT, LONG_STEP, STEP

    step = STEP if length <= BLOCK else LONG_STEP
    padded = -(-length // step) * step
    if padded > KEPT:
        return 0  # made anew
    ends = [min(start + BLOCK, padded) for start in range(0, padded, BLOCK)]
    return sum(end * (end - start) for start, end in zip(range(0, padded, BLOCK), ends, strict=True)) / length


def _document(job: Job) -> int:
    """Length of equal documents in which a query sees as many positions as it does in the data."""
    return max(1, min(job.length, round(2 * job.data.context - 1)))


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
    from foretell.train.sharing import add_gradients, sharers

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
    reach = _document(Job.of(recipe, data))
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
    threads = sharers(rows, length, config.width) if on.type == "cpu" else 1
    micro, update = [], []
    for _ in range(1 + _STEPS):
        begun = time.perf_counter()
        add_gradients(objective, model, batch, tokens.size, parameters, threads)
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
