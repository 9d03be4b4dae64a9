"""A thread in each process of a run: it tells the others that this one lives, and learns what ended the run."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from foretell.errors import GroupError

BEAT = 0.5  # seconds between two signs of life
LOST = 10 * BEAT  # once an exchange has failed, who gives no sign for so long is gone
GRACE = 10 * BEAT  # in which a process ends by itself once the run is over
VERDICT = "FORETELL_VERDICT"  # the file that `foretell launch` reads what ended the run for good from
UNREACHABLE = (RuntimeError, dist.DistError)

_ENDED, _ALARM = "ended", "alarm"


@dataclass(frozen=True)
class Beat:
    """A sign of life. number: of this sign. ops: exchanges entered. pulses: other progress. judged: whether no
    progress is a fault now. waits: whether the process is inside of an exchange. at: where it is."""

    host: str
    number: int = 0
    ops: int = 0
    pulses: int = 0
    judged: bool = False
    waits: bool = False
    at: str = ""


class Watchdog(threading.Thread):
    """Signs of life of this process, and judgement over those of the others.

    store: of this attempt at the run alone, on a connection of its own. timeout: seconds without progress after which a
    process hangs. address: of the store, for messages. The first and the last process judge, so that one of them is
    left when the other is lost. The first reason that anybody gives for the end is the one that all of them say.
    """

    def __init__(self, store: Store, rank: int, world: int, timeout: float, host: str = "", address: str = "") -> None:
        super().__init__(name="watchdog", daemon=True)
        self._store, self.rank, self.world, self.timeout, self.host = store, rank, world, timeout, host
        self._address = address
        self.ops = self.pulses = self._number = 0
        self.judged = False
        self.over: GroupError | None = None
        self._stopped, self._asking = threading.Event(), threading.Lock()
        self._main = threading.main_thread().ident
        began = self._round = time.monotonic()
        self._beats: dict[int, Beat] = {}
        self._heard, self._moved = dict.fromkeys(range(world), began), dict.fromkeys(range(world), began)

    def stop(self) -> None:
        self._stopped.set()

    def end(self, reason: str, lasting: bool = False) -> GroupError:
        """Tell every process why the run is over; returns what is believed, which is what was told first."""
        told = json.dumps({"reason": reason, "lasting": lasting})
        try:
            self._store.compare_set(_ENDED, "", told)
            over = self.ended()
        except UNREACHABLE:
            over = None
        return over or GroupError(reason, lasting)

    def ended(self) -> GroupError | None:
        """What ended the run, None while it goes on. Raises what the store raises."""
        with self._asking:
            if self.over is None and self._store.check([_ENDED]):
                self.over = self._error(**json.loads(self._store.get(_ENDED)))
        return self.over

    def explain(self, symptom: str) -> GroupError:
        """What ended the run, asked when an exchange failed with `symptom`: whoever was the cause says so, or is found
        by giving no more signs of life."""
        try:
            self._store.set(_ALARM, symptom)
            for _ in range(round(2 * LOST / BEAT)):
                if (over := self.ended()) is not None:
                    return over
                time.sleep(BEAT)
        except UNREACHABLE:
            return self._cut_off()
        return self.end(f"{self.who([self.rank])} could not exchange values with the others ({symptom}).")

    def who(self, ranks: Sequence[int]) -> str:
        """ "Rank 1 of 4 on b", or "Ranks 1 and 2 of 4 on b"."""
        known = {rank: beat.host for rank, beat in self._beats.items()} | {self.rank: self.host}
        hosts = dict.fromkeys(known.get(rank, "") for rank in ranks)
        return name_ranks(ranks, self.world, " and ".join(filter(None, hosts)))

    def run(self) -> None:
        threading.Thread(target=self._mind_self, name="watchdog's own", daemon=True).start()
        while not self._stopped.wait(BEAT):
            try:
                self._round = time.monotonic()
                self._beat()
                if self.rank in (0, self.world - 1):
                    self._judge()
                if self.ended() is not None:
                    break
            except UNREACHABLE:
                self.over = self._cut_off()
                break
        # What waits in an exchange with a process that is gone may wait for ever.
        if not self._stopped.wait(GRACE) and self.over is not None:
            depart(self.over)

    def _mind_self(self) -> None:
        """End this process where the store does not answer: cut off from the network, a call may never return."""
        while not self._stopped.wait(BEAT):
            if self.over is None and time.monotonic() - self._round > self.timeout + GRACE:
                depart(self._cut_off())

    def _beat(self) -> None:
        self._number += 1
        waits, at = _place(self._main)
        beat = Beat(self.host, self._number, self.ops, self.pulses, self.judged, waits, at)
        self._store.set(f"beat/{self.rank}", json.dumps(asdict(beat)))

    def _judge(self) -> None:
        keys = [f"beat/{rank}" for rank in range(self.world)]
        if not self._store.check(keys):
            return
        now = time.monotonic()
        for rank, text in enumerate(self._store.multi_get(keys)):
            beat, before = Beat(**json.loads(text)), self._beats.get(rank)
            if before is None or beat.number != before.number:
                self._heard[rank] = now
            if before is None or not beat.judged or (beat.ops, beat.pulses) != (before.ops, before.pulses):
                self._moved[rank] = now
            self._beats[rank] = beat
        alarm = self._store.check([_ALARM])
        limit = LOST if alarm else self.timeout
        if silent := [rank for rank, heard in self._heard.items() if now - heard > limit]:
            self.end(
                f"{self.who(silent)} {'is' if len(silent) == 1 else 'are'} gone: killed, out of memory, or cut off "
                f"from the network (no sign of life for {limit:g} s)."
            )
        elif any(now - moved > self.timeout for moved in self._moved.values()):
            ranks = _laggards(self._beats)
            self.end(
                f"{self.who(ranks)} {'hangs' if len(ranks) == 1 else 'hang'}: no progress for {self.timeout:g} s, in "
                f"{self._beats[ranks[0]].at or 'an unknown place'}."
            )

    def _error(self, reason: str, lasting: bool) -> GroupError:
        return GroupError(reason, lasting, self._told())

    def _told(self) -> bool:
        """Whether another process of this machine has begun to say it; asked once."""
        try:
            return self._store.add(f"told/{os.environ.get('GROUP_RANK', '0')}", 1) > 1
        except UNREACHABLE:
            return False

    def _cut_off(self) -> GroupError:
        return self.over or GroupError(
            f"{self.who([self.rank])} has lost the store at {self._address or 'an unknown address'}, where the "
            "processes meet: foretell launch was killed on the first rank's machine, or that is gone or cut off."
        )


def name_ranks(ranks: Sequence[int], world: int, host: str = "") -> str:
    shown = [str(rank) for rank in ranks[:8]] + (["others"] if len(ranks) > 8 else [])
    names = f"Rank {shown[0]}" if len(shown) == 1 else f"Ranks {', '.join(shown[:-1])} and {shown[-1]}"
    return f"{names} of {world}{f' on {host}' if host else ''}"


def _laggards(beats: Mapping[int, Beat]) -> list[int]:
    """Who holds the others up: those that entered the fewest exchanges; among equals, those that wait in none."""
    least = min(beat.ops for beat in beats.values())
    behind = [rank for rank, beat in beats.items() if beat.ops == least]
    return [rank for rank in behind if not beats[rank].waits] or behind


def _place(thread: int | None) -> tuple[bool, str]:
    """(whether it is in an exchange, the innermost line of this package) of a thread."""
    frame = sys._current_frames().get(thread or 0)
    waits, at = False, ""
    while frame is not None:
        name = frame.f_code.co_filename.replace(os.sep, "/")
        waits = waits or "torch/distributed/" in name or name.endswith("train/distributed.py")
        if not at and "/foretell/" in name:
            at = f"{name.rpartition('/foretell/')[2]}, line {frame.f_lineno}, {frame.f_code.co_name}"
        frame = frame.f_back
    return waits, at


def depart(error: GroupError) -> NoReturn:
    """Say what ended the run, once a machine, and end this process at once, whatever its other threads wait for.

    Under `foretell launch` what is lasting is left to it to say, and the process ends as if it had finished: torchrun
    would start anew whatever ends otherwise.
    """
    text, verdict, code = " ".join(str(error).split()), os.environ.get(VERDICT), 2
    if verdict and error.lasting:
        Path(verdict).write_text(text, encoding="utf-8")
        code = 0
    elif not error.told:
        print(f"Error: {text} {_next()}", file=sys.stderr)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun shows it in its report
        told: dict[str, Any] = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):  # a launch that was interrupted twice has taken its folder away
            Path(file).write_text(json.dumps({"message": told}), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _next() -> str:
    most, done = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("MAX_RESTARTS", "RESTART_COUNT"))
    if done < most:
        return f"torchrun starts the processes again (restart {done + 1} of {most})."
    return "Start the same command again to go on from the last checkpoint."
