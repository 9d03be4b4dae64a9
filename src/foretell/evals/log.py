"""The log of a run: upstream's JSON lines, written in one piece when the run is over; until then, a journal.

The log is a "spec" line, then every event of every sample in the run's order, then the "final_report". The journal
beside it (`.part`) has one line a finished sample, as they finish, so that a run that was cut off goes on with what it
has. Beside the finished log lies its index (`.npz`): where each sample's events are, and its score.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from foretell.errors import EvalError
from foretell.evals.base import BAD_SAMPLE

Recorded = tuple[str, dict[str, Any]]
PART = ".part"
_upstream = json.JSONEncoder(ensure_ascii=False, default=str).encode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class Journal:
    """What of a run is done, kept as it happens. place: a sample's number in the run's order, epochs one after another.

    Raises EvalError where it is of another run, or another process writes it.
    """

    def __init__(self, log: Path, spec: Mapping[str, Any], digest: str, total: int) -> None:
        self.path = log.with_name(log.name + PART)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise EvalError(
                f"{self.path} is being written by another run. Wait for it, or give --record_path."
            ) from error
        self._begin = np.zeros(total, np.int64)  # of each place: where its line begins; 0 where there is none
        digest = f"{digest}-{total}"  # a file of samples that grew makes another run
        self.done = 0
        self.answers: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}  # of samples that are not done, by question
        self.spec = dict(spec)
        self._end = 0
        try:
            self._read(digest)
        except EvalError:
            self._file.close()
            raise

    def _read(self, digest: str) -> None:
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):  # cut off while it was written
                break
            try:
                row = json.loads(line)
                if "spec" in row:
                    if row["digest"] != digest:
                        raise EvalError(
                            f"{self.path} holds a run with other settings, which was cut off. Give another "
                            "--record_path, or delete it."
                        )
                    self.spec = row["spec"]
                elif "call" in row:
                    known = self.answers.setdefault((row.get("id", ""), row.get("epoch", 0)), {})
                    known[row["call"]] = row["answer"]
                else:
                    self.answers.pop((row["id"], row.get("epoch", 0)), None)
                    self._place(int(row["place"]), self._end)
            except (ValueError, KeyError, TypeError, IndexError):
                break
            self._end += len(line)
        self._file.truncate(self._end)
        self._file.seek(self._end)
        if not self._end:
            self._write({"spec": self.spec, "digest": digest})

    def add(self, place: int, id: str, events: Sequence[Recorded], epoch: int = 0, group: str | None = None) -> None:
        """A finished sample. group: samples that are not independent of it share it."""
        start, row = self._end, {"place": place, "id": id, "at": str(datetime.now(UTC)), "events": events}
        if epoch:
            row["epoch"] = epoch
        if group is not None:
            row["group"] = group
        self._write(row)
        self._place(place, start)

    def __contains__(self, place: int) -> bool:
        return bool(self._begin[place])

    def _place(self, place: int, begin: int) -> None:
        self.done += not self._begin[place]
        self._begin[place] = begin

    def answered(self, id: str, epoch: int, key: str, answer: Mapping[str, Any]) -> None:
        """An answer within a sample that goes on asking."""
        self._write({"call": key, "id": id, "epoch": epoch, "answer": answer})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Finished samples in the run's order."""
        with self.path.open("rb") as stream:
            for begin in self._begin:
                if begin:
                    stream.seek(int(begin))
                    yield json.loads(stream.readline())

    def close(self, delete: bool = False) -> None:
        if delete:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        line = (_encode(row) + "\n").encode("utf-8", "surrogatepass")
        try:
            written = self._file.write(line)
            if written != len(line):  # a disk that is full takes a part
                raise OSError(28, os.strerror(28))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise EvalError(
                f"{self.path} cannot be written ({error.strerror}). What is finished is kept: make room, and run the "
                "same command again."
            ) from error
        self._end += len(line)


See = Callable[[Sequence[Recorded]], None]


