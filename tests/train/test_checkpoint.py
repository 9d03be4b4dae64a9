"""Generators in a checkpoint, and a disk that fills up below safetensors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from foretell.errors import RunError
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig
from foretell.train import checkpoint
from foretell.train.distributed import Group


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), *torch.rand(3)]  # noqa: NPY002


def test_every_generator_goes_on_where_it_was() -> None:
    draw()
    state = json.loads(json.dumps(checkpoint.generators_state()))
    first = draw()
    checkpoint.restore_generators(state)
    assert draw() == first


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in (".step-000003.x1y2", ".step-000004.part"):
        (tmp_path / name / "training").mkdir(parents=True)
    assert checkpoint.agreed(tmp_path, lambda _: None, Group()) is None
    assert list(tmp_path.iterdir()) == []


def test_safetensors_errors_become_a_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "write_model", full)
    model = Multimodal(ModelConfig(vocab_size=64, width=32, depth=1, max_length=16))
    with pytest.raises(RunError, match="disk is full"):
        checkpoint.save_checkpoint(tmp_path / "step-000001", model, None, {})
    assert list(tmp_path.iterdir()) == []
