"""The phases of a build, as tasks that any process on any machine can do, twice without harm."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from foretell.data.collection import finish, pictures, plan
from foretell.data.collection.chain import chain, own
from foretell.data.collection.ids import UniqueIds
from foretell.data.collection.places import Places, read_state
from foretell.data.collection.plan import Shard
from foretell.data.collection.recipe import CollectionRecipe, stored
from foretell.data.collection.stage import read_shard
from foretell.data.collection.write import write_shard
from foretell.data.curate.passes import Pass
from foretell.data.document import Document
from foretell.data.parquet import read_documents
from foretell.errors import ForetellError, RunError
from foretell.files import write_json


@dataclass(frozen=True)
class Phase:
    """name: of the folder of its marks. tasks: how many, each by its number. whole: one task over all shards."""

    name: str
    tasks: int
    title: str


@dataclass(frozen=True)
class Build:
    """A collection under way, as every task finds it on the disk."""

    places: Places
    recipe: CollectionRecipe
    shards: tuple[Shard, ...]

    @property
    def passes(self) -> list[Pass]:
        return [UniqueIds(), *(section.build() for section in self.recipe.passes)]

    def phases(self) -> list[Phase]:
        count = len(self.shards)
        found = [Phase("read", count, "read and filter")]
        for i, each in enumerate(self.passes):
            found += [
                Phase(f"{i:02d}-{each.name}-sketch", count, f"{each.name}: sketch"),
                Phase(f"{i:02d}-{each.name}-merge", 1, f"{each.name}: merge"),
            ]
        if self.recipe.images == "once":
            found += [Phase("images-survey", count, "images: survey"), Phase("images-decide", 1, "images: decide")]
        return [*found, Phase("write", count, "write"), Phase("finish", 1, "data card")]

    def documents(self, shard: int, passes: int, images: bool = True) -> Iterator[Document]:
        """What the first passes left of a shard."""
        read = read_documents(self.places.read(shard), images=images)
        return (document for _, document in chain(self.passes[:passes], read, shard, self.places.passes))

    @cached_property
    def has_images(self) -> bool:
        """Whether any document that was read shows one; asked once all were, and once, as every shard has to say."""
        return any(_mark(self.places.done("read", shard.number))["images"] for shard in self.shards)

    def do(self, phase: str, task: int) -> dict[str, Any]:
        """One task. Returns what is noted of it in its mark."""
        scratch, count = self.places.passes, len(self.shards)
        if phase == "read":
            return read_shard(self.recipe, self.shards[task], self.places)
        if phase == "images-survey":
            if self.has_images:
                pictures.survey(self.documents(task, len(self.passes)), task, scratch)
        elif phase == "images-decide":
            if self.has_images:
                pictures.decide(count, scratch)
        elif phase == "write":
            once = self.recipe.images == "once" and self.has_images
            write_shard(self.recipe, self.passes, self.shards[task], self.places, once)
        elif phase == "finish":
            finish.finish(self.recipe, self.shards, self.places)
        else:
            number, _, what = phase.partition("-")
            each = self.passes[int(number)]
            folder = own(scratch, int(number), each)
            folder.mkdir(parents=True, exist_ok=True)
            if what.endswith("-sketch"):
                each.sketch(self.documents(task, int(number)), task, folder)
            else:
                each.merge(count, folder)
        return {}


@lru_cache(maxsize=2)
def opened(out: Path) -> Build:
    """The build in a folder; kept for the process, since each of its tasks asks for it."""
    places = Places(out)
    return Build(places, stored(json.dumps(read_state(out)["recipe"])), tuple(plan.load(places.plan)))


@dataclass(frozen=True)
class Task:
    """A pipeline of one step, as datatrove's executors call it with the rank of the task.

    A failure is written down, and told by whoever started the phase: an executor's own way would be a traceback.
    """

    out: Path
    phase: str

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        places = Places(self.out)
        if places.done(self.phase, rank).exists():
            return
        began = time.monotonic()
        try:
            mark = opened(self.out).do(self.phase, rank)
            write_json(places.done(self.phase, rank), {**mark, "wall": round(time.monotonic() - began, 3)})
        except ForetellError as error:
            self._tell(places, rank, str(error), "")
        except Exception as error:
            why = "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
            self._tell(places, rank, why, traceback.format_exc())

    def _tell(self, places: Places, rank: int, message: str, trace: str) -> None:
        write_json(places.failed(self.phase, rank), {"message": message, "trace": trace})
        if "SLURM_ARRAY_TASK_ID" in os.environ:  # else the jobs that wait for this one would begin
            raise RunError(message)


def _mark(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
