"""Loss spikes and non-finite steps: seen before the update, never after it."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from foretell.errors import TrainingError

Action = Literal["skip", "rewind", "off"]
WINDOW = 128
ENOUGH = 32
PATIENCE = 8


@dataclass(frozen=True)
class Alarm:
    """One bad step. event: "nonfinite" or "spike". sigmas: robust z-score, None when not finite."""

    event: Literal["nonfinite", "spike"]
    what: str
    value: float
    sigmas: float | None


def robust_z(value: float, window: list[float], floor: float) -> float:
    """Distance of `value` above the window's median, in units of 1.4826 · MAD (at least `floor`)."""
    median = statistics.median(window)
    mad = statistics.median([abs(x - median) for x in window])
    return (value - median) / max(1.4826 * mad, floor)


class Watch:
    """Judges every step by its loss and gradient norm, against the last good ones.

    sigmas: how far above the recent median, in robust standard deviations, is a spike. Only rises count. With action
    "off" only non-finite steps are bad. State travels in the checkpoint, so a resumed run judges alike.
    """

    def __init__(self, action: Action, sigmas: float) -> None:
        self.action = action
        self.sigmas = sigmas
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.log_norms: deque[float] = deque(maxlen=WINDOW)
        self.bad = 0
        self.furthest = -1

    def judge(self, step: int, loss: float, norm: float) -> Alarm | None:
        """Judge step `step`; None when it is good.

        Raises TrainingError after PATIENCE bad steps in a row (with rewinding: without getting past them).
        """
        alarm = self._alarm(loss, norm)
        if alarm is None:
            self.losses.append(loss)
            self.log_norms.append(math.log(norm) if norm > 0 else -100.0)
            if step > self.furthest:
                self.bad = 0
            return None
        self.bad += 1
        self.furthest = max(self.furthest, step)
        if self.bad >= PATIENCE:
            raise TrainingError(self._advice(step, alarm))
        return alarm

    def _alarm(self, loss: float, norm: float) -> Alarm | None:
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return Alarm("nonfinite", what, value, None)
        if self.action == "off" or len(self.losses) < ENOUGH:
            return None
        # The floors keep a flat stretch, where the MAD is tiny, from calling every wobble a spike:
        # at 8 sigmas a loss must rise by 16 %, a gradient (clipped anyway) to 3.3 times its median.
        losses = list(self.losses)
        z = robust_z(loss, losses, 0.02 * abs(statistics.median(losses)))
        if z > self.sigmas:
            return Alarm("spike", "loss", loss, z)
        z = robust_z(math.log(max(norm, 1e-30)), list(self.log_norms), 0.15)
        return Alarm("spike", "gradient norm", norm, z) if z > self.sigmas else None

    def _advice(self, step: int, alarm: Alarm) -> str:
        seen = f"{self.bad} bad steps in a row ending at step {step}: the {alarm.what} was {alarm.value:g}"
        if alarm.event == "nonfinite":
            return (
                f"Training stopped after {seen}. The weights were not touched by them. Lower train.optimizer.lr (or, "
                "in bfloat16, set train.precision: float32) and run again."
            )
        return (
            f"Training stopped after {seen}, {alarm.sigmas:.0f} robust standard deviations above the recent median "
            f"(limit {self.sigmas:g}). If the data changes there on purpose, raise train.spike_sigmas or set "
            "train.watch: off; else lower train.optimizer.lr."
        )

    def window(self) -> tuple[list[float], list[float]]:
        """Recent losses and log gradient norms, to be put back by `rewind`."""
        return list(self.losses), list(self.log_norms)

    def rewind(self, window: tuple[list[float], list[float]]) -> None:
        """Judge by an earlier window again, without forgetting how many steps were bad."""
        self.losses, self.log_norms = (deque(values, maxlen=WINDOW) for values in window)

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "log_norms": list(self.log_norms),
            "bad": self.bad,
            "furthest": self.furthest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = deque(state["losses"], maxlen=WINDOW)
        self.log_norms = deque(state["log_norms"], maxlen=WINDOW)
        self.bad, self.furthest = int(state["bad"]), int(state["furthest"])
