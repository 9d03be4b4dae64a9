"""What a card is made from: the files of a run, and further measurements of the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from foretell.errors import CardError
from foretell.files import write_json
from foretell.report.card.figures import Document, Given, Kind
from foretell.report.card.subject import Subject
from foretell.report.record import TELLING
from foretell.run import MANIFEST, PARTIAL, RECIPE

COMPUTED = "computed"


@dataclass(frozen=True)
class Measurement:
    """A file of a known form. stage: of the model that it measures; of several, those of `stages`."""

    form: str
    document: Document
    stages: tuple[str, ...]

    @property
    def stage(self) -> str:
        return self.stages[0] if self.stages else ""


@dataclass(frozen=True)
class Evidence:
    """Everything there is. out: the card's folder. measurements: in the order they were found. assumed: what is assumed
    of the machine, as it is written down."""

    subject: Subject
    out: Path
    measurements: Sequence[Measurement] = ()
    assumed: Document | None = None
    _kept: dict[str, Document | None] = field(default_factory=dict)

    @property
    def given(self) -> Given:
        return Given(self.subject.shown)

    def file(self, name: str, samples: str | None = None) -> Document | None:
        """A file of the run; None where there is none. Raises CardError for a damaged one."""
        folder = self.subject.folder
        if folder is None or not (folder / name).is_file():
            return None
        if name not in self._kept:
            self._kept[name] = Document(folder, name, samples=None if samples is None else folder / samples)
        return self._kept[name]

    def manifest(self, stage: str) -> Document | None:
        return self.file(f"{stage}/{MANIFEST}")

    @cached_property
    def recipe(self) -> Document | None:
        return self.file(RECIPE)

    @property
    def trained_here(self) -> bool:
        """Whether the run trained the model from scratch, and not another one further."""
        return self.recipe is not None and isinstance(self.recipe.get("model"), dict)

    @cached_property
    def stages(self) -> dict[str, Document]:
        """The manifests of all finished stages that did something, by name, in the order of their beginning."""
        folder = self.subject.folder
        if folder is None or not folder.is_dir() or self.recipe is None:
            return {}
        names = [f.name for f in folder.iterdir() if (f / MANIFEST).is_file() and f.name not in TELLING]
        found = {name: manifest for name in names if (manifest := self.manifest(name)) is not None}
        return dict(sorted(found.items(), key=lambda item: (item[1].text("started"), item[0])))

    def of(self, form: str) -> list[Measurement]:
        return [each for each in self.measurements if each.form == form]

    def computed(
        self, name: str, value: Mapping[str, Any], made_from: Sequence[Path], samples: Path | None = None
    ) -> Document:
        """Write what the card computed below its folder, and read it back: a number is in a file before it is told."""
        return compute(self.out, name, value, made_from, samples)


def compute(
    out: Path,
    name: str,
    value: Mapping[str, Any],
    made_from: Sequence[Path],
    samples: Path | None = None,
    kind: Kind = "measured",
) -> Document:
    write_json(out / COMPUTED / name, dict(value))
    return Document(out, f"{COMPUTED}/{name}", kind, tuple(made_from), samples)


def packaged(name: str, kind: Kind) -> Document:
    """A data file that comes with the card: what others published."""
    folder = resources.files("foretell.report.card")
    with resources.as_file(folder.joinpath(name)) as path:
        return Document(path.parent, path.name, kind)


def check_finished(folder: Path, building: str = "") -> None:
    """Raises CardError where a stage of a run was begun and is not finished. building: the one that asks."""
    for stage in sorted(path for path in folder.iterdir() if path.is_dir()):
        if stage.name in (*TELLING, building):
            continue
        if (stage / PARTIAL).is_file() and not (stage / MANIFEST).is_file():
            raise CardError(
                f"The run {folder} is still in progress: its stage {stage.name} is not finished. Wait for it, or "
                f"finish it with: foretell run {folder}"
            )
