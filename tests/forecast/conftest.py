"""A ladder on a known law, for every test of the room that needs one."""

from __future__ import annotations

import math

import pytest
from simulated import shape

from foretell.forecast import Forecast, LadderTable, Rung, fit


def law(flops: float) -> float:
    return 40.0 * flops**-0.1 + 1.5


@pytest.fixture(scope="session")
def ladder() -> LadderTable:
    """Twelve computes over four decades, three seeds each with noise of a fixed pattern of 0.2 %."""
    computes = [10 ** (12 + 4 * i / 11) for i in range(12)]
    rungs = [
        Rung(c, law(c) * (1 + 0.002 * math.sin(7.0 * i + 2.6 * seed)), seed, f"r{i}-{seed}", params=(c / 120) ** 0.5)
        for i, c in enumerate(computes)
        for seed in range(3)
    ]
    curves = {rung.run: tuple(shape(rung.loss)) for rung in rungs}
    return LadderTable(tuple(rungs), unit="bits per byte", settings={"tokenizer": "bpe-1024"}, curves=curves)


@pytest.fixture(scope="session")
def forecast(ladder: LadderTable) -> Forecast:
    return fit(ladder, target=1e18)
