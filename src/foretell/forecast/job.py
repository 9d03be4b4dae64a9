"""What is trained, apart from where: a model, its batch and its tokens; and how it is spread over devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from foretell.forecast.rungs import DataShape
from foretell.model.describe import parameter_count, training_flops
from foretell.recipe import ModelConfig, Recipe

Policy = Literal["none", "selective", "full"]
Reshard = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Job:
    """A training run. length: tokens of a row; batch_tokens: of an optimizer step over all devices. rows: of a
    micro-batch on one device at most, None where the plan may choose. data: what a token costs beside the matrices.
    compiled: whether train.compile is set, which some layouts refuse."""

    name: str
    model: ModelConfig
    length: int
    batch_tokens: int
    tokens: int
    data: DataShape
    rows: int | None = None
    compiled: bool = False

    @classmethod
    def of(cls, recipe: Recipe, data: DataShape | None = None) -> Job:
        """A recipe's run; its vocabulary is the tokenizer's. data: default text, a document a row."""
        return cls(
            recipe.name,
            recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size}),
            recipe.data.sequence_length,
            recipe.train.batch_tokens,
            recipe.train.tokens,
            data or DataShape((recipe.data.sequence_length + 1) / 2),
            recipe.train.micro_batch,
            recipe.train.compile,
        )

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @property
    def block(self) -> float:
        """Parameters of one layer of the decoder."""
        model = self.model
        qkv = (model.heads + 2 * model.n_kv_heads) * model.head_dim
        return model.width * (qkv + model.heads * model.head_dim + 3 * model.ffn_width + 2)

    @property
    def head(self) -> int:
        """Parameters of the embedding, and as many of a head that is its own."""
        return self.model.vocab_size * self.model.width

    @property
    def rest(self) -> float:
        """Parameters outside the decoder's layers."""
        return self.parameters - self.model.depth * self.block

    @property
    def batch_rows(self) -> int:
        return self.batch_tokens // self.length

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole run: forward and backward, nothing done twice."""
        return self.flops_per_token * self.tokens

    @property
    def flops_per_token(self) -> float:
        return training_flops(self.model, 1, self.data.tiles, self.data.context, self.data.learned)


@dataclass(frozen=True)
class Layout:
    """How a run is spread: the recipe's `parallel` block with its numbers chosen, and the rows of a micro-batch.

    replicate, shard, tensor: their product is the number of devices. Each of `replicate` groups holds the whole state
    once, over its `shard` x `tensor` devices; replicate and shard share the batch, tensor the layers' matrices, but
    neither embedding nor head. sequence: what lies between the matrices is divided over `tensor` too. reshard: auto
    gives gathered weights up after the forward pass and keeps whole gradients until a step's last micro-batch; always
    sums gradients after each, which holds least; never keeps the weights too. rows: of a micro-batch on one device.
    """

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    sequence: bool = False
    reshard: Reshard = "auto"
    checkpoint: Policy = "none"
    rows: int = 1

    @property
    def world(self) -> int:
        return self.replicate * self.shard * self.tensor

    @property
    def ways(self) -> int:
        """Parts of the batch."""
        return self.replicate * self.shard

    def micro_batches(self, job: Job) -> int:
        """That a device reads in a step; the last may be smaller."""
        return -(-job.batch_rows // (self.ways * self.rows))

    def block(self) -> dict[str, Any]:
        """The recipe's `parallel` block."""
        return {
            "replicate": self.replicate,
            "shard": self.shard,
            "tensor": self.tensor,
            "sequence": self.sequence,
            "reshard": self.reshard,
            "checkpoint": self.checkpoint,
        }
