"""Rates of the machine: units, and what works without torch."""

from __future__ import annotations

import pytest

from foretell.errors import MissingExtraError
from foretell.measure import machine


@pytest.fixture(params=[True, False], ids=["torch", "numpy"])
def with_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(machine, "has_torch", lambda: request.param)
    return bool(request.param)


def test_rates_are_work_over_the_fastest_time(with_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_fastest", lambda work, seconds: (work(), 0.5)[1])
    assert machine.matmul_rate(n=8) == 2 * 8**3 / 0.5
    assert machine.copy_bandwidth(megabytes=1) == 2e6 / 0.5


def test_bfloat16_needs_torch(with_torch: bool) -> None:
    if with_torch:
        assert machine.matmul_rate("bfloat16", n=32, seconds=0.0) > 0
    else:
        with pytest.raises(MissingExtraError, match="torch"):
            machine.matmul_rate("bfloat16")


def test_what_the_machine_has() -> None:
    assert machine.cores() >= 1 and machine.memory_bytes() > 1e8
    assert machine.best_device() in ("cpu", "cuda", "mps")
