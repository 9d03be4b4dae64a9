"""Which steps and passes a recipe may name, and the ones it has without naming any."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field

from foretell.data.curate.boilerplate import RepeatedLinesSection
from foretell.data.curate.catalog import AnyStep as AnyStep
from foretell.data.curate.catalog import usual_steps
from foretell.data.dedup.sections import (
    DecontaminateSection,
    ExactSection,
    ImagesSection,
    NearSection,
    SubstringsSection,
)
from foretell.data.dedup.sections import default_passes as default_passes

AnyPass = Annotated[
    ExactSection | NearSection | SubstringsSection | ImagesSection | DecontaminateSection | RepeatedLinesSection,
    Field(discriminator="kind"),
]


def default_steps() -> tuple[AnyStep, ...]:
    return cast("tuple[AnyStep, ...]", usual_steps())
