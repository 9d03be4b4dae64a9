"""The strike ladder: warn, then suspend with an end, then ban. Pure: an account's strikes in, its standing out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from foretell.errors import PolicyError
from foretell.sections import Section

Status = Literal["active", "warned", "suspended", "banned"]
STATUSES: tuple[Status, ...] = ("active", "warned", "suspended", "banned")
"""From the mildest to the most severe."""

DAY = 86_400_000  # milliseconds
_DAYS = Annotated[float, Field(gt=0, le=36_500)]


class Step(Section):
    """What an account comes to with so many strikes. days: how long a suspension lasts; nothing else has an end."""

    strikes: int = Field(ge=1)
    status: Literal["warned", "suspended", "banned"]
    days: _DAYS | None = None

    @model_validator(mode="after")
    def _check(self) -> Step:
        if (self.days is None) != (self.status != "suspended"):
            raise ValueError(f"a step to {self.status} with days {self.days}; expected days with a suspension only")
        return self


class Ladder(Section):
    """Settings of the ladder.

    steps: in rising order of strikes, none milder than the one before. expires_days: after so many a strike counts no
    more. automatic: actions of moderation that strike at once; after any other a reviewer decides. weights: how many
    strikes one of a category is worth, 1 where it is not named. spared: categories for which nobody is struck, since
    who asks may need help; where another is flagged too, that one counts.
    """

    steps: tuple[Step, ...] = Field(
        default=(
            Step(strikes=1, status="warned"),
            Step(strikes=2, status="suspended", days=1),
            Step(strikes=3, status="suspended", days=7),
            Step(strikes=4, status="banned"),
        ),
        min_length=1,
    )
    expires_days: _DAYS = 90
    automatic: tuple[str, ...] = ("block",)
    weights: Mapping[str, Annotated[int, Field(ge=1)]] = {"sexual/minors": 4}
    spared: tuple[str, ...] = ("self-harm", "self-harm/intent", "self-harm/instructions")

    @model_validator(mode="after")
    def _check(self) -> Ladder:
        for low, high in zip(self.steps, self.steps[1:], strict=False):
            if low.strikes >= high.strikes or STATUSES.index(low.status) > STATUSES.index(high.status):
                raise ValueError(f"a step of {high.strikes} strikes to {high.status} after one of {low.strikes} to "
                                 f"{low.status}; expected more strikes and nothing milder")  # fmt: skip
        return self

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Ladder:
        """From plain data, as YAML or JSON gives it. Raises PolicyError."""
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            at = ".".join(str(part) for part in first["loc"]) or "steps"
            raise PolicyError(f"The strike ladder's {at}: {first['msg']}. Mend it in the policy's settings.") from error

    def weight(self, categories: Iterable[str]) -> int:
        """Of a strike for these categories: that of the heaviest; 0 where all of them are spared."""
        named = list(categories)
        if named and all(category in self.spared for category in named):
            return 0
        return max((self.weights.get(category, 1) for category in named if category not in self.spared), default=1)


@dataclass(frozen=True)
class Strike:
    """time: milliseconds since 1970. weight: how many strikes it is worth."""

    time: int
    weight: int = 1
    overturned: bool = False


@dataclass(frozen=True)
class Standing:
    """What an account's strikes come to. until: when a suspension ends, in milliseconds since 1970; None for all else.
    strikes: how many count now, by weight."""

    status: Status
    until: int | None = None
    strikes: int = 0


def standing(strikes: Iterable[Strike], ladder: Ladder, now: int) -> Standing:
    """The most severe of what the strikes up to `now` led to and is still in force.

    A strike leads to the step that it and those which counted when it was given reach. A warning is in force as long
    as its strike counts, a suspension for its days from the strike on and then as a warning, a ban for good. So a ban
    outlives the strikes that led to it, but not their being overturned: what an overturned strike led to is as if it
    never was.
    """
    expires = round(ladder.expires_days * DAY)
    valid = sorted((s for s in strikes if not s.overturned and s.time <= now), key=lambda s: s.time)
    led_to: list[tuple[int, float]] = [(0, math.inf)]  # how severe, and when it ends
    for i, strike in enumerate(valid):
        count = sum(s.weight for s in valid[: i + 1] if s.time > strike.time - expires)
        step = next((step for step in reversed(ladder.steps) if step.strikes <= count), None)
        if step is None:
            continue
        if step.status == "banned":
            led_to.append((STATUSES.index("banned"), math.inf))
            continue
        led_to.append((STATUSES.index("warned"), strike.time + expires))
        if step.days is not None:
            led_to.append((STATUSES.index("suspended"), strike.time + round(step.days * DAY)))
    severity, end = max(effect for effect in led_to if now < effect[1])
    counted = sum(s.weight for s in valid if s.time > now - expires)
    return Standing(STATUSES[severity], int(end) if STATUSES[severity] == "suspended" else None, counted)


def load_ladder(path: Path) -> Ladder:
    """A ladder from YAML. Raises PolicyError for a file that cannot be read, or holds something else."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise PolicyError(f"The strike ladder {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise PolicyError(f"The strike ladder {path} must be a mapping with the keys {', '.join(Ladder.model_fields)}.")
    return Ladder.read(raw)
