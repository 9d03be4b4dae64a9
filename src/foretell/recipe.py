"""Recipes: the whole configuration of a run, in one YAML file with dotted overrides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from foretell import files
from foretell.images import Tiling
from foretell.sections import Above as Above
from foretell.sections import Distributed as Distributed
from foretell.sections import Name as Name
from foretell.sections import OptimizerConfig as OptimizerConfig
from foretell.sections import ParallelConfig as ParallelConfig
from foretell.sections import Positive as Positive
from foretell.sections import Section as Section
from foretell.sections import Share as Share
from foretell.sections import TrainConfig as TrainConfig
from foretell.sections import distinct
from foretell.tuning import AlignConfig


class VisionConfig(Section):
    """Image tower and connector. Sides in pixels. lr_multiplier: the tower's learning rate over the decoder's.

    What a tile is longer than whole patches is not seen, as in the towers this one follows. ffn: width of its MLP, in
    place of mlp_ratio times the width.
    """

    tile: Positive = 64
    patch: Positive = 8
    shuffle: Positive = 2
    grid: Annotated[int, Field(ge=1, le=8)] = 1
    width: Positive = 96
    depth: Positive = 3
    head_dim: Positive = 32
    mlp_ratio: Positive = 4
    ffn: Positive | None = None
    norm_eps: float = 1e-6
    lr_multiplier: float = Field(1.0, gt=0)
    base_width: Positive = 96
    base_depth: Positive = 3

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        side = self.tile // self.patch
        if side == 0 or side % self.shuffle:
            raise ValueError(
                f"tile {self.tile} holds {side} patches a side, which shuffle {self.shuffle} does not divide; allowed "
                f"are for example tiles of {self.patch * self.shuffle * 4} or {self.patch * self.shuffle * 8}"
            )
        _ = self.tiling  # says itself which tiles and grids it allows
        if self.width % self.head_dim:
            raise ValueError(
                f"width {self.width} is not divisible by head_dim {self.head_dim}; choose a multiple of it"
            )
        return self

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @property
    def ffn_width(self) -> int:
        return self.ffn or self.mlp_ratio * self.width

    @property
    def tiling(self) -> Tiling:
        return Tiling(self.tile, self.patch, self.shuffle, self.grid)

    @property
    def tokens_per_tile(self) -> int:
        return self.tiling.tokens_per_tile


class RopeScaling(Section):
    """Rotary positions stretched beyond the length of pre-training; names as in transformers' rope_parameters.

    linear: every frequency over factor. llama3: the low ones only, by low_ and high_freq_factor. yarn: a ramp between
    beta_fast and beta_slow turns, and cos and sin times attention_factor (None: 0.1 · ln factor + 1).
    Sources: Chen et al., arXiv 2306.15595; Llama 3.1, arXiv 2407.21783; Peng et al., arXiv 2309.00071.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float = Field(gt=0)
    original_max_position_embeddings: Positive | None = None
    low_freq_factor: Above = 1.0
    high_freq_factor: Above = 4.0
    attention_factor: Above | None = None
    beta_fast: Above = 32.0
    beta_slow: Above = 1.0
    truncate: bool = True

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind != "linear" and self.original_max_position_embeddings is None:
            raise ValueError(f"{self.kind} needs original_max_position_embeddings, the length of pre-training")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must be above low_freq_factor {self.low_freq_factor}"
            )
        return self


