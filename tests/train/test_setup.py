from __future__ import annotations

import pytest
import torch

from foretell.errors import TrainingError
from foretell.train.setup import pick_device, pick_precision


def test_a_process_without_a_gpu_is_told_how_many_to_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match=r"torch finds 2\. Start as many processes: foretell launch --ranks 2 "):
        pick_device("cuda", processes=3)


def test_bfloat16_that_a_gpu_only_emulates_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert pick_precision("auto", torch.device("cuda")) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert pick_precision("auto", torch.device("cuda")) == "bfloat16"