def write_log(path: Path, journal: Journal, see: See, final: Callable[[], Mapping[str, Any]]) -> None:
    """The finished log and its index, out of the journal, which is then deleted.

    see: is given the events of every sample in turn. final: what then stands in the last line, "final_report" and more.
    """
    run_id, by = journal.spec["run_id"], journal.spec.get("created_by", "")
    temporary = path.with_name(path.name + ".tmp")
    index = _Index()
    try:
        with temporary.open("wb") as out:
            place, event_id = _line(out, 0, {"spec": journal.spec}), 0
            for row in journal.rows():
                begin = place
                see(row["events"])
                for type, data in row["events"]:
                    event = {
                        "run_id": run_id, "event_id": event_id, "sample_id": row["id"], "type": type, "data": data,
                        "created_by": by, "created_at": row["at"],
                    }  # fmt: skip
                    place, event_id = _line(out, place, event), event_id + 1
                index.add(begin, place - begin, row)
            _line(out, place, {**final(), "run_id": run_id})
            out.flush()
            os.fsync(out.fileno())
        index.write(path)
        temporary.rename(path)
    except OSError as error:
        raise EvalError(
            f"{path} cannot be written ({error.strerror}). All samples are kept in {journal.path}: make room, and run "
            "the same command again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    journal.close(delete=True)


def _line(out: BinaryIO, place: int, row: Mapping[str, Any]) -> int:
    line = (_upstream(row) + "\n").encode("utf-8", "surrogatepass")
    out.write(line)
    return place + len(line)


def score_of(events: Iterable[tuple[str, Mapping[str, Any]]]) -> float:
    """The score of one sample: whether it is right, else its first metric that is a number; nan where it has none."""
    metric = math.nan
    for type, data in events:
        if type == "match":
            return float(data.get("correct", False))
        if type == "metrics" and math.isnan(metric):
            numbers = (float(v) for v in data.values() if isinstance(v, int | float) and not isinstance(v, str))
            metric = next(numbers, math.nan)
    return metric


_COLUMNS = ("begin", "length", "score", "invalid", "epoch", "id", "group", "groups")


_AT_ONCE = 4096  # ids that are packed together


class _Index:
    def __init__(self) -> None:
        self.begin, self.length, self.invalid, self.epoch = array("q"), array("I"), array("b"), array("i")
        self.score = array("d")
        self.ids: list[bytes] = []
        self.packed: list[npt.NDArray[np.bytes_]] = []
        self.groups: dict[str, int] = {}
        self.group = array("i")

    def add(self, begin: int, length: int, row: Mapping[str, Any]) -> None:
        self.begin.append(begin)
        self.length.append(length)
        self.score.append(score_of(row["events"]))
        self.invalid.append(any(type == BAD_SAMPLE for type, _ in row["events"]))
        self.epoch.append(row.get("epoch", 0))
        self.ids.append(row["id"].encode("utf-8", "surrogatepass"))
        if len(self.ids) == _AT_ONCE:
            self._pack()
        group = row.get("group")
        self.group.append(-1 if group is None else self.groups.setdefault(str(group), len(self.groups)))

    def _pack(self) -> None:
        self.packed.append(np.array(self.ids, np.bytes_))
        self.ids.clear()

    def write(self, log: Path) -> None:
        self._pack()
        path = index_path(log)
        temporary = path.with_name(path.name + ".tmp.npz")
        arrays: dict[str, Any] = {
            name: np.asarray(getattr(self, name)) for name in _COLUMNS if name not in ("id", "groups")
        }
        names = [name.encode("utf-8", "surrogatepass") for name in self.groups]
        np.savez(temporary, id=np.concatenate(self.packed), groups=np.array(names, np.bytes_), **arrays)
        temporary.rename(path)


def index_path(log: Path) -> Path:
    return log.with_name(log.name + ".npz")


@dataclass(frozen=True)
class RunLog:
    """A finished run, opened by its index: samples are read when they are asked for.

    spec: of the run. report: its final report; extra: what else its last line holds. Of each sample: begin, length of
    its events in the file; score, nan where it has none; invalid, where it could not be judged; epoch; id; group, an
    index into groups or -1.
    """

    path: Path
    spec: Mapping[str, Any]
    report: Mapping[str, Any]
    extra: Mapping[str, Any]
    begin: npt.NDArray[np.int64]
    length: npt.NDArray[np.uint32]
    score: npt.NDArray[np.float64]
    invalid: npt.NDArray[np.int8]
    epoch: npt.NDArray[np.int32]
    id: npt.NDArray[np.bytes_]
    group: npt.NDArray[np.int32]
    groups: npt.NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def config(self) -> Mapping[str, Any]:
        """How the run was set up; empty where the spec does not say, as all of these."""
        return _mapping(self.spec.get("run_config"))

    @property
    def eval_spec(self) -> Mapping[str, Any]:
        """The eval's entry in its registry: cls, args, registry_path."""
        return _mapping(self.config.get("eval_spec"))

    @property
    def args(self) -> Mapping[str, Any]:
        """The eval's settings."""
        return _mapping(self.eval_spec.get("args"))

    def events(self, number: int) -> list[dict[str, Any]]:
        """The events of a sample."""
        with self.path.open("rb") as stream:
            stream.seek(int(self.begin[number]))
            return [json.loads(line) for line in stream.read(int(self.length[number])).splitlines()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def read_log(path: Path) -> RunLog:
    """A log that was finished here. Others are brought into this form by `foretell eval import`.

    Raises EvalError for one that is missing, half-written, or without its index.
    """
    try:
        with path.open("rb") as stream:
            first = json.loads(stream.readline())
            end = stream.seek(0, os.SEEK_END)
            back = 1 << 12
            while True:
                stream.seek(max(0, end - back))
                tail = stream.read().rstrip(b"\n")
                if b"\n" in tail or back >= end:
                    break
                back *= 4
            last = json.loads(tail.rsplit(b"\n", 1)[-1])
        arrays = np.load(index_path(path), allow_pickle=False)
        columns = {name: arrays[name] for name in _COLUMNS}
        report, spec = last.pop("final_report"), first["spec"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvalError(
            f"{path} is no finished log of a run ({error!r}). Bring logs of other tools in with: foretell eval import"
        ) from error
    return RunLog(path, spec, report, last, **columns)
