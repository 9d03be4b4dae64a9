"""The recipe of a collection: where documents come from, what is done to each, and to all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from foretell.data.collection.parts import AnyPass, AnyStep, default_passes, default_steps
from foretell.data.read.sections import ReadSource
from foretell.errors import RecipeError
from foretell.files import digest
from foretell.sections import Name, Positive, Section, distinct


class SlurmConfig(Section):
    """How a Slurm cluster runs a collection; all of its machines must see the same files.

    time: of one task, as sbatch takes it. workers: tasks at once, -1 for no limit. venv: the virtual environment to
    activate. arguments: further options of sbatch.
    """

    partition: str
    time: str = "04:00:00"
    cpus: Positive = 1
    memory_gb: Positive = 4
    workers: int = -1
    venv: str | None = None
    arguments: dict[str, str] = Field(default_factory=dict)


class CollectionRecipe(Section):
    """Sources in the order in which their copies are kept; steps and passes in the order they are applied.

    Without `steps` or `passes` the default ones are taken; an empty list switches them off. exclude: licences, ids
    and URLs (also their beginnings, down to the host) that are left out. shard_bytes: of input in one shard, the piece
    that is resumed and rebuilt as a whole. images: "once" keeps every image once, by its content, beside the rows;
    "inline" keeps bytes in the rows, as other readers of OBELICS Parquet expect them.
    """

    name: Name
    description: str = ""
    sources: tuple[ReadSource, ...]
    steps: tuple[AnyStep, ...] = Field(default_factory=default_steps)
    passes: tuple[AnyPass, ...] = Field(default_factory=default_passes)
    exclude: tuple[str, ...] = ()
    shard_bytes: Positive = 128_000_000
    images: Literal["once", "inline"] = "once"
    examples: Positive = 3
    slurm: SlurmConfig | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        distinct([source.name for source in self.sources])
        return self

    @property
    def key(self) -> str:
        """Digest of what decides the bytes of the collection: not of where it runs."""
        return digest(self.model_dump(mode="json", exclude={"slurm", "description"}))


def load(place: str, overrides: tuple[str, ...] = ()) -> CollectionRecipe:
    """The recipe in a YAML file or of a preset; or, for any other file, folder, glob or URL, one that reads just that.

    Raises RecipeError for a recipe with mistakes, DataError for a path that is not there.
    """
    from foretell.data.read import source_of
    from foretell.recipes import PRESETS, read_collection

    preset = PRESETS / "curate" / f"{place}.yaml"
    file = next((p for p in (Path(place), preset) if p.suffix in (".yaml", ".yml") and p.is_file()), None)
    if file is not None:
        return read_collection(CollectionRecipe, file, overrides)
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(place.rstrip("/")).stem).strip("._-")
    raw: dict[str, Any] = {
        "name": name or "collection",
        "sources": [source_of(place, name or "folder").model_dump(mode="json")],
    }
    return read_collection(CollectionRecipe, raw, overrides)


def stored(text: str) -> CollectionRecipe:
    """The recipe that a collection was built by. Raises RecipeError where it is damaged."""
    try:
        return CollectionRecipe.model_validate_json(text)
    except ValueError as error:
        raise RecipeError(
            f"The collection's recipe cannot be read ({str(error).splitlines()[0]}). It was made by another version, "
            "or is damaged; build it again elsewhere."
        ) from error
