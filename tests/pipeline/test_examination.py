"""The headline figure: bits per byte of real text alone."""

from __future__ import annotations

import math

import pytest

from foretell.pipeline.examination import real_bits_per_byte


def test_bits_per_byte_of_real_text_pool_bits_and_bytes() -> None:
    # 1,000 bits over 500 bytes, and 600 bits over 300: together 1,600 over 800.
    by_kind = {
        "code": {"loss": 10 * math.log(2), "tokens": 100, "bits_per_byte": 2.0},
        "prose": {"loss": 6 * math.log(2), "tokens": 100, "bits_per_byte": 2.0},
        "scenes.color": {"loss": 0.1, "tokens": 50, "bits_per_byte": 0.2},
    }
    assert real_bits_per_byte(by_kind, {"scenes.color"}) == pytest.approx(2.0)
    assert real_bits_per_byte(
        by_kind | {"notes": {"loss": math.log(2), "tokens": 800, "bits_per_byte": 1.0}}, set(["scenes.color"])
    ) == pytest.approx(2400 / 1600)
    assert real_bits_per_byte(by_kind, set(by_kind)) is None
