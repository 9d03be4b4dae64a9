"""Which steps and passes a recipe may name, and the ones it has without naming any."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field

from foretell.data.curate.boilerplate import RepeatedLinesPass
from foretell.data.curate.catalog import AnyStep as AnyStep
from foretell.data.curate.catalog import usual_steps
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.pictures import ImagesPass
from foretell.data.dedup.substrings import SubstringsPass

AnyPass = Annotated[
    ExactPass | NearPass | SubstringsPass | ImagesPass | DecontaminatePass | RepeatedLinesPass,
    Field(discriminator="kind"),
]


def default_steps() -> tuple[AnyStep, ...]:
    return cast("tuple[AnyStep, ...]", usual_steps())


def default_passes() -> tuple[AnyPass, ...]:
    """What is right for nearly any corpus; benchmarks have to be named, and substrings cost as much as all others."""
    return ExactPass(), NearPass()
