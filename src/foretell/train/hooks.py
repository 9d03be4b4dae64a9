"""What surrounds a training run without changing its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.run import Report, silent

# Share of the run and the fields of a log line → the fields of new alarms, `text` and perhaps `stop` among them.
Observer = Callable[[float, Mapping[str, Any]], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Hooks:
    """What the trainer calls, and tells.

    evaluate: fields of an eval line, called every `train.eval_every` of the run. files: what lies beside the weights
    in each checkpoint. facts: what its manifest says of where the model comes from. matmul_rate: FLOP/s that
    `matmul_share` refers to. observe: is told every log line, again after a resume; its alarms are logged, and one with
    `stop` ends the run. clock: decides when checkpoints are written, never what is in them.
    """

    evaluate: Callable[[], dict[str, Any]] | None = None
    files: Mapping[str, Path | str] | None = None
    facts: Mapping[str, Any] | None = None
    matmul_rate: float | None = None
    observe: Observer | None = None
    report: Report = silent
    task: str = "pretrain"
    clock: Callable[[], float] = time.monotonic
