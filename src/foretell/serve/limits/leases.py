"""Which server processes live: each renews a lease, and one on the same machine is also looked for."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from foretell.errors import StoreError

log = logging.getLogger("foretell.serve")

_PROC = Path("/proc")


def place_of(pid: int) -> str:
    """Which process that is, on Linux: machine since its start, process namespace, number, time of its start.

    "" where that cannot be told, or no such process runs.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = (_PROC / "self/ns/pid").readlink()
        # The name within the brackets may hold anything, brackets too.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, began = fields[0], fields[19]
    return "" if state in "ZX" else f"{boot} {space} {pid} {began}"


def own_place() -> str:
    return place_of(os.getpid())


def is_gone(place: str) -> bool:
    """Whether a process of this machine has ended; False for one elsewhere, of which only its lease tells."""
    here = own_place().split(" ")[:2]
    boot, _, rest = place.partition(" ")
    space, _, rest = rest.partition(" ")
    return bool(rest) and [boot, space] == here and place_of(int(rest.split(" ")[0])) != place


class Heart:
    """Beats on a thread of its own while a server runs, so that neither a busy loop nor a slow call stops it.

    beat: called each `every` seconds. recover: called at the start, and after each `rest` beats. A database that does
    not answer is told of in the log, and asked again at the next beat.
    """

    def __init__(
        self, beat: Callable[[], None], recover: Callable[[], int], *, every: float = 1.0, rest: int = 15
    ) -> None:
        self._beat, self._recover = beat, recover
        self._every, self._rest = every, rest
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="limits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after a last beat."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        beats = 0
        while True:
            ending = self._ended.is_set()
            try:
                self._beat()
                if beats % self._rest == 0 and not ending and (count := self._recover()):
                    log.warning("settled %d calls that servers which are no more had left open", count)
            except StoreError as error:
                log.warning("the limits' lease was not renewed: %s", error)
            except Exception:  # without a beat, others would settle what is still open here
                log.exception("the limits' lease was not renewed")
            if ending:
                return
            beats += 1
            self._ended.wait(self._every)
