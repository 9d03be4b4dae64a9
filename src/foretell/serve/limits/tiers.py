"""The tiers file: what an account of each tier may use, and what it costs."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from foretell.errors import RecipeError
from foretell.recipes import read_settings
from foretell.sections import Name, Section
from foretell.serve.limits.prices import ImageRule, Price
from foretell.serve.limits.windows import span_ms, span_name

PACKAGED = Path(__file__).with_name("tiers.yaml")

Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]


def _span(text: str) -> str:
    span_ms(text)
    return text


def _cents(value: float) -> float:
    if Decimal(str(value)) * 10**6 % 1:
        raise ValueError(f"{value} has more than 6 decimals")
    return value


Span = Annotated[str, AfterValidator(_span)]
Dollars = Annotated[float, Field(ge=0, le=1e9), AfterValidator(_cents)]
Models = Annotated[tuple[str, ...], Field(min_length=1)]


def micros(dollars: float) -> int:
    return int(Decimal(str(dollars)) * 10**6)


class _OfModels(Section):
    """models: which it holds for, all of them counted together; "*" is every one."""

    models: Models = ("*",)

    def covers(self, model: str) -> bool:
        return "*" in self.models or model in self.models


class Cap(_OfModels):
    """At most `messages` in any span of `every`, such as 3h. floor: what is left of it under full load."""

    messages: Count
    every: Span
    floor: Count | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.floor is not None and self.floor > self.messages:
            raise ValueError(f"floor {self.floor} is above messages {self.messages}")
        return self

    @cached_property
    def window(self) -> int:
        """Milliseconds."""
        return span_ms(self.every)

    @cached_property
    def id(self) -> str:
        """Under which messages are counted: other numbers go on with the same count."""
        return " ".join((self.every, *sorted(set(self.models))))

    @property
    def span(self) -> str:
        return span_name(self.every)

    def at(self, load: float) -> int:
        """The cap under a load between 0 (idle) and 1."""
        floor = self.messages if self.floor is None else self.floor
        return self.messages - round((self.messages - floor) * min(max(load, 0.0), 1.0))


class Quota(_OfModels):
    """Messages a day (UTC) that cost nothing."""

    messages: Count


class Tier(Section):
    """What an account may use; what is left out has no limit.

    requests_, tokens_per_minute: buckets that hold a minute's worth and fill evenly. streams: open at once. caps:
    messages in a rolling window. free_per_day: messages at no cost; past them `budget` pays, and without one there are
    no more. budget: dollars of each account a calendar month (UTC). total_budget: of all accounts of the tier together.
    images: whether they may be sent. fallback: the model that answers where a cap, the quota or the budget is used up.
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    streams: Count | None = None
    caps: tuple[Cap, ...] = ()
    free_per_day: Quota | None = None
    budget: Dollars | None = None
    total_budget: Dollars | None = None
    images: Annotated[bool, Field(strict=True)] = True
    fallback: str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({cap.id for cap in self.caps}) < len(self.caps):
            raise ValueError("two caps have the same span and models; keep the smaller one")
        return self


class Tiers(Section):
    """A whole tiers file. prices: by model; "*" is the price of every other one."""

    prices: dict[str, Price]
    images: ImageRule = ImageRule()
    tiers: Annotated[dict[Name, Tier], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if "*" not in self.prices:
            raise ValueError('prices has no "*"; give what a model costs that has no price of its own, if only 0')
        return self

    def price(self, model: str) -> Price:
        return self.prices.get(model) or self.prices["*"]


def load_tiers(path: str | Path = PACKAGED) -> Tiers:
    """Read a tiers file. Raises RecipeError naming the field, the value found and what is allowed."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(f"The tiers file {file} could not be read: {why}.") from error
    return read_settings(Tiers, text, str(file))
