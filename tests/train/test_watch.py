"""The watch: what is a bad step and what is not."""

from __future__ import annotations

import random

import pytest

from foretell.errors import TrainingError
from foretell.train.watch import PATIENCE, Action, Watch


def warmed(action: Action = "skip", sigmas: float = 8.0) -> Watch:
    watch, rng = Watch(action, sigmas), random.Random(0)
    for step in range(100):
        assert watch.judge(step, 3.0 + rng.gauss(0, 0.1), 0.5 * 2 ** rng.gauss(0, 0.3)) is None
    return watch


def test_rises_are_spikes_and_falls_are_not() -> None:
    watch = warmed()
    assert watch.judge(100, 1.0, 0.01) is None
    alarm = watch.judge(101, 5.0, 0.5)
    assert alarm is not None and alarm.what == "loss" and alarm.sigmas is not None and 8 < alarm.sigmas < 40
    alarm = watch.judge(102, 3.0, 500.0)
    assert alarm is not None and alarm.what == "gradient norm"
    assert watch.judge(103, 3.0, 0.5) is None and watch.bad == 0


def test_a_flat_stretch_does_not_make_wobbles_spikes() -> None:
    watch = Watch("skip", 8.0)
    for step in range(100):
        watch.judge(step, 2.0, 1.0)
    assert watch.judge(100, 2.2, 2.0) is None


@pytest.mark.parametrize("action", ["skip", "rewind", "off"])
def test_non_finite_is_always_bad(action: Action) -> None:
    watch = Watch(action, 8.0)
    for loss, norm in ((float("nan"), 1.0), (1.0, float("inf"))):
        alarm = watch.judge(0, loss, norm)
        assert alarm is not None and alarm.event == "nonfinite"


def test_off_ignores_spikes() -> None:
    assert warmed("off").judge(100, 50.0, 1e6) is None


def test_gives_up_after_several_in_a_row() -> None:
    watch = warmed()
    with pytest.raises(TrainingError, match=r"raise train.spike_sigmas"):
        for step in range(100, 100 + PATIENCE):
            watch.judge(step, 30.0, 0.5)


def test_good_steps_on_the_way_back_do_not_reset_the_count() -> None:
    watch = warmed("rewind")
    with pytest.raises(TrainingError):
        for _ in range(PATIENCE):
            watch.judge(150, float("nan"), 1.0)
            watch.judge(120, 3.0, 0.5)


def test_state_round_trip() -> None:
    watch, other = warmed(), Watch("skip", 8.0)
    watch.judge(100, 9.0, 1.0)
    other.load_state_dict(watch.state_dict())
    assert other.state_dict() == watch.state_dict()
