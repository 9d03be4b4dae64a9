"""Growing a model that sees: graft → pack → connector → sft, as a run that is skipped and resumed like any other.

The first stage of training moves only what is new, with the text model frozen; the second moves the rest too. Both are
the one training loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from foretell.align.graft import graft
from foretell.align.rows import data_files
from foretell.align.stages import fingerprint, follow, tuning_stages
from foretell.files import sha256_file
from foretell.loading import find_checkpoint, is_foreign
from foretell.model.weights import MANIFEST
from foretell.run import Report, Stage, place, run_stages, silent
from foretell.sections import Above, Positive, Section
from foretell.train.distributed import Group
from foretell.tuning import Part, SFTConfig

CONNECTOR = "connector"


class ConnectorConfig(SFTConfig):
    """The first stage: all but what is fresh keeps its weights. A fresh tower has to learn here too; leave vision out of
    `freeze` then."""

    lr: float = Field(1e-4, gt=0)
    freeze: tuple[Part, ...] = ("decoder", "embedding", "vision")


class WholeConfig(SFTConfig):
    """The second stage: the text model learns too, slowly."""

    freeze: tuple[Part, ...] = ("embedding",)


class GrowConfig(Section):
    """How a graft is trained. grid: of tiles an image is cut into. tower_lr: the tower's and connector's learning rate
    over `lr`, in both stages. connector: the first stage. sft: the second; its settings of packing are those of both.
    """

    grid: Positive = 1
    tower_lr: Above = 10.0
    seed: int = Field(0, ge=0)
    connector: ConnectorConfig = ConnectorConfig()
    sft: WholeConfig = WholeConfig()


def grow(
    vision: str | Path,
    lm: str | Path,
    data: str | Path,
    out_dir: str | Path,
    settings: GrowConfig | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Graft a tower on a text model and train both on conversations with images; `out_dir` is then a run.

    vision, lm: as of `graft.graft`. data: conversations, as `foretell sft` takes. The same call again resumes what was
    cut off and skips what is done. Returns the manifests by stage.
    Raises a ForetellError that says what to do; KeyboardInterrupt after a checkpoint on SIGINT or SIGTERM.
    """
    settings, data, out_dir = settings or GrowConfig(), Path(data), Path(out_dir)
    data_files(data)
    named = {"name": "graft", "vision": str(vision), "model": str(lm), "data": str(data)}
    text = yaml.safe_dump(named | settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def run(group: Group) -> dict[str, dict[str, Any]]:
        stages = growing_stages(vision, lm, data, settings, text, report, group)
        return run_stages(out_dir, stages, recipe_text=text, name="graft", seed=settings.seed, report=report)

    if place()[1] == 1:
        return run(Group())
    with Group.join() as group:
        if group.rank == 0:
            return run(group)
        follow("sft", settings.sft, text, group)
    return {}


def growing_stages(
    vision: str | Path, lm: str | Path, data: Path, settings: GrowConfig, text: str, report: Report, group: Group | None = None
) -> list[Stage]:
    """The stages of `grow`."""

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # whole, but the stage was cut off right after
        changes = {"grid": settings.grid, "lr_multiplier": settings.tower_lr}
        return graft(vision, lm, out / "checkpoint", seed=settings.seed, **changes)

    named = {"vision": str(vision), "lm": str(lm), "grid": settings.grid, "tower_lr": settings.tower_lr}
    first = Stage(
        "graft", {**named, "seed": settings.seed}, build, outside=lambda: [_fingerprint(vision), _fingerprint(lm)]
    )
    packing = {"sequence_length", "heldout", "bad_rows"}
    same = {name: getattr(settings.sft, name) for name in packing}
    connector = settings.connector.model_copy(update=same)
    pack, early = tuning_stages("sft", connector, _of("graft"), data, text, report, ("graft",), name=CONNECTOR, group=group)
    _, late = tuning_stages("sft", settings.sft, _of(CONNECTOR), data, text, report, (CONNECTOR,), group=group)
    return [first, pack, early, late]


def _fingerprint(ref: str | Path) -> Any:
    """What tells whether a model has changed."""
    if str(ref).startswith("fresh:") or is_foreign(ref):
        return fingerprint(ref)
    return sha256_file(find_checkpoint(ref) / MANIFEST)


def _of(stage: str) -> Any:
    def origin(inputs: Mapping[str, Path]) -> Path:
        return inputs[stage] / "checkpoint"

    return origin