class ModelConfig(Section):
    """The decoder, its optional image tower, and the base shape of the CompleteP parametrisation.

    vocab_size and image_token are filled in by the pipeline once the tokenizer exists. q_heads: how many query heads,
    where heads × head_dim is not the width. qkv_bias, qk_norm (RMSNorm of each query and key head before rotation),
    sliding_window (positions a query sees, itself included, in the layers sliding_layers) and rope_scaling are what
    open models need.
    """

    vocab_size: Positive = 4096
    image_token: int = 4
    width: Positive = 128
    depth: Positive = 4
    head_dim: Annotated[int, Field(ge=16)] = 32
    q_heads: Positive | None = None
    kv_heads: Positive | None = None
    ffn: Positive | None = None
    max_length: Positive = 512
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    sliding_window: Positive | None = None
    sliding_layers: tuple[int, ...] = ()
    norm_eps: float = Field(1e-5, gt=0)
    tie_embeddings: bool = True
    vision: VisionConfig | None = None
    base_width: Positive = 128
    base_depth: Positive = 4
    init_std: float = Field(0.02, gt=0)
    embed_multiplier: float = Field(1.0, gt=0)
    logit_multiplier: float = Field(1.0, gt=0)
    zero_init_outputs: bool = True

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.q_heads is None and self.width % self.head_dim:
            raise ValueError(
                f"width {self.width} is not divisible by head_dim {self.head_dim}; choose a multiple of it"
            )
        if self.heads % self.n_kv_heads:
            raise ValueError(
                f"{self.heads} heads cannot share {self.n_kv_heads} kv_heads; set kv_heads to a divisor of {self.heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even, since rotary positions turn pairs")
        if (self.sliding_window is None) != (not self.sliding_layers):
            raise ValueError("sliding_window and sliding_layers belong together; set both or neither")
        if any(not 0 <= layer < self.depth for layer in self.sliding_layers):
            raise ValueError(f"sliding_layers names a layer outside 0…{self.depth - 1}")
        return self

    @property
    def heads(self) -> int:
        return self.q_heads or self.width // self.head_dim

    @property
    def n_kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def ffn_width(self) -> int:
        """SwiGLU width: 8/3 of the width, rounded up to a multiple of 32, unless set."""
        return self.ffn or -(-self.width * 8 // 3 // 32) * 32


class PythonSource(Section):
    """The Python installation on this machine: sources, docstrings, package documentation."""

    kind: Literal["python"] = "python"
    name: Name = "python"
    weight: Above = 1.0
    max_bytes: Positive = 40_000_000
    heldout: Share = 0.05


class _Files(Section):
    weight: Above = 1.0
    path: Path
    license: str = "unknown"
    language: str = "und"
    heldout: Share = 0.02
    max_bytes: Positive | None = None


class FolderSource(_Files):
    """A folder of text, Markdown and code, read recursively."""

    kind: Literal["folder"] = "folder"
    name: Name = "folder"


class JsonlSource(_Files):
    """JSON Lines: one object a line with a text field, or `messages` in OpenAI form."""

    kind: Literal["jsonl"] = "jsonl"
    name: Name = "jsonl"
    text_field: str = "text"


class ParquetSource(_Files):
    """Interleaved documents as OBELICS-style Parquet (`texts`, `images`); a file, a folder or a glob.

    split: what decides which rows are held out. "column": the `split` column where it says "heldout", "test",
    "validation" or the like; rows without it by id. "id": the share `heldout` of all ids, whatever the column says.
    """

    kind: Literal["parquet"] = "parquet"
    name: Name = "parquet"
    split: Literal["column", "id"] = "column"
    images: bool = True


class HubSource(Section):
    """A data set on the Hugging Face hub, streamed (needs the `hub` extra and network)."""

    kind: Literal["hub"] = "hub"
    name: Name = "hub"
    weight: Above = 1.0
    dataset: str
    subset: str | None = None
    text_field: str = "text"
    license: str = "unknown"
    language: str = "en"
    heldout: Share = 0.001
    max_bytes: Positive = 1_000_000_000


class WorldSource(Section):
    """The generated world. kinds: kind name → share of this source's documents; empty means all, equally."""

    kind: Literal["world"] = "world"
    name: Name = "world"
    weight: Above = 1.0
    documents: Positive = 10_000
    heldout_documents: Positive = 600
    kinds: dict[str, Above] = Field(default_factory=dict)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)


Source = Annotated[
    PythonSource | FolderSource | JsonlSource | ParquetSource | HubSource | WorldSource, Field(discriminator="kind")
]


