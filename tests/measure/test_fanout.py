"""Tasks on worker processes: what comes back, in which order they begin, and what happens when one fails or dies."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foretell.errors import MissingExtraError, RunError
from foretell.measure.fanout import Workers, check_place, fan_out


class Foreign(Exception):
    """Cannot be made of its own arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def work(task: tuple[str, Any]) -> tuple[int, int]:
    what, value = task
    if what == "extra":
        raise MissingExtraError("Flying", "wings")
    if what == "foreign":
        raise Foreign("a", "b")
    if what == "die" or (what == "die once" and not value.exists()):
        if what != "die":
            value.touch()
        os._exit(3)
    if what == "die once":
        return 0, os.getpid()
    return value * value, os.getpid()


def test_results_come_with_their_index_from_other_processes() -> None:
    found = dict(fan_out(work, [("square", i) for i in range(5)], workers=2))
    assert {i: square for i, (square, _) in found.items()} == {i: i * i for i in range(5)}
    assert os.getpid() not in {pid for _, pid in found.values()}


def test_one_worker_is_this_process() -> None:
    assert list(fan_out(work, [("square", 3)], workers=1)) == [(0, (9, os.getpid()))]
    assert list(fan_out(work, [], workers=1)) == []


def test_an_error_whose_class_cannot_travel_arrives_in_words() -> None:
    with pytest.raises(Exception, match="wings"):
        list(fan_out(work, [("extra", 0), ("square", 1)], workers=2))
    with pytest.raises(RuntimeError, match="Foreign: ab"):
        list(fan_out(work, [("foreign", 0), ("square", 1)], workers=2))


def test_the_task_of_a_killed_worker_is_done_again_and_at_last_given_up(tmp_path: Path) -> None:
    told: list[str] = []
    tasks = [("die once", tmp_path / "mark"), ("square", 1)]
    found = dict(fan_out(work, tasks, workers=2, tell=told.append))
    assert [square for _, (square, _) in sorted(found.items())] == [0, 1]
    assert len(told) == 1 and "ended from outside" in told[0] and told[0].endswith("begun again (1 of 2).")
    with pytest.raises(RunError, match=r"ended from outside.*last of 3 attempts"):
        list(fan_out(work, [("die", 0), ("square", 1)], workers=2))


def test_a_worker_that_is_killed_between_its_tasks_is_replaced() -> None:
    told: list[str] = []
    with Workers(1) as pool:
        ((_, (_, first)),) = pool.map(work, [("square", 1)])
        os.kill(first, signal.SIGKILL)
        ((_, (square, second)),) = pool.map(work, [("square", 3)], tell=told.append)
    assert square == 9 and second != first and len(told) == 1


def environment(name: str) -> str | None:
    return os.environ.get(name)


def test_workers_have_the_environment_of_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers(1) as pool:  # by now whatever processes are forked from is there, with its own
        assert list(pool.map(environment, ["FORETELL_LATE"])) == [(0, None)]
    monkeypatch.setenv("FORETELL_LATE", "yes")
    with Workers(1) as pool:
        assert list(pool.map(environment, ["FORETELL_LATE"])) == [(0, "yes")]


def test_a_script_that_works_when_it_is_imported_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import math\nfrom foretell.measure.fanout import fan_out\n"
        "print(dict(fan_out(math.factorial, [3, 4], workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "RunError: No worker process could begin" in last and str(script) in last, last
    assert 'under `if __name__ == "__main__":`' in last and "ended from outside" not in done.stderr


def test_there_is_no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("moon", "local:4", "local:", "ray:", ""):
        with pytest.raises(RunError, match="expected local, ray"):
            list(fan_out(work, [], on=place))
    with pytest.raises(RunError, match=r"expected local, ray, slurm, or ray:ADDRESS"):
        check_place("moon", "slurm")
    for place in ("local", "slurm"):
        check_place(place, "slurm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"foretell\[cluster\]"):
        check_place("ray:127.0.0.1:6379")


@pytest.mark.slow
def test_ray_gives_the_same() -> None:
    pytest.importorskip("ray")
    import ray

    try:
        assert dict(fan_out(math.factorial, range(5), on="ray")) == {0: 1, 1: 1, 2: 2, 3: 6, 4: 24}
    finally:
        ray.shutdown()
