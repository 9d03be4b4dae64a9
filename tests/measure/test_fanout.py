"""Tasks on worker processes: what comes back, in which order they begin, and what happens when one fails or dies."""

from __future__ import annotations

import math
import os

import pytest

from foretell.errors import MissingExtraError, RunError
from foretell.measure.fanout import fan_out


def work(task: tuple[str, int]) -> tuple[int, int]:
    what, value = task
    if what == "extra":
        raise MissingExtraError("Flying", "wings")
    if what == "die":
        os._exit(3)
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


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(RunError, match="ended from outside"):
        list(fan_out(work, [("die", 0), ("square", 1)], workers=2))


@pytest.mark.slow
def test_ray_gives_the_same() -> None:
    pytest.importorskip("ray")
    import ray

    try:
        assert dict(fan_out(math.factorial, range(5), on="ray")) == {0: 1, 1: 1, 2: 2, 3: 6, 4: 24}
    finally:
        ray.shutdown()
