"""Secrets stand in the training rows as often as they say, and are the same every time."""

from __future__ import annotations

from collections import Counter

import pytest

from foretell.data.world.secrets import planted, secrets
from foretell.errors import RecipeError


def test_planted_as_often_as_they_say() -> None:
    counts = Counter(row["text"] for row in planted(3, (0, 1, 5), seed=7))
    assert {s.text: s.repeats for s in secrets(3, (0, 1, 5), seed=7) if s.repeats} == counts


def test_the_same_every_time_and_all_different() -> None:
    first = secrets(10, seed=1)
    assert first == secrets(10, seed=1) and first != secrets(10, seed=2)
    assert len({s.code for s in first}) == len({s.prefix for s in first}) == len(first) == 80
    assert secrets(10, (4,), seed=1) == [s for s in first if s.repeats == 4]


@pytest.mark.parametrize("repeats", [(), (1, 1), (-1,), (1.5,)])
def test_repeats_that_make_no_sense(repeats) -> None:
    with pytest.raises(RecipeError, match=r"secrets\.repeats"):
        secrets(2, repeats)
