"""An observer of a run: told every log line, heard in log and terminal, alive after a resume, able to end the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import TrainingError
from foretell.forecast.curves import curves_of
from foretell.forecast.watch import Band, Live
from foretell.train.log import read_log


class Observer:
    """Raises one alarm when it has been told of `at` lines."""

    def __init__(self, at: int, stop: bool = False) -> None:
        self.at, self.stop = at, stop
        self.told: list[tuple[float, float]] = []

    def __call__(self, share: float, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.told.append((share, line["loss"]))
        alarm = {"share": share, "text": "too hot", "stop": self.stop}
        return [alarm] if len(self.told) == self.at else []


class Terminal:
    def __init__(self) -> None:
        self.said: list[tuple[str, float | None, str]] = []

    def __call__(self, task: str, done: float, total: float | None = None, note: str = "") -> None:
        self.said.append((task, total, note))


def events(out: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "log.jsonl") if line["event"] == event]


def test_it_is_told_every_line_and_its_alarm_is_heard(toy: Any, tmp_path: Path) -> None:
    observer, terminal = Observer(at=2), Terminal()
    toy.train(tmp_path, observe=observer, report=terminal)
    assert observer.told == [(line["step"] / 24, line["loss"]) for line in events(tmp_path, "train")]
    (alarm,) = events(tmp_path, "alarm")
    assert (alarm["step"], alarm["share"], alarm["text"]) == (8, 8 / 24, "too hot")
    assert terminal.said.count(("ALARM at 33%", 0, "too hot")) == 1
    notes = [note for task, total, note in terminal.said if task == "pretrain" and total == 24]
    assert ["ALARM at 33%" in note for note in notes] == [False] * 7 + [True] * 17  # plain to see until the end


def test_it_changes_no_number(toy: Any, tmp_path: Path) -> None:
    plain = toy.train(tmp_path / "plain")
    assert toy.train(tmp_path / "observed", observe=Observer(at=2))["loss"] == plain["loss"]


def test_a_resumed_run_goes_on_with_what_was_seen(toy: Any, tmp_path: Path) -> None:
    """The log may hold lines beyond the checkpoint; they are written, and told, again."""
    toy.train(tmp_path / "whole", observe=Observer(at=2))
    out, observer = tmp_path / "cut", Observer(at=2)

    def cut(share: float, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        if share == 16 / 24:
            raise TrainingError("cut")
        return observer(share, line)

    ticks = iter(range(100))
    with pytest.raises(TrainingError, match="cut"):
        toy.train(out, observe=cut, clock=lambda: 86400.0 * (next(ticks) >= 10))
    assert [line["step"] for line in events(out, "checkpoint")] == [10]
    again, terminal = Observer(at=2), Terminal()
    toy.train(out, observe=again, report=terminal)
    assert again.told == [(line["step"] / 24, line["loss"]) for line in events(tmp_path / "whole", "train")]
    assert [line["step"] for line in events(out, "alarm")] == [8]
    assert any("ALARM at 33%" in note for *_, note in terminal.said)


def test_it_may_end_the_run_which_goes_on_when_asked_again(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Ended by an alarm after step 8 of 24: too hot.*same command"):
        toy.train(tmp_path, observe=Observer(at=2, stop=True))
    assert [line["step"] for line in events(tmp_path, "checkpoint")] == [8]
    assert events(tmp_path, "stop")[0]["reason"] == "alarm"
    toy.train(tmp_path, observe=Observer(at=2, stop=True))
    assert events(tmp_path, "end")[0]["step"] == 24 and len(events(tmp_path, "alarm")) == 1


def test_an_alarm_at_the_last_step_ends_nothing(toy: Any, tmp_path: Path) -> None:
    toy.train(tmp_path, observe=Observer(at=6, stop=True))
    assert events(tmp_path, "end") and len(events(tmp_path, "alarm")) == 1


def test_the_watch_of_a_forecast_observes_a_run(toy: Any, tmp_path: Path) -> None:
    """Far above its band from the start: one alarm, with what it needs to be understood, that a resume keeps."""
    shares = tuple((i + 1) / 50 for i in range(50))
    band = Band(shares, (0.1,) * 50, (0.09,) * 50, (0.11,) * 50, unit="nats per token")
    metrics = toy.train(tmp_path, toy.recipe(log_every=1), observe=Live(band))
    (alarm,) = events(tmp_path, "alarm")
    assert alarm["share"] <= 0.2 and alarm["loss"] > alarm["high"] == 0.11
    assert alarm["reason"] == "learning rate" and "behind its curve" in alarm["text"]
    assert metrics["steps"] == 24 and band.check(*curves_of(tmp_path / "log.jsonl"))[0].share == alarm["share"]
