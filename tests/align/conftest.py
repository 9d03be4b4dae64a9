"""What tests of alignment share: the tiny model, and no timing of the machine."""

from __future__ import annotations

import pytest
from alignkit import base as base

from foretell.train import loop


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "peak_rate", lambda *_: 1e11)
