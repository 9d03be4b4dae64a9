"""What this machine does in a minute: products, memory, training, decoding, and the feeding of both.

A rate is the fastest of repeated tries, but a training step is the median of a few: whoever reads them wants to know
what the machine can do, and what a run will get.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell.errors import MissingExtraError
from foretell.forecast.rungs import DataShape
from foretell.measure import machine
from foretell.model.describe import parameter_count, training_flops
from foretell.recipe import ModelConfig, PythonSource, Recipe, TokenizerConfig
from foretell.recipes import check_recipe
from foretell.run import Report, code_version, silent

if TYPE_CHECKING:
    from foretell.model.multimodal import Multimodal
    from foretell.model.quantized import Bits

# Of the throughput benchmark, and of what its issue asks of a GPU: width, depth, head size, vocabulary, row, rows.
SHAPES = {
    "tiny": (64, 2, 32, 512, 128, 4),
    "1m": (128, 4, 32, 4096, 512, 16),
    "10m": (320, 7, 64, 4096, 512, 8),
    "30m": (512, 8, 64, 4096, 512, 8),
    "150m": (768, 18, 64, 32768, 2048, 16),
    "1b": (2048, 18, 128, 32768, 2048, 8),
}
STAGES = ("products", "memory", "training", "decoding", "tokenizer", "loader")
_CONTEXT = 128  # tokens in the cache when decoding begins
_TEXT = 3_000_000  # bytes that are tokenised
_CACHES = 64_000_000  # bytes, of a processor or a GPU


@dataclass(frozen=True)
class Figure:
    """note: what the value means, or is compared with."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Trained:
    """Rates a second: tokens; FLOPs by our count; FLOPs counted as 6 a token and parameter."""

    tokens_s: float
    flops_s: float
    flops_s_6n: float


def shape_recipe(name: str) -> Recipe:
    """A recipe of one of SHAPES; its micro-batch is the step's."""
    width, depth, head, vocabulary, length, rows = SHAPES[name]
    model = ModelConfig(width=width, depth=depth, head_dim=head, max_length=length)
    raw = {
        "name": name,
        "data": {"sources": [{"kind": "python"}], "sequence_length": length, "tokens": 10**7},
        "tokenizer": {"vocab_size": vocabulary},
        "model": model.model_dump(mode="json"),
        "train": {"tokens": 10**7, "batch_tokens": rows * length, "micro_batch": rows},
    }
    return check_recipe(raw, name)


def bench(
    recipe: Recipe, *, device: str | None = None, quick: bool = False, report: Report = silent
) -> Iterator[Figure]:
    """Measure this machine, and a recipe's model on it; each figure as it is known.

    device: default the recipe's. quick: a tenth of the time, for figures that say less. Training sees random tokens, a
    document a row, no images; decoding writes with random weights, which take as long as any.
    Raises TrainingError for a device that is not here, MissingExtraError without torch.
    """
    if not machine.has_torch():
        raise MissingExtraError("Measuring how fast this machine trains", "torch")
    import torch

    from foretell.train.setup import check_compiler, pick_device, pick_precision

    check_compiler(recipe.train)
    place = pick_device(device or recipe.train.device)
    precision = pick_precision(recipe.train.precision, place)
    config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size, "image_token": 0})

    def begin(stage: str) -> None:
        report("bench", STAGES.index(stage), len(STAGES), stage)

    share = 0.1 if quick else 1.0
    begin("products")
    rates = dict[str, float]()
    kinds: tuple[machine.MatmulType, ...] = ("float32", "bfloat16")
    for kind in kinds:
        size = 1024 if place.type == "cpu" else 8192
        rates[kind] = machine.matmul_rate(kind, size, share, str(place))
        yield Figure(f"matmul_{kind}", rates[kind] / 1e9, "GFLOP/s", f"{size} × {size} × {size}")
    begin("memory")
    copied = machine.copy_bandwidth(seconds=share, device=str(place))
    yield Figure("memory_copy", copied / 1e9, "GB/s", "read and written")
    read = machine.read_bandwidth(seconds=share, device=str(place))
    yield Figure("memory_read", read / 1e9, "GB/s", "what decoding is held against")

    begin("training")
    trained = training(recipe, precision, str(place))
    peak = rates[precision]
    form = f"{precision}{', compiled' if recipe.train.compile else ''}, {recipe.train.batch_tokens:,} tokens a step"
    yield Figure("train_tokens_s", trained.tokens_s, "tokens/s", form)
    yield Figure("train_gflops", trained.flops_s / 1e9, "GFLOP/s", "own count: products, attention, head where learned")
    yield Figure("mfu", 100 * trained.flops_s / peak, "%", f"of the {precision} matmul rate, own count")
    yield Figure("mfu_6n", 100 * trained.flops_s_6n / peak, "%", "the same, by 6 FLOPs a parameter and token")
    if sheet := machine.datasheet_rate(str(place)):
        yield Figure("mfu_datasheet", 100 * trained.flops_s / sheet, "%", f"of {sheet / 1e12:,.0f} TFLOP/s as sold")

    begin("decoding")
    dtype = getattr(torch, precision)
    for rows in (1, 16):
        speed, nbytes = decoding(config, dtype, place, rows, seconds=3 * share)
        yield Figure(f"decode_tokens_s_{rows}", speed, "tokens/s", f"{rows} at a time, {precision}")
        if rows == 1:
            cached = "; caches may hold that" if nbytes < _CACHES else ""
            note = f"of memory read, {nbytes / 1e6:,.1f} MB a token{cached}"
            yield Figure("decode_bandwidth", 100 * speed * nbytes / read, "%", note)
    begin("tokenizer")
    yield from feeding(recipe, share, partial(begin, "loader"))
    report("bench", len(STAGES), len(STAGES), "done")


