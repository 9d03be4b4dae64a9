"""What one of many processes holds at the peak of a training step, from what a single one would."""

from __future__ import annotations

from dataclasses import replace

from foretell.forecast.footprint import Memory
from foretell.model.describe import describe
from foretell.recipe import Recipe
from foretell.sections import ParallelConfig


def share(memory: Memory, recipe: Recipe, shard: int, precision: str) -> Memory:
    """The memory of one of the processes that a recipe's `parallel` block lays out. shard: as it is counted out.

    memory: of one process with as many rows in a micro-batch. FSDP2 gathers a layer into one buffer and copies its
    tensors out while the next one's are on the way, so that three of them exist beside the gradients of one; what is in
    no layer, embedding and head above all, stays gathered through a step. With `reshard: never` all of it does. Layers
    are gathered in the compute type and reduced in float32. Whole gradients are held where micro-batches add them up
    before they travel. What one of `tensor` processes keeps for its backward pass is counted as its part of all.
    """
    block = recipe.parallel or ParallelConfig()
    split = shard * block.tensor
    if split == 1:
        return memory
    config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    parts = {part.name: part.parameters for part in describe(config)}
    layers = sum(parts[name] for name in ("attention projections", "mlp")) / block.tensor
    root = sum(parts[name] for name in parts if name.startswith(("embedding", "head")))
    size = 4 if precision == "float32" else 2
    gathered = 4.0 * root + 3 * size * layers / config.depth
    passing = (size + 4) * layers / config.depth  # a layer's gradients, and the buffer that they travel from
    if block.reshard == "never":
        gathered = 4.0 * root + size * layers + size * layers / config.depth
    whole = memory.accumulates and block.reshard != "always"
    gradients = memory.gradients / (block.tensor if whole else split)
    return replace(
        memory,
        weights=memory.weights / split + gathered,
        moments=memory.moments / split,
        gradients=gradients + passing + 8.0 * root * (not whole),
        activations=memory.activations / block.tensor + passing,
        accumulates=whole,
    )
