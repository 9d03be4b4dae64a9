"""Where the processes of a run stand: replicate × shard × tensor, and what of that fits a model."""

from __future__ import annotations

from dataclasses import dataclass

from foretell.errors import TrainingError
from foretell.model.multimodal import Multimodal
from foretell.sections import ParallelConfig
from foretell.train.distributed import Group


@dataclass(frozen=True)
class Layout:
    """replicate × shard × tensor processes, and which of them this one is; neighbours share a row of the batch."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    rank: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        return {"replicate": self.replicate, "shard": self.shard, "tensor": self.tensor}

    @property
    def readers(self) -> int:
        """How many parts a batch is read in."""
        return self.replicate * self.shard

    @property
    def reader(self) -> int:
        """Which of the parts is this process's."""
        return self.rank // self.tensor

    @property
    def tensor_rank(self) -> int:
        return self.rank % self.tensor

    @property
    def shard_rank(self) -> int:
        return self.reader % self.shard

    @property
    def splits(self) -> bool:
        """Whether no process holds the whole model."""
        return self.shard * self.tensor > 1


def layout(config: ParallelConfig | None, group: Group) -> Layout:
    """Where this process stands. Raises TrainingError when the processes are not as many as the recipe's block says."""
    if config is None:
        return Layout(replicate=group.world, rank=group.rank)
    others = config.replicate * config.tensor
    shard = max(1, group.world // others) if config.shard == "auto" else config.shard
    if (wanted := others * shard) != group.world:
        raise TrainingError(
            f"parallel: replicate {config.replicate} × shard {shard} × tensor {config.tensor} are {wanted} processes, "
            f"but {group.world} are running. Start {wanted} of them (on one machine: foretell launch --ranks {wanted} "
            "…), or change the block."
        )
    return Layout(config.replicate, shard, config.tensor, group.rank)


def check_layout(model: Multimodal, config: ParallelConfig, place: Layout, length: int, compiled: bool) -> None:
    """Raise TrainingError, saying what to change, where the block does not fit the model or its training."""
    if compiled and config.checkpoint == "selective":
        raise TrainingError(
            "parallel.checkpoint: selective looks for products one by one, which train.compile hides. Set checkpoint "
            "to full or none, or compile to false."
        )
    t = place.tensor
    if t == 1:
        return
    shape = model.config
    counts = {"heads": shape.heads, "kv_heads": shape.n_kv_heads, "ffn": shape.ffn_width}
    if odd := [f"{count} {name}" for name, count in counts.items() if count % t]:
        raise TrainingError(
            f"parallel.tensor is {t}, which does not divide {' and '.join(odd)} of this model. Choose a common divisor "
            f"of {', '.join(f'{name} {count}' for name, count in counts.items())}, or 1."
        )
    if config.sequence and length % t:
        raise TrainingError(
            f"parallel.sequence splits rows of {length} tokens over {t} processes, which does not come out even. Make "
            f"the sequence length a multiple of {t}, or sequence false."
        )
    for clash, name in ((model.lora is not None, "adapters (lora.rank)"), (compiled, "train.compile")):
        if clash:
            raise TrainingError(
                f"parallel.tensor is {t}, which does not go with {name} yet. Set tensor to 1 and shard in its place, "
                f"or leave {name} out."
            )