def training(recipe: Recipe, precision: str, device: str, data: DataShape | None = None) -> Trained:
    """Rates of training a recipe's model, over whole optimizer steps. data: default text, a document a row."""
    from foretell.forecast.footprint import micro_rows, take_steps

    length = recipe.data.sequence_length
    data = data or DataShape((length + 1) / 2)
    speed = take_steps(recipe, micro_rows(recipe), data, precision, device)
    tokens = recipe.train.batch_tokens // length * length
    config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    flops = training_flops(config, tokens, data.tiles * tokens, data.context, data.learned * tokens)
    rate = tokens / speed.step(tokens)
    return Trained(rate, rate * flops / tokens, rate * 6 * parameter_count(config))


def decoding(
    config: ModelConfig, dtype: Any, device: Any, rows: int, *, bits: Bits | None = None, seconds: float = 2.0
) -> tuple[float, float]:
    """Tokens a second that so many replies get together, and the bytes that a step reads.

    Greedy, with random weights. bits: of the weights, None for those of dtype.
    """
    import torch

    from foretell.model.multimodal import Multimodal

    model = Multimodal(config).to(device, dtype).eval()
    model.compute_dtype = dtype
    with torch.inference_mode():
        return _decode(model, rows, bits, seconds)


def _decode(model: Multimodal, rows: int, bits: Bits | None, seconds: float) -> tuple[float, float]:
    import numpy as np
    import torch

    from foretell.engine.cache import BLOCK
    from foretell.engine.runner import Runner
    from foretell.template import Encoded

    config = model.config
    context = min(_CONTEXT, config.max_length // 2)
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (rows, context)).astype(np.int32)
    runner = Runner(model, 0, bits)
    cache = runner.cache(rows * config.max_length)
    none = np.zeros((0, 0, 0, 3), np.uint8)
    sequences = [runner.open(Encoded(row, np.zeros(context, np.bool_), none)) for row in ids]
    for sequence in sequences:
        sequence.blocks = cache.take(-(-config.max_length // BLOCK))

    def step() -> None:
        pieces = [(sequence, len(sequence.ids) - sequence.filled) for sequence in sequences]
        states = torch.stack([found[-1] for found in runner.forward(cache, pieces)])
        for sequence, token in zip(sequences, runner.logits(states).argmax(-1).tolist(), strict=True):
            sequence.ids.append(token)

    step()
    step()
    times, begun = list[float](), time.perf_counter()
    while (not times or time.perf_counter() - begun < seconds) and len(sequences[0].ids) < config.max_length:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    filled = sum(len(sequence.ids) for sequence in sequences)
    return rows / statistics.median(times), runner.weight_bytes + filled * runner.token_bytes


def feeding(recipe: Recipe, share: float, loading: Callable[[], None]) -> Iterator[Figure]:
    """Tokenizer and loader on this Python installation's own text, each in one thread. loading: told in between."""
    from foretell.data.document import SkipCount
    from foretell.data.loader import Loader
    from foretell.data.pack import PackSource, pack
    from foretell.data.sources import read_source
    from foretell.data.tokenizer import Tokenizer, train_tokenizer
    from foretell.template import Template

    documents = list(read_source(PythonSource(max_bytes=int(_TEXT * share)), "train", 0, SkipCount()))
    texts = ["\n".join(s.text for s in document.segments if s.text) for document in documents]
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read at every call; without it, all cores take part
    try:
        with tempfile.TemporaryDirectory(prefix="foretell-bench-") as name:
            folder = Path(name)
            wanted = TokenizerConfig(vocab_size=min(4096, recipe.tokenizer.vocab_size))
            train_tokenizer(iter(texts[: len(texts) // 4]), wanted, 1).save(folder)
            tokenizer = Tokenizer.load(folder)  # anew: it knows no piece of text
            begun = time.perf_counter()
            count = sum(map(len, tokenizer.encode_batch(texts)))
            size = sum(len(text.encode()) for text in texts)
            rate = size / 1e6 / (time.perf_counter() - begun)
            yield Figure("tokenizer_mb_s", rate, "MB/s", f"text, one thread, {size / count:.1f} bytes a token")
            loading()
            length = recipe.data.sequence_length
            source = PackSource(lambda: iter(documents), 1.0)
            tokens = min(count, 400 * length)
            pack({"python": source}, Template(tokenizer, None), tokenizer, folder / "pack", length, tokens)
            loader = Loader(folder / "pack", max(1, min(8, tokens // length)), 0)
            try:
                next(loader)
                read, begun = 0, time.perf_counter()
                while (spent := time.perf_counter() - begun) < share / 2:
                    read += next(loader).tokens.size
            finally:
                loader.close()
            note = f"text as packed rows, {read / spent:,.0f} tokens/s"
            yield Figure("loader_mb_s", read * size / count / 1e6 / spent, "MB/s", note)
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def as_json(recipe: Recipe, figures: list[Figure]) -> dict[str, Any]:
    """Figures with the machine and the model that they are of, as plain data."""
    import torch

    model = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    return {
        "code": code_version(),
        "machine": {
            "cores": machine.cores(),
            "threads": torch.get_num_threads(),
            "memory_bytes": machine.memory_bytes(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "torch": torch.__version__,
        },
        "model": {"recipe": recipe.name, "parameters": parameter_count(model), **model.model_dump(mode="json")},
        "figures": {figure.name: {k: v for k, v in asdict(figure).items() if k != "name"} for figure in figures},
    }
