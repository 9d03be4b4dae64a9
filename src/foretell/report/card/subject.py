"""Which model a card is of, and whether a measurement is of the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foretell.errors import CardError
from foretell.files import expand_home
from foretell.loading import TRAINED, weights_digest
from foretell.report.record import mapping, place_of
from foretell.run import RECIPE, read_manifest

OUTCOMES = "outcomes"


@dataclass(frozen=True)
class Subject:
    """A model and, where it was trained here, its earlier stages.

    given: the reference, as the user typed it. folder: of the run, checkpoint or file; None for an endpoint. name: what
    the recipe calls it, else the folder's. stages: those with a checkpoint, in the order they were trained; of what was
    not trained here the one stage "". weights: SHA-256 of the stored weights → stage. arms: what the outcomes of the
    run call its models → stage.
    """

    given: str
    folder: Path | None
    name: str
    stages: tuple[str, ...] = ("",)
    weights: Mapping[str, str] = field(default_factory=dict)
    arms: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The reference as commands show it: what was typed, but no path that names someone's home."""
        if self.folder is None:
            return self.given
        if self.run is not None:
            return place_of(self.run)
        here, place = Path.cwd().resolve(), self.folder.resolve()
        return place.relative_to(here).as_posix() if place.is_relative_to(here) else place.name

    @property
    def run(self) -> Path | None:
        """The run's folder; None for what is no run."""
        return None if self.stages == ("",) else self.folder

    @property
    def final(self) -> str:
        """The stage that the model is talked to by."""
        return self.stages[-1]

    def stage_of(self, model: str, weights: str = "") -> str | None:
        """The stage that a measurement is of; None where it is of another model.

        model: as the measurement names it. weights: their SHA-256, which decides where both sides know it.
        """
        if weights and self.weights:
            return self.weights.get(weights)
        reference = model.partition("#")[2] if model.startswith(("http://", "https://")) and "#" in model else model
        if reference in (self.given, self.name):
            return self.final
        path = Path(reference)
        if self.folder is None:
            return None
        here, wanted = path.resolve(), self.folder.resolve()
        if path.exists():
            return self._below(here.relative_to(wanted)) if here.is_relative_to(wanted) else None
        # Measured where the run lay elsewhere: its folder's name has to do.
        parts = path.parts
        if self.folder.name in parts:
            at = len(parts) - 1 - parts[::-1].index(self.folder.name)
            return self._below(Path(*parts[at + 1 :]))
        return None

    def _below(self, rest: Path) -> str | None:
        if rest == Path():
            return self.final
        if rest.parts[0] == OUTCOMES:
            return self.arms.get(rest.parts[1]) if len(rest.parts) > 1 else self.final
        return rest.parts[0] if rest.parts[0] in self.stages else None


def subject_of(reference: str) -> Subject:
    """The model that a reference names: a run directory, a checkpoint, open weights, an endpoint.

    Raises CardError for a folder that holds no model, and for a run without a manifest or a finished training.
    """
    path = expand_home(reference)
    if not path.exists():
        if reference.startswith(("http://", "https://")) or (
            "/" in reference and not reference.startswith(("runs/", ".", "/"))
        ):
            return Subject(reference, None, reference.rpartition("#")[2] or reference)
        raise CardError(
            f"There is no run or model {reference}. Give a run directory (such as runs/quickstart), a checkpoint, a "
            "file of open weights, or the URL of an endpoint."
        )
    if path.is_file() or (path / "config.json").is_file():
        digest = weights_digest(path)
        return Subject(reference, path, path.name, weights={digest: ""} if digest else {})
    if not (path / RECIPE).is_file():
        raise CardError(
            f"{path} holds neither a run ({RECIPE} is missing) nor a checkpoint (config.json is missing). Give a run "
            "directory, such as runs/quickstart."
        )
    trained = [
        stage for stage in TRAINED if stage != "reward" and (path / stage / "checkpoint" / "config.json").is_file()
    ]
    if not trained:
        raise CardError(f"The run {path} has no trained model yet. Finish it with: foretell run {path}")
    stages = tuple(reversed(trained))
    found = {digest: stage for stage in stages if (digest := weights_digest(path / stage / "checkpoint"))}
    names = mapping(mapping((read_manifest(path / OUTCOMES) or {}).get("config")).get("names"))
    arms = {str(name): stage for stage, name in names.items()}
    return Subject(reference, path, path.resolve().name, stages, found, arms)
