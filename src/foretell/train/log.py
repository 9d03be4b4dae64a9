"""The training log: one JSON object a line, flushed; copied to TensorBoard or Weights & Biases on demand."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from foretell.errors import MissingExtraError, RunError
from foretell.files import describe_os_error, write_text

TRACKERS_VARIABLE = "FORETELL_TRACK"


class Tracker(Protocol):
    def scalars(self, values: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class RunLog:
    """log.jsonl of a stage, opened for appending.

    resume_at: lines of steps after this one are removed (the resumed run writes them again), as is a torn last line.
    """

    def __init__(self, path: Path, resume_at: int | None = None, trackers: list[Tracker] | None = None) -> None:
        self.path = path
        self.trackers = trackers or []
        kept = [] if resume_at is None else [line for line in read_log(path) if line.get("step", 0) <= resume_at]
        self.seconds = max((float(line.get("seconds", 0)) for line in kept), default=0.0)
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        """Append one line. Raises RunError when the disk is full."""
        line = {"event": event, **_plain(fields), "utc": datetime.now(UTC).isoformat(timespec="milliseconds")}
        try:
            self._stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise RunError(describe_os_error(error, self.path)) from error
        if self.trackers and event in ("train", "eval"):
            for tracker in self.trackers:
                tracker.scalars(_flat(line, event), int(fields["step"]))

    def close(self) -> None:
        self._stream.close()
        for tracker in self.trackers:
            tracker.close()


class SilentLog(RunLog):
    """The log of a process that leaves writing to another."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def write(self, event: str, **fields: Any) -> None:
        pass

    def close(self) -> None:
        pass


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log that name their event; a torn one is left out. Empty where there is no file."""
    lines = []
    for text in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("event"), str):
            lines.append(line)
    return lines


def _plain(value: Any) -> Any:
    """JSON has no NaN: non-finite numbers become their names."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _flat(value: dict[str, Any], prefix: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, entry in value.items():
        if isinstance(entry, dict):
            out |= _flat(entry, f"{prefix}/{key}")
        elif isinstance(entry, int | float) and key != "step":
            out[f"{prefix}/{key}"] = float(entry)
    return out


def open_trackers(folder: Path, name: str) -> list[Tracker]:
    """Trackers named in the environment variable FORETELL_TRACK: "tensorboard", "wandb", or both by comma.

    Raises MissingExtraError when a package is not installed.
    """
    names = [n.strip() for n in os.environ.get(TRACKERS_VARIABLE, "").split(",")]
    known: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WandB}
    unknown = [n for n in names if n and n not in known]
    if unknown:
        raise RunError(f"{TRACKERS_VARIABLE} names {unknown[0]!r}; allowed are tensorboard and wandb.")
    return [known[n](folder, name) for n in names if n]


class _TensorBoard:
    def __init__(self, folder: Path, name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("Logging to TensorBoard", "track") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, name: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("Logging to Weights & Biases (pip install wandb)", "track") from error
        self._run = wandb.init(project="foretell", name=name, dir=str(folder), resume="allow")

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()
