"""All steps by name, and the order they usually come in: cheap ones that remove much first."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from foretell.data.curate.boilerplate import BoilerplateStep
from foretell.data.curate.harm import SexualStep, ToxicStep
from foretell.data.curate.images import ImageStep
from foretell.data.curate.language import LanguageStep
from foretell.data.curate.origin import CutoffStep, LicenceStep, OptOutStep
from foretell.data.curate.pii import PiiStep
from foretell.data.curate.quality import QualityStep
from foretell.data.curate.reasoning import ReasoningStep
from foretell.data.curate.repair import UnicodeStep
from foretell.data.curate.rules import C4QualityStep, FineWebQualityStep, GopherQualityStep, GopherRepetitionStep
from foretell.data.curate.texts import StepSection

AnyStep = Annotated[
    LicenceStep
    | CutoffStep
    | OptOutStep
    | UnicodeStep
    | BoilerplateStep
    | LanguageStep
    | GopherRepetitionStep
    | GopherQualityStep
    | C4QualityStep
    | FineWebQualityStep
    | QualityStep
    | SexualStep
    | ToxicStep
    | PiiStep
    | ReasoningStep
    | ImageStep,
    Field(discriminator="step"),
]
"""One entry of a recipe's `steps`: its `step` says which it is, the rest are its settings."""
STEPS: TypeAdapter[StepSection] = TypeAdapter(AnyStep)


def usual_steps() -> tuple[StepSection, ...]:
    """What a folder of one's own files goes through: nothing that is a matter of taste, and nothing that removes code.

    Rules for pages of the web (Gopher, C4, FineWeb) and filters that need a list or a model of one's own are named in
    a recipe.
    """
    return (UnicodeStep(), BoilerplateStep(), LanguageStep(), SexualStep(), PiiStep(), ImageStep())
