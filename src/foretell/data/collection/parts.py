"""Which steps and passes a recipe may name, and the ones it has without naming any."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretell.data.curate.boilerplate import BoilerplateStep
from foretell.data.curate.images import ImageStep
from foretell.data.curate.language import LanguageStep
from foretell.data.curate.pii import PiiStep
from foretell.data.curate.repair import UnicodeStep
from foretell.data.curate.rules import C4QualityStep, FineWebQualityStep, GopherQualityStep, GopherRepetitionStep
from foretell.data.dedup.sections import PassSection as PassSection
from foretell.data.dedup.sections import default_passes as default_passes

StepSection = Annotated[
    BoilerplateStep | ImageStep | LanguageStep | PiiStep | UnicodeStep | C4QualityStep | FineWebQualityStep
    | GopherQualityStep | GopherRepetitionStep, Field(discriminator="step")]


def default_steps() -> tuple[StepSection, ...]:
    return (UnicodeStep(), LanguageStep(), PiiStep())
