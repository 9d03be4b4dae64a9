"""sft, reward, dpo."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretell.cli import draw

if TYPE_CHECKING:
    from foretell.align.stages import Kind

Model = Annotated[str, typer.Option(metavar="MODEL", help="A run, a checkpoint, open weights, or a hub id.")]
Data = Annotated[Path, typer.Option(metavar="DATA", help="A file or folder of examples: JSON Lines, or a JSON array.")]
Out = Annotated[Path, typer.Option(help="Run directory to write, or to go on with.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as lr=1e-5 or epochs=2.")]


def register(app: typer.Typer) -> None:
    for command in (sft, reward, dpo):
        app.command()(command)


def sft(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006  (typer copies it)
    """Fine-tune a model on conversations: it learns what the assistant says."""
    found = _tune("sft", model, data, out, overrides)
    if "loss" in found:
        print(f"Held-out loss: {found['loss']:.4f} nats a token")
    print(f"Talk to it: foretell chat {out}")


def reward(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006
    """Train a reward model on preferences, starting from a fine-tuned model."""
    found = _tune("reward", model, data, out, overrides)
    _preferred(found)
    rows = [
        (row["pairs"], f"{row['confidence']:.2f}", f"{row['accuracy']:.2f}") for row in found.get("by_confidence", ())
    ]
    if rows:
        draw.table(("pairs", "confidence", "accuracy"), rows, right=(0, 1, 2))


def dpo(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006
    """Fine-tune a model on preferences directly, without a reward model."""
    _preferred(_tune("dpo", model, data, out, overrides))
    print(f"Talk to it: foretell chat {out}")


def _tune(kind: Kind, model: str, data: Path, out: Path, overrides: list[str]) -> dict[str, Any]:
    from foretell.measure.machine import has_torch

    if not has_torch():
        from foretell.errors import MissingExtraError

        raise MissingExtraError("Training", "torch")
    from foretell.align.stages import CONFIGS, tune
    from foretell.recipes import check_settings

    settings = check_settings(CONFIGS[kind], overrides)
    with draw.progress() as report:
        manifests = tune(kind, model, data, out, settings, report)
    packed = manifests["pack"]["metrics"]
    train, skipped = packed["train"], Counter[str]()
    for split in filter(None, packed.values()):
        skipped.update(split["skipped"])
    print(f"{train['examples']:,} examples in {train['rows']:,} rows, {train['fill']:.0%} full: {out}")
    for why, count in skipped.items():
        print(f"Left out: {count:,} rows, {why}")
    metrics: dict[str, Any] = manifests[kind]["metrics"]
    return metrics


def _preferred(found: dict[str, Any]) -> None:
    if "accuracy" in found:
        print(f"Held-out accuracy: {found['accuracy']:.1%} of {found['pairs']:,} pairs")
    else:
        print("No examples were held out, so nothing was measured; more data, or --set heldout=0.2, would.")
