"""The figures of drawing by workers: rates and ratios of the arms, round by round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import rlhf
import rlhf_workers


def test_ratios_are_those_of_the_rounds() -> None:
    told = {
        arm: [
            {"tokens_s": rate * turn, "step_s": 1 / rate, **({"mismatch": 1e-6, "staleness": 0.0} if i else {})}
            for turn in (1.0, 2.0)
        ]
        for i, (arm, rate) in enumerate(zip(rlhf_workers.ARMS, (1000.0, 900.0, 1500.0, 1250.0), strict=True))
    }
    found = rlhf_workers.figures_of(told, rlhf.TINY)
    assert found["tokens_s_one_worker"]["value"] == 1350 and found["tokens_s_one_worker"]["spread"] == [900, 1800]
    assert found["two_vs_one"]["value"] == pytest.approx(1.667) and found["two_vs_in_process"]["value"] == 1.5
    assert found["step_in_process_vs_ahead"]["value"] == 1.25
    assert "tokens_s_two_workers_ahead" not in found and "mismatch_in_process" not in found
