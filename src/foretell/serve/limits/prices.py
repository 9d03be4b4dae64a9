"""What tokens cost, in micro-dollars, and how many an image counts for."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import cached_property
from typing import Annotated

from pydantic import Field, field_validator

from foretell.generate import Usage
from foretell.sections import Section

_PARTS = 1_000_000  # of a micro-dollar
Whole = Annotated[int, Field(strict=True, ge=0, le=10**9)]


def _parts(dollars: float) -> int:
    """A price in parts of a micro-dollar: a dollar for a million tokens is a micro-dollar a token."""
    return int(Decimal(str(dollars)) * _PARTS)


class Price(Section):
    """Dollars for a million tokens, with 6 decimals at most. image, cached: of such tokens of a prompt; None: as the
    others."""

    prompt: float = Field(ge=0, le=1e6)
    completion: float = Field(ge=0, le=1e6)
    image: float | None = Field(None, ge=0, le=1e6)
    cached: float | None = Field(None, ge=0, le=1e6)

    @field_validator("*")
    @classmethod
    def _decimals(cls, value: float | None) -> float | None:
        if value is not None and Decimal(str(value)) * _PARTS % 1:
            raise ValueError(f"{value} has more than 6 decimals")
        return value

    @cached_property
    def _table(self) -> tuple[int, int, int, int]:
        prompt = _parts(self.prompt)
        image, cached = (prompt if price is None else _parts(price) for price in (self.image, self.cached))
        return prompt, _parts(self.completion), image, cached

    def cost(self, usage: Usage) -> int:
        """Micro-dollars, rounded up. Image and cached tokens are of the prompt's; none is paid twice."""
        prompt, completion, image, cached = self._table
        images = min(usage.image_tokens, usage.prompt_tokens)
        known = min(usage.cached_tokens, usage.prompt_tokens - images)
        text = usage.prompt_tokens - images - known
        return -(-(text * prompt + usage.completion_tokens * completion + images * image + known * cached) // _PARTS)

    def most(self, prompt_tokens: int, max_tokens: int, image_tokens: int) -> int:
        """The most micro-dollars that a call may cost: with whichever share of its prompt cached."""
        prompt, completion, image, cached = self._table
        text = max(prompt_tokens - image_tokens, 0)
        parts = text * max(prompt, cached) + max_tokens * completion + image_tokens * max(image, prompt)
        return -(-parts // _PARTS)


class ImageRule(Section):
    """How images count where the upstream does not tell it: base tokens each, and tile for every 512-pixel tile.

    added: such an upstream has not counted them in its prompt tokens either.
    Source: OpenAI's guide to images and vision, "Calculating costs", for GPT-4.
    """

    base: Whole = 85
    tile: Whole = 170
    added: Annotated[bool, Field(strict=True)] = True

    def tokens(self, width: int, height: int, detail: str = "auto") -> int:
        """Of an image in pixels. detail low: base alone; high, auto: shrunk into 2048 × 2048, then to a shorter side of
        768, and cut into tiles."""
        if detail == "low":
            return self.base
        scale = min(1.0, 2048 / max(width, height))
        scale *= min(1.0, 768 / (min(width, height) * scale))
        # Rounded, since 768 over a side times that side may be a hair above 768.
        across, down = (max(1, math.ceil(round(side * scale, 6) / 512)) for side in (width, height))
        return self.base + self.tile * across * down

    def settled(self, told: Usage, image_tokens: int) -> Usage:
        """What an upstream told of a call, its images counted. image_tokens: as they were reserved."""
        if told.image_tokens or not image_tokens:
            return told
        prompt = told.prompt_tokens + (image_tokens if self.added else 0)
        return Usage(prompt, told.completion_tokens, min(image_tokens, prompt), told.cached_tokens)
