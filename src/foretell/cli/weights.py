"""weights import, weights export, weights graft."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from foretell.cli import draw
from foretell.pages import size

app = typer.Typer(help="Weights: open models in, ours out.", no_args_is_help=True)


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Format(StrEnum):
    hf = "hf"
    gguf = "gguf"


class Stored(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    q8_0 = "q8_0"


SourceName = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A hub id (org/name), a folder in Hugging Face form, or a .gguf file.")
]


@app.command("import")
def import_(
    source: SourceName,
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder; default models/NAME.")] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Store in this type; default: as the source does.")] = None,
) -> None:
    """Turn open weights into a checkpoint folder that every other command takes."""
    import torch

    from foretell.weights.importing import import_weights

    folder = out or Path("models") / _name(source)
    with _whole_or_nothing(), draw.progress() as report:
        facts = import_weights(source, folder, dtype=getattr(torch, dtype) if dtype else None, report=report)
    print(f"{facts['parameters'] / 1e6:,.0f} M parameters, {size(facts['bytes'])}: {folder}")
    print(f"Talk to it: foretell chat {folder}")


@app.command("export")
def export_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run directory, a checkpoint folder, or a SOURCE.")],
    format: Annotated[Format, typer.Option("--format", help="hf: for transformers and vLLM; gguf: for llama.cpp.")] = (
        Format.hf
    ),
    out: Annotated[Path | None, typer.Option(help="Folder to write; default exports/NAME-FORMAT.")] = None,
    dtype: Annotated[Stored | None, typer.Option(help="Store in this type; q8_0 for gguf only.")] = None,
    license: Annotated[str | None, typer.Option(help="SPDX identifier, or a file with the terms.")] = None,
) -> None:
    """Write a model in the form that other engines serve: multipliers folded, tokenizer and template beside it."""
    from foretell.loading import find_checkpoint, is_foreign
    from foretell.weights.exporting import export

    if not is_foreign(model):
        find_checkpoint(model)  # says best what is missing
    folder = out or Path("exports") / f"{_name(model)}-{format}"
    with _whole_or_nothing(), draw.progress() as report:
        kind = dtype.value if dtype else None
        written = export(model, folder, format=format.value, dtype=kind, license=license, report=report)
    for path in written:
        print(f"{size(path.stat().st_size):>9}  {path}")


@app.command("graft")
def graft_(
    vision: Annotated[
        str,
        typer.Argument(
            metavar="VISION",
            help="Whose tower: a run or checkpoint that sees, a folder or hub id in Idefics3, SmolVLM or SigLIP form, "
            "or fresh:SIDE,PATCH,WIDTH,DEPTH.",
        ),
    ],
    lm: Annotated[str, typer.Argument(metavar="LM", help="A text model: a run, a checkpoint, open weights, a hub id.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Conversations with images to train on; without it, the join alone is made."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory (or checkpoint folder) to write.")] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as connector.epochs=2.")
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Join a text model and an image tower by a fresh connector, and train it in stages: the connector first."""
    from foretell.measure.machine import has_torch

    if not has_torch():
        from foretell.errors import MissingExtraError

        raise MissingExtraError("Growing a model", "torch")
    from foretell.pipeline.growing import GrowConfig, grow, join
    from foretell.recipes import check_settings
    from foretell.run import place

    settings = check_settings(GrowConfig, overrides)
    if data is None:
        folder = out or Path("models") / f"{_name(lm)}-seeing"
        facts = join(vision, lm, folder, settings)
        print(f"{facts['parameters'] / 1e6:,.0f} M parameters, {facts['new_ids']} new control tokens: {folder}")
        print(f"Its connector has learned nothing yet. Train it: foretell sft --model {folder} --data DATA --out RUN")
        return
    folder = out or Path("runs") / f"{_name(lm)}-seeing"
    if place()[0] > 0:  # one process speaks for all that torchrun started
        grow(vision, lm, data, folder, settings)
        return
    with draw.progress() as report:
        manifests = grow(vision, lm, data, folder, settings, report)
    for stage in ("connector", "sft"):
        if "loss" in (found := manifests[stage]["metrics"]):
            print(f"{stage}: held-out loss {found['loss']:.4f} nats a token")
    for task, gain in manifests["examine"]["metrics"].items():
        print(f"{task} Gain over a grey picture: {gain['above_blind']:+.4f} nats a token")
    print(f"Page: {(folder / 'page' / 'index.html').resolve()}")
    print(f"Talk to it: foretell chat {folder}")


def _name(source: str) -> str:
    """What to call a model by default: the last part of its path or hub id, of a hub's GGUF the file."""
    path = Path(source)
    name = path.resolve().name if path.exists() else source.rpartition(":")[2].partition("@")[0].rpartition("/")[2]
    # The precision of the source, such as .Q4_1, is not that of what is written.
    return re.sub(r"([.-](I?Q\d\w*|B?F(16|32)))?\.gguf$", "", name, flags=re.IGNORECASE)


@contextmanager
def _whole_or_nothing() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = ("Interrupted. Nothing was written; run the same command again.",)
        raise