class PhaseConfig(Section):
    """A phase of a curriculum. share: of the training tokens, relative to the other phases. weights: of sources, in
    place of their own; 0 leaves one out."""

    share: Above
    weights: dict[Name, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class DataConfig(Section):
    """The mixture. weight: share of the packed training tokens; a source is repeated when it is smaller. curriculum:
    phases that are read one after another, each a mixture of its own; a smaller run on the same pack passes through all
    of them too."""

    sources: tuple[Source, ...]
    sequence_length: Annotated[int, Field(ge=16)] = 512
    tokens: Positive = 2_000_000
    heldout_tokens: Positive = 100_000
    max_epochs: float = Field(4.0, ge=1)
    cutoff: str | None = None
    curriculum: tuple[PhaseConfig, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [source.name for source in self.sources]
        distinct(names)
        for number, phase in enumerate(self.curriculum, 1):
            if unknown := sorted(set(phase.weights) - set(names)):
                raise ValueError(f"phase {number} weighs {unknown[0]!r}, but the sources are {', '.join(names)}")
            if not any(phase.weights.get(source.name, source.weight) for source in self.sources):
                raise ValueError(f"phase {number} gives every source the weight 0; leave one above it")
        if self.cutoff is not None and not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", self.cutoff):
            raise ValueError(f"cutoff {self.cutoff!r} is no date; allowed are such as 2023, 2023-06 and 2023-06-30")
        return self


class TokenizerConfig(Section):
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    train_bytes: Positive = 8_000_000


class ExamineConfig(Section):
    """Held-out questions a visual task; samples drawn for the run page; exams whose holdouts are sat for the card."""

    questions: Positive = 200
    shown: Positive = 12
    samples: Positive = 6
    max_tokens: Positive = 40
    exams: list[str] = Field(default_factory=list)


class ForecastConfig(Section):
    """The ladder of small runs below a run, and what is forecast from it.

    widths: of the rungs; without them all multiples of head_dim up to `largest`, the largest rung's compute over the
    target's. depths: instead of widths, for a ladder in depth. seeds: of each rung, the smallest first; the last number
    holds for the rest. batch_exponent: batch ∝ tokens^x, and learning rate ∝ √batch. horizon_exponent: learning rate ∝
    tokens^−x beside that. unit, kinds: which held-out loss is forecast, and of which kinds of document (empty: of all).
    floor: the loss that no model can beat, where it is known. tail: least and largest local exponent beyond the ladder,
    where it is known of larger models on such data. precision: asked half-width of the interval, as a share.
    on_alarm: what a run does that leaves its forecast's band.
    """

    widths: tuple[Positive, ...] = ()
    depths: tuple[Positive, ...] = ()
    seeds: Annotated[tuple[Positive, ...], Field(min_length=1)] = (3, 2, 1)
    largest: float = Field(1 / 30, gt=0, lt=1)
    batch_exponent: float = Field(0.5, ge=0, le=1)
    horizon_exponent: float = Field(0.0, ge=-1, le=1)
    unit: Literal["bits per byte", "nats per token"] = "bits per byte"
    kinds: tuple[str, ...] = ()
    floor: float | None = Field(None, ge=0)
    tail: tuple[Above, Above] | None = None
    precision: float | None = Field(None, gt=0)
    level: float = Field(0.9, ge=0.5, lt=1)
    on_alarm: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if self.widths and self.depths:
            raise ValueError("widths and depths are both set; a ladder scales one of them, the other stays")
        return self


class Recipe(Distributed):
    """Everything a run needs. Paths in it are relative to the recipe's own folder."""

    name: Name
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    examine: ExamineConfig = ExamineConfig()
    forecast: ForecastConfig | None = None
    align: AlignConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.data.sequence_length > self.model.max_length:
            raise ValueError(
                f"data.sequence_length {self.data.sequence_length} is longer than model.max_length "
                f"{self.model.max_length}; raise model.max_length or shorten the sequences"
            )
        if self.data.curriculum and self.train.tokens > self.data.tokens:
            raise ValueError(
                f"train.tokens {self.train.tokens} is more than data.tokens {self.data.tokens}, so that the curriculum "
                "would begin again; raise data.tokens to at least that"
            )
        if self.train.batch_tokens < self.data.sequence_length:
            raise ValueError(
                f"train.batch_tokens {self.train.batch_tokens} is less than one sequence of "
                f"{self.data.sequence_length} tokens; allowed is at least that"
            )
        return self


def digest(value: BaseModel | dict[str, Any] | list[Any]) -> str:
    """Hex SHA-256 of a configuration's canonical JSON."""
    return files.digest(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
