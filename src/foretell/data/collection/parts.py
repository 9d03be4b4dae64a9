"""Which steps and passes a recipe may name, and the ones it has without naming any."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed, Step
from foretell.data.document import Document
from foretell.sections import Positive, Section


class LengthStep(Section):
    kind: Literal["length"] = "length"
    characters: Positive = 20

    @property
    def name(self) -> str:
        return "length"

    def build(self) -> Step:
        return self

    def __call__(self, document: Document) -> Document | Removed:
        found = sum(len(s.text or "") for s in document.segments)
        return document if found >= self.characters else Removed(document.id, "length.short", f"{found} characters")


class NoPass(Section):
    kind: Literal["none"] = "none"

    def build(self) -> Pass:
        raise NotImplementedError


StepSection = Annotated[LengthStep, Field(discriminator=None)]
PassSection = NoPass


def default_steps() -> tuple[StepSection, ...]:
    return (LengthStep(),)


def default_passes() -> tuple[PassSection, ...]:
    return ()
