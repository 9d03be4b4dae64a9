"""People's judgements: who sees what next, kept line by line as it happens, so that a closed page loses nothing."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from foretell.errors import EvalError
from foretell.evals.arena.folder import PEOPLE, Arena
from foretell.evals.arena.schedule import Battle, assisted, sides
from foretell.evals.samples import parse
from foretell.files import describe_os_error

SHARED = 4  # every so-manieth battle of a person comes from one sequence that all share, so that people can be compared
VERDICTS = {"1": "left", "2": "right", "0": "neither"}
_NAME = re.compile(r"[^\W_][\w .'@+-]{0,39}")
_LONGEST = 86_400.0


@dataclass(frozen=True)
class Shown:
    """A battle before a person. left, right: players. assisted: whether critiques lie beside the replies. place: the
    how-manieth of this person, from 0."""

    battle: Battle
    left: int
    right: int
    assisted: bool
    place: int


@dataclass(frozen=True)
class Judgement:
    """What a judge said of a battle. score: of player a: 1, ½ or 0. seconds: it took; None for a model."""

    judge: str
    battle: int
    score: float
    assisted: bool
    left: int
    seconds: float | None = None


def check_judge(name: str) -> str:
    """A person's name as it is kept. Raises EvalError for what is none."""
    plain = " ".join(name.split())
    if not _NAME.fullmatch(plain):
        raise EvalError("A judge's name has 1 to 40 letters, digits, spaces and . ' @ + - and begins with a letter.")
    return plain


class People:
    """The judgements of people in an arena's folder, for one process at a time.

    Raises EvalError where another process has them open, or the file is damaged: named by its line.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena, self.path = arena, arena.folder / PEOPLE
        self._lock = Lock()
        self._known = {battle.id: battle for battle in arena.open}
        self._shared = list(self._known)
        random.Random(f"shared/{arena.seed}").shuffle(self._shared)
        self._sides: dict[str, dict[int, bool]] = {}
        self._file = _opened(self.path)
        self._shown: dict[str, dict[int, Shown]] = {}
        self._said: dict[str, dict[int, Judgement]] = {}
        try:
            for row, where in read_rows(self.path):
                self._take(row, where)
        except EvalError:
            self._file.close()
            raise

    def __enter__(self) -> People:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def next(self, judge: str) -> Shown | None:
        """What this judge sees now; None where nothing is left. The same until it is judged, whenever it is asked."""
        with self._lock:
            shown, said = self._shown.setdefault(judge, {}), self._said.get(judge, {})
            waiting = [one for id, one in shown.items() if id not in said]
            if waiting:
                return waiting[-1]  # what was taken back comes first
            left = [id for id in self._known if id not in shown]
            if not left:
                return None
            battle = self._known[self._choose(judge, left, len(shown))]
            side = self._sides.setdefault(judge, sides(self.arena.battles, judge, self.arena.seed))[battle.id]
            helped = self.arena.has_critiques(battle) and assisted(len(shown), judge, self.arena.seed)
            a, b = (battle.a, battle.b) if side else (battle.b, battle.a)
            one = Shown(battle, a, b, helped, len(shown))
            self._write({"shown": battle.id, "judge": judge, "left": a, "right": b, "assisted": helped})
            shown[battle.id] = one
            return one

    def judge(self, judge: str, battle: int, verdict: str, seconds: float) -> bool:
        """Keep a verdict: "1" for the left reply, "2" for the right, "0" for neither. False for a battle that is not
        before this judge, or is judged already (a second press), of which nothing is kept.

        Raises EvalError for another verdict.
        """
        if verdict not in VERDICTS:
            raise EvalError(f"The verdict is {verdict!r}; expected 1 (left), 2 (right) or 0 (neither).")
        with self._lock:
            shown = self._shown.get(judge, {}).get(battle)
            if shown is None or battle in self._said.get(judge, {}):
                return False
            row = {
                "verdict": VERDICTS[verdict], "battle": battle, "judge": judge, "left": shown.left,
                "right": shown.right, "assisted": shown.assisted, "seconds": round(min(max(seconds, 0.0), _LONGEST), 2),
            }  # fmt: skip
            self._write(row)
            self._take(row, "")
            return True

    def undo(self, judge: str) -> bool:
        """Take the judge's last verdict back; the battle is shown again. False where there is none."""
        with self._lock:
            said = self._said.get(judge, {})
            if not said:
                return False
            row = {"undo": list(said)[-1], "judge": judge}
            self._write(row)
            self._take(row, "")
            return True

    def done(self, judge: str) -> int:
        return len(self._said.get(judge, {}))

    def _choose(self, judge: str, left: Sequence[int], place: int) -> int:
        if place % SHARED == 0:
            return next(id for id in self._shared if id in set(left))
        times = Counter(id for shown in self._shown.values() for id in shown)
        fewest = min(times[id] for id in left)
        return random.Random(f"next/{self.arena.seed}/{judge}/{place}").choice([i for i in left if times[i] == fewest])

    def _take(self, row: dict[str, Any], where: str) -> None:
        """A line as it changes what is known."""
        try:
            judge = str(row["judge"])
            shown, said = self._shown.setdefault(judge, {}), self._said.setdefault(judge, {})
            if "shown" in row:
                battle = self._known[row["shown"]]
                shown[battle.id] = Shown(battle, int(row["left"]), int(row["right"]), bool(row["assisted"]), len(shown))
            elif "undo" in row:
                said.pop(row["undo"], None)
                shown[row["undo"]] = shown.pop(row["undo"])  # it is the latest now, and comes again
            else:
                said[row["battle"]] = _judgement(row, self._known[row["battle"]])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(where, error) from error

    def _write(self, row: dict[str, Any]) -> None:
        """One line, on the disk before anything is answered."""
        line = json.dumps(row | {"at": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False)
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise EvalError(describe_os_error(error, self.path)) from error


def read_people(arena: Arena) -> list[Judgement]:
    """What people said and did not take back. Raises EvalError for a damaged file, by its line."""
    battles = {battle.id: battle for battle in arena.battles}
    found: dict[tuple[str, int], Judgement] = {}
    for row, where in read_rows(arena.folder / PEOPLE):
        try:
            if "undo" in row:
                found.pop((row["judge"], row["undo"]), None)
            elif "verdict" in row:
                found[row["judge"], row["battle"]] = _judgement(row, battles[row["battle"]])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(where, error) from error
    return list(found.values())


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Lines and their places; a last one that was cut off while it was written is passed over."""
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        if line.strip():
            yield parse(line, path, number), f"{path}, line {number}"


def _judgement(row: dict[str, Any], battle: Battle) -> Judgement:
    left, right = int(row["left"]), int(row["right"])
    if {left, right} != {battle.a, battle.b}:
        raise ValueError("its players are not those of the battle")
    winner = {"left": left, "right": right, "neither": None}[row["verdict"]]
    score = 0.5 if winner is None else float(winner == battle.a)
    return Judgement(str(row["judge"]), battle.id, score, bool(row["assisted"]), left, float(row["seconds"]))


def _damaged(where: str, error: Exception) -> EvalError:
    return EvalError(f"{where} is no judgement of this arena ({error!r}). Restore the file, or mend it.")


def _opened(path: Path) -> BinaryIO:
    """The file, held by this process alone, without a line that was cut off."""
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise EvalError(describe_os_error(error, path)) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.close()
        raise EvalError(f"{path} is open in another process, such as a second foretell arena judge. End it.") from error
    stream.seek(0)
    whole = stream.read()
    stream.truncate(whole.rfind(b"\n") + 1)
    return stream
