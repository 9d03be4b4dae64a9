"""What workers of a cluster do in tests: in a module of its own, since a worker imports what it is given, and torch is
slow to come."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from foretell.data.collection import execute
from foretell.errors import MissingExtraError


def once(mark: Path) -> bool:
    """Whether this is the first time."""
    if mark.exists():
        return False
    mark.touch()
    return True


def work(task: tuple[str, Path]) -> Any:
    what, folder = task
    if what == "place":
        return os.getpid(), str(Path.cwd())
    if what == "killed" and once(folder / what):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "full" and once(folder / what):
        raise OSError("No space left on device")
    if what == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "extra":
        raise MissingExtraError("Flying", "wings")
    if what == "bug":
        raise KeyError("misspelt")
    if what.startswith("long"):
        (folder / what).touch()
        try:
            signal.pause()
        except KeyboardInterrupt:
            (folder / f"{what}-saved").touch()
            raise
    return what


class KilledRank(execute.Rank):
    """A task of a build, killed before its third shard, the first time."""

    def __call__(self, rank: int) -> None:
        if rank == 2 and once(self.task.out.parent / "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(rank)
