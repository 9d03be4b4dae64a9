"""What a call costs, to the micro-dollar, and what an image counts for."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foretell.generate import Usage
from foretell.serve.limits.prices import ImageRule, Price

GPT_4 = Price(prompt=30.0, completion=60.0)  # $0.03 and $0.06 for a thousand
COUNTS = st.integers(0, 10**6)


def test_published_prices() -> None:
    assert GPT_4.cost(Usage(1000, 0)) == 30_000
    assert GPT_4.cost(Usage(0, 1000)) == 60_000
    assert Price(prompt=0.15, completion=0.6).cost(Usage(1, 0)) == 1  # 0.15, rounded up
    assert Price(prompt=0.1, completion=0.2).cost(Usage(10, 5)) == 2  # binary fractions would say 3


def test_image_and_cached_tokens_have_prices_of_their_own() -> None:
    price = Price(prompt=10.0, completion=20.0, image=3.0, cached=1.0)
    assert price.cost(Usage(100, 10, image_tokens=40, cached_tokens=50)) == 10 * 10 + 10 * 20 + 40 * 3 + 50 * 1
    # Where an upstream has cached images too, no token is paid twice.
    assert price.cost(Usage(100, 0, image_tokens=40, cached_tokens=100)) == 40 * 3 + 60 * 1
    assert price.cost(Usage(10, 0, image_tokens=40)) == 10 * 3


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.lists(st.integers(0, 10**9), min_size=4, max_size=4))
def test_cost_is_exact_and_never_above_what_was_reserved(
    prompt: int, completion: int, image: int, cached: int, parts: list[int]
) -> None:
    price = Price(prompt=parts[0] / 1e6, completion=parts[1] / 1e6, image=parts[2] / 1e6, cached=parts[3] / 1e6)
    image = min(image, prompt)
    known = min(cached, prompt - image)
    exact = Fraction((prompt - image - known) * parts[0] + completion * parts[1] + image * parts[2] + known * parts[3])
    cost = price.cost(Usage(prompt, completion, image, cached))
    assert cost == -(-exact // 10**6)
    assert cost <= price.most(prompt, completion, image)
    assert price.cost(Usage(prompt, completion, 0, cached)) <= price.most(prompt, completion, image) or image


def test_prices_have_six_decimals_at_most() -> None:
    with pytest.raises(ValidationError, match="more than 6 decimals"):
        Price(prompt=0.0000001, completion=0)
    with pytest.raises(ValidationError):
        Price(prompt=-1, completion=0)


@pytest.mark.parametrize(
    ("width", "height", "detail", "tokens"),
    [  # the first three are those of OpenAI's guide
        (1024, 1024, "high", 765),
        (2048, 4096, "high", 1105),
        (4096, 8192, "low", 85),
        (512, 512, "auto", 255),
        (513, 512, "auto", 425),
        (768, 768, "high", 765),
        (1, 1, "high", 255),
        (3000, 3000, "high", 765),
        (768, 2049, "high", 85 + 170 * 8),
        (100, 20_000, "high", 85 + 170 * 4),
    ],
)
def test_images_count_as_openai_counts_them(width: int, height: int, detail: str, tokens: int) -> None:
    assert ImageRule().tokens(width, height, detail) == ImageRule().tokens(height, width, detail) == tokens


def test_what_an_upstream_does_not_tell_of_images_is_added_or_taken_from_the_prompt() -> None:
    told = Usage(20, 5, 0, 3)
    assert ImageRule().settled(told, 85) == Usage(105, 5, 85, 3)
    assert ImageRule(added=False).settled(Usage(100, 5), 85) == Usage(100, 5, 85)
    assert ImageRule(added=False).settled(told, 85) == Usage(20, 5, 20, 3)
    assert ImageRule().settled(Usage(90, 5, 60), 85) == Usage(90, 5, 60)
    assert ImageRule().settled(told, 0) is told
