"""Who is blamed: the silent, and whoever holds the others up; the first reason told is the one that all of them say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from foretell.errors import GroupError, TrainingError
from foretell.train import meeting, watchdog
from foretell.train.distributed import Group
from foretell.train.watchdog import Beat, Watchdog, name_ranks


class Clock:
    """Time that only the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.number = 0.0, 0
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)

    def rounds(self, dog: Watchdog, store: Any, beats: list[dict[str, Any]], seconds: int, silent: int = -1) -> None:
        """Each second every process but `silent` gives the same sign of life, with a new number."""
        for _ in range(seconds):
            self.now, self.number = self.now + 1, self.number + 1
            for rank, beat in enumerate(beats):
                if rank != silent or self.number == 1:
                    told = asdict(Beat(f"host{rank}", self.number, judged=True)) | beat
                    store.set(f"beat/{rank}", json.dumps(told))
            dog._judge()


@pytest.mark.parametrize(
    ("beats", "blamed"),
    [
        ([{"ops": 7, "waits": True}, {"ops": 6, "at": "a.py, line 3, read"}, {"ops": 7}], "Rank 1 of 3 on host1 hangs"),
        ([{"ops": 7, "waits": True}, {"ops": 7, "waits": True}, {"ops": 7}], "Rank 2 of 3 on host2 hangs"),
        ([{"ops": 7}, {"ops": 7}, {"ops": 7}], "Ranks 0, 1 and 2 of 3 on host0 and host1 and host2 hang"),
    ],
)  # fmt: skip
def test_who_holds_the_others_up_is_named(
    beats: list[dict[str, Any]], blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = HashStore(), Clock(monkeypatch)
    dog = Watchdog(store, 0, 3, timeout=30, host="host0")
    clock.rounds(dog, store, beats, 31)
    assert dog.ended() is None
    clock.rounds(dog, store, beats, 1)
    over = dog.ended()
    assert over is not None and str(over).startswith(f"{blamed}: no progress for 30 s, in ") and not over.lasting
    if "at" in beats[1]:
        assert str(over).endswith("in a.py, line 3, read.")


def test_work_that_nobody_waits_for_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = HashStore(), Clock(monkeypatch)
    dog = Watchdog(store, 0, 2, timeout=30)
    clock.rounds(dog, store, [{"judged": False}, {"judged": False, "waits": True}], 300)
    assert dog.ended() is None


def test_silence_counts_sooner_once_an_exchange_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = HashStore(), Clock(monkeypatch)
    dog, other = Watchdog(store, 0, 3, timeout=30), Watchdog(store, 1, 3, timeout=30)
    monkeypatch.setattr(watchdog.time, "sleep", lambda _: clock.rounds(dog, store, [{}, {}, {}], 1, silent=2))
    over = other.explain("Connection closed by peer")
    assert str(over) == (
        "Rank 2 of 3 on host2 is gone: killed, out of memory, or cut off from the network (no sign of life for 5 s)."
    )
    assert str(dog.end("anything later")) == str(over)


def test_a_failed_exchange_of_processes_that_all_live_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog.time, "sleep", lambda _: None)
    dog = Watchdog(HashStore(), 1, 2, timeout=30, host="b")
    assert "Rank 1 of 2 on b could not exchange values with the others (sizes differ)" in str(
        dog.explain("sizes differ")
    )


def test_ranks_are_named_as_in_speech() -> None:
    assert name_ranks([3], 4, "a") == "Rank 3 of 4 on a"
    assert name_ranks([1, 3], 4) == "Ranks 1 and 3 of 4"
    assert name_ranks(range(20), 20) == "Ranks 0, 1, 2, 3, 4, 5, 6, 7 and others of 20"


def test_each_attempt_gets_keys_of_its_own_though_the_store_stays() -> None:
    store, met = HashStore(), list[tuple[str, str]]()

    def follow() -> None:
        met.append(meeting.meet(store, 1, 2, {"torch": "2", "recipe": {"seed": 2}}, 60))

    attempts = []
    for _ in range(2):
        thread = threading.Thread(target=follow)
        thread.start()
        attempts.append(meeting.meet(store, 0, 2, {"torch": "2", "recipe": {"seed": 1}}, 60)[0])
        thread.join()
    assert attempts == [attempt for attempt, _ in met] and len(set(attempts)) == 2
    assert [odd for _, odd in met] == ["recipe.seed is 2, and 1 on rank 0"] * 2


def test_who_does_not_come_in_time_is_named() -> None:
    with pytest.raises(GroupError, match=r"Ranks 1 and 2 of 3 did not come within 0\.01 s"):
        meeting.meet(HashStore(), 0, 3, {}, 0.01)
    with pytest.raises(GroupError, match=r"Rank 0 of 3 did not come within 0\.01 s; Rank 2 of 3 on \S+ waited for it"):
        meeting.meet(HashStore(), 2, 3, {}, 0.01)


def test_who_does_not_come_is_named_where_the_first_process_keeps_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**there, meeting.JOIN_SECONDS: "0.2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with pytest.raises(GroupError, match=r"Rank 1 of 2 did not come within 0\.2 s"):
        Group.join()


def test_differences_name_what_differs() -> None:
    assert meeting.differences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) == ""
    assert meeting.differences({"a": {"b": (1, 3)}}, {"a": {"b": [1, 2], "c": {}}}) == (
        "a.b.1 is 3, and 2 on rank 0; a.c is None, and {} on rank 0"
    )
    many = meeting.differences(dict.fromkeys("abcde", 1), {})
    assert many.count("on rank 0") == 3 and many.endswith("; and 2 more")


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf", "1e300"])
def test_a_time_out_is_a_positive_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(meeting.HANG_SECONDS, text)
    with pytest.raises(TrainingError, match=f"FORETELL_HANG_SECONDS is '{text}'; expected seconds"):
        meeting.seconds(meeting.HANG_SECONDS, 1800)


def test_a_process_departs_with_its_words_where_the_launch_has_gone(tmp_path: Path) -> None:
    code = "from foretell.train import watchdog as dog; dog.depart(dog.GroupError('Over.'))"
    gone = os.environ | {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "gone" / "error.json")}
    done = subprocess.run([sys.executable, "-c", code], env=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("Error: Over. ") and "Traceback" not in done.stderr
