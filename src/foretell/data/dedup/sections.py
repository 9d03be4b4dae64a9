"""The sections of a curation recipe that name a global pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foretell.data.curate.passes import Pass
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.minhash import MinHash
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.pictures import ImagesPass
from foretell.data.dedup.substrings import SubstringsPass
from foretell.measure.overlap.questions import Part
from foretell.sections import Positive, Section, Share


class KeepSection(Section):
    """keep: sources (of documents) whose copies stay before others', first first; then the recipe's order counts."""

    keep: tuple[str, ...] = ()


class ExactSection(KeepSection):
    """Documents of the same text, roles and images."""

    kind: Literal["exact"] = "exact"

    def build(self) -> Pass:
        return ExactPass(self.keep)


class NearSection(KeepSection):
    """Documents most of whose n-grams of words are the same. See `NearPass` and `MinHash`."""

    kind: Literal["near"] = "near"
    similarity: Share = 0.5
    chains: bool = False
    words: Positive = 5
    bands: Positive = 32
    rows: Positive = 4
    seed: int = Field(1, ge=0)

    def build(self) -> Pass:
        made = MinHash(self.words, self.bands, self.rows, self.seed)
        return NearPass(self.keep, made, self.similarity, self.chains)


class SubstringsSection(KeepSection):
    """Runs of words that stand earlier in the corpus. See `SubstringsPass`."""

    kind: Literal["substrings"] = "substrings"
    words: Annotated[int, Field(ge=10)] = 50
    share: Share = 0.8
    shortest: int = Field(20, ge=0)

    def build(self) -> Pass:
        return SubstringsPass(self.keep, self.words, self.share, self.shortest)


class ImagesSection(KeepSection):
    """Images that look the same. See `ImagesPass`."""

    kind: Literal["images"] = "images"
    coarse: Annotated[int, Field(ge=0, le=64)] = 3
    fine: Annotated[int, Field(ge=0, le=256)] = 24
    drop: Literal["untold", "all"] = "untold"

    def build(self) -> Pass:
        return ImagesPass(self.keep, self.coarse, self.fine, self.drop)


class DecontaminateSection(Section):
    """Documents that hold items of benchmarks: files, folders, evals registries. See `DecontaminatePass`."""

    kind: Literal["decontaminate"] = "decontaminate"
    benchmarks: Annotated[tuple[str, ...], Field(min_length=1)]
    words: Annotated[int, Field(ge=0)] = 13
    part: Part = "question"
    shortest: Annotated[int, Field(ge=24)] = 50
    ignore_case: bool = False
    action: Literal["remove", "cut"] = "remove"
    margin: Annotated[int, Field(ge=0)] = 200

    def build(self) -> Pass:
        return DecontaminatePass(
            benchmarks=self.benchmarks, words=self.words, part=self.part, shortest=self.shortest,
            ignore_case=self.ignore_case, action=self.action, margin=self.margin,
        )  # fmt: skip


PassSection = Annotated[
    ExactSection | NearSection | SubstringsSection | ImagesSection | DecontaminateSection, Field(discriminator="kind")
]


def default_passes() -> tuple[PassSection, ...]:
    """What is right for nearly any corpus; benchmarks have to be named, and substrings cost as much as all others."""
    return ExactSection(), NearSection()
