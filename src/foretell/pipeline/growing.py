"""Growing a model that sees: graft → pack → connector → sft → look → page, a run that is skipped and resumed like any.

The first stage of training moves only what is new, with the text model frozen; the second moves the rest too. Both are
the one training loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from foretell.align.rows import data_files
from foretell.align.stages import fingerprint, follow, tuning_stages
from foretell.files import read_json, sha256_file
from foretell.loading import find_checkpoint, is_foreign
from foretell.model.weights import MANIFEST
from foretell.pipeline.looking import EXAMINED, look
from foretell.report.grown import write_page
from foretell.run import Report, Stage, place, run_stages, silent
from foretell.sections import Above, Positive, Section
from foretell.train.distributed import Group
from foretell.tuning import Part, SFTConfig
from foretell.weights.graft import graft
from foretell.weights.towers import FRESH

CONNECTOR = "connector"
_PACKING = ("sequence_length", "heldout", "bad_rows")


class ConnectorConfig(SFTConfig):
    """The first stage: all but what is fresh keeps its weights. A fresh tower has to learn here too; leave vision out
    of `freeze` then."""

    lr: float = Field(1e-4, gt=0)
    freeze: tuple[Part, ...] = ("decoder", "embedding", "vision")


class WholeConfig(SFTConfig):
    """The second stage: the text model learns too, slowly."""

    freeze: tuple[Part, ...] = ("embedding",)


class GrowConfig(Section):
    """How a graft is made and trained.

    grid: of tiles an image is cut into; shuffle: patches a side that make one token; without them the tower's own.
    tower_lr: the tower's and connector's learning rate over `lr`, in both stages. seed: of what is drawn. connector:
    the first stage. sft: the second; its settings of packing are those of both.
    """

    grid: Positive | None = None
    shuffle: Positive | None = None
    tower_lr: Above = 10.0
    seed: int = Field(0, ge=0)
    connector: ConnectorConfig = ConnectorConfig()
    sft: WholeConfig = WholeConfig()

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of the tower's configuration that are not its own."""
        return {"grid": self.grid, "shuffle": self.shuffle, "lr_multiplier": self.tower_lr}


def join(vision: str | Path, lm: str | Path, out: Path, settings: GrowConfig | None = None) -> dict[str, Any]:
    """The joined model, not yet trained, as a checkpoint folder; `vision` and `lm` as of `grow`. Returns its facts."""
    settings = settings or GrowConfig()
    return graft(_resolved(vision), _resolved(lm), out, seed=settings.seed, **settings.changes)


def grow(
    vision: str | Path,
    lm: str | Path,
    data: str | Path,
    out_dir: str | Path,
    settings: GrowConfig | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Graft a tower on a text model and train both on conversations with images; `out_dir` is then a run.

    vision: a run or checkpoint that sees, open weights in Idefics3, SmolVLM or SigLIP form, or
    fresh:SIDE,PATCH,WIDTH,DEPTH. lm: a run, checkpoint or open weights that read text. data: conversations, as
    `foretell sft` takes. The same call again resumes what was cut off and skips what is done. Returns the manifests by
    stage. Raises a ForetellError that says what to do; KeyboardInterrupt after a checkpoint on SIGINT or SIGTERM.
    """
    settings, data, out_dir = settings or GrowConfig(), Path(data), Path(out_dir)
    data_files(data)
    named = {"name": "graft", "vision": str(vision), "model": str(lm), "data": str(data)}
    text = yaml.safe_dump(named | settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def run(group: Group) -> dict[str, dict[str, Any]]:
        stages = growing_stages(vision, lm, data, out_dir, settings, text, report, group)
        return run_stages(out_dir, stages, recipe_text=text, name="graft", seed=settings.seed, report=report)

    if place()[1] == 1:
        return run(Group())
    with Group.join({"settings": settings.model_dump(mode="json")}) as group:
        if group.rank == 0:
            return run(group)
        follow("sft", settings.sft, text, group)
    return {}


def growing_stages(
    vision: str | Path,
    lm: str | Path,
    data: Path,
    out_dir: Path,
    settings: GrowConfig,
    text: str,
    report: Report,
    group: Group | None = None,
) -> list[Stage]:
    """The stages of `grow`. text: the settings as they lie beside a checkpoint."""

    def build(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # whole, but the stage was cut off right after
        return join(vision, lm, out / "checkpoint", settings)

    def outside() -> Any:
        return [_fingerprint(vision), _fingerprint(lm)]

    def told(inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        write_page(out_dir, read_json(inputs["examine"] / EXAMINED), out)
        return {}

    def files() -> Any:
        return [[file.name, sha256_file(file)] for file in data_files(data)]

    named = {"vision": str(vision), "lm": str(lm), "seed": settings.seed, **settings.changes}
    connector = settings.connector.model_copy(update={name: getattr(settings.sft, name) for name in _PACKING})
    shared = (data, text, report)
    pack, early = tuning_stages("sft", connector, _of("graft"), *shared, ("graft",), name=CONNECTOR, group=group)
    _, late = tuning_stages("sft", settings.sft, _of(CONNECTOR), *shared, (CONNECTOR,), group=group)
    heldout = settings.sft.heldout
    return [
        Stage("graft", named, build, outside=outside),
        pack,
        early,
        late,
        Stage(
            "examine",
            {"data": str(data), "heldout": heldout},
            lambda inputs, out: look(inputs["sft"] / "checkpoint", data, heldout, out, out_dir.name, report),
            ("sft",),
            outside=files,
        ),
        Stage("page", {}, told, ("examine",)),
    ]


def _resolved(ref: str | Path) -> str | Path:
    """A run's checkpoint; what is open weights or a fresh tower stays as it is."""
    return ref if str(ref).startswith(FRESH) or is_foreign(ref) else find_checkpoint(ref)


def _fingerprint(ref: str | Path) -> Any:
    """What tells whether a model has changed."""
    found = _resolved(ref)
    if isinstance(found, Path) and (found / MANIFEST).is_file():
        return sha256_file(found / MANIFEST)
    return fingerprint(ref)


def _of(stage: str) -> Callable[[Mapping[str, Path]], Path]:
    return lambda inputs: inputs[stage] / "checkpoint"
