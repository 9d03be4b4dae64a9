"""What training tests share: the toy world, no timing of the machine, a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foretell.train import loop
from toy import toy as toy


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "peak_rate", lambda *_: 1e11)


@pytest.fixture
def clock_at() -> Callable[..., Callable[[], float]]:
    """A clock that jumps a day at the given calls; the trainer reads it once at the start and once a step."""

    def make(*jumps: int) -> Callable[[], float]:
        calls = iter(range(10**6))
        state = {"now": 0.0}

        def clock() -> float:
            if next(calls) in jumps:
                state["now"] += 86400.0
            return state["now"]

        return clock

    return make
