"""Which server processes live: each renews a lease, and one on the same machine is also looked for."""

from __future__ import annotations

import os
from pathlib import Path

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
