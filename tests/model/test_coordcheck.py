"""CompleteP keeps updates flat over width and depth in both towers; without it they grow."""

from __future__ import annotations

import pytest

from foretell.model.coordcheck import coordcheck, slopes
from foretell.recipe import ModelConfig, VisionConfig

CONFIG = ModelConfig(
    vocab_size=320, width=64, depth=2, head_dim=32, base_width=64, base_depth=2, max_length=128,
    vision=VisionConfig(tile=32, patch=8, width=64, depth=2, head_dim=32, base_width=64, base_depth=2),
)  # fmt: skip


@pytest.mark.parametrize("axis", ["width", "depth"])
def test_updates_are_flat_only_with_the_parametrisation(axis: str) -> None:
    right = slopes(list(coordcheck(CONFIG, scales=(1, 2, 4), axes=[axis], seeds=1)))
    wrong = slopes(list(coordcheck(CONFIG, scales=(1, 2, 4), axes=[axis], seeds=1, standard=True)))
    probes = {probe for _, probe in right}
    assert probes == {"vision residual", "image features", "decoder residual", "logits"}
    for key, slope in right.items():
        # The logits' own sum over the width shrinks a little before features align with the head.
        assert abs(slope) < (0.35 if key[1] == "logits" else 0.15), key
    assert wrong[axis, "vision residual"] > 0.7
    assert wrong[axis, "decoder residual"] > 0.3
