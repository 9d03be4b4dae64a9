"""Logs of other tools in our form: OpenAI Evals' JSON lines, and Inspect's .eval and .json."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from foretell.errors import EvalError
from foretell.evals.log import Journal, Recorded, RunLog, read_log, write_log
from foretell.evals.results import utc
from foretell.evals.samples import parse
from foretell.files import describe_os_error, sha256_file

LINE = 256 << 20  # bytes of one line
NAME = 1000  # characters of a sample's id


@dataclass(frozen=True)
class Brought:
    """A run of another tool. rows: its samples in their order, as a journal has them. last: the log's last line."""

    spec: Mapping[str, Any]
    rows: Iterator[dict[str, Any]]
    last: Mapping[str, Any]


class _Rows(Journal):
    """A journal whose rows come from another log, so that they are not written twice."""

    def __init__(self, out: Path, run: Brought) -> None:
        super().__init__(out, run.spec, "imported", 0)
        self.spec, self._rows = dict(run.spec), run.rows  # not those of an import that was killed

    def rows(self) -> Iterator[dict[str, Any]]:
        return self._rows


def import_log(path: str | Path, out: str | Path) -> RunLog:
    """Bring a log of OpenAI Evals (.jsonl) or Inspect (.eval, .json) into our form, with an index beside it.

    out: the new log. Events stand by sample, in the order of sample ids. A run that was cut off has "complete": false
    and a "note" in `extra`. Raises EvalError for what is no such log, is damaged, or would be written over.
    """
    from foretell.evals.importing_inspect import read_json, read_zip

    path, out = Path(path), Path(out)
    if out.exists():
        raise EvalError(f"{out} is there already. Give another place, or delete it.")
    try:
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
        reader: Callable[[Path], Brought] = read_zip if head.startswith(b"PK") else _upstream
        form = "Inspect" if reader is read_zip else _form(head, path)
        if form == "Inspect" and reader is _upstream:
            reader = read_json
        digest, run = sha256_file(path), reader(path)
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from error
    except RecursionError as error:
        raise EvalError(f"{path} is nested too deeply to be a log.") from error
    last = {**run.last, "imported": {"form": form, "from": str(path.absolute()), "sha256": digest}}
    try:
        journal = _Rows(out, run)
        try:
            write_log(out, journal, lambda events: None, lambda: last)
        finally:
            journal.close(delete=True)
    except (EvalError, OSError) as error:
        why = error if isinstance(error, OSError) else error.__cause__
        if isinstance(why, OSError):
            raise EvalError(describe_os_error(why, out)) from error
        raise
    except RecursionError as error:
        raise EvalError(f"{path} is nested too deeply to be a log.") from error
    return read_log(out)


def _form(head: bytes, path: Path) -> str:
    if head.startswith(b"version https://git-lfs"):
        raise EvalError(f"{path} is a Git LFS pointer, not the log. Fetch it with: git lfs pull")
    if re.match(rb'\s*\{\s*"spec"\s*:', head):
        return "OpenAI Evals"
    if re.match(rb"\s*\{", head) and (b'"eval"' in head or path.suffix == ".json"):
        return "Inspect"
    raise EvalError(
        f"{path} is no log that is known. Expected JSON lines that begin with a spec (OpenAI Evals), or a .eval or "
        ".json log of Inspect."
    )


def natural(name: str) -> list[str | int]:
    """A key that sorts numbers in names by value."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", name))]


def sample_name(value: Any) -> str:
    """A sample's id as text. Raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int) or len(name := str(value)) > NAME:
        raise ValueError(f"{str(value)[:40]!r} is no sample id")
    return name


def check(events: list[Recorded]) -> list[Recorded]:
    """The events, if scores can be taken of them. Raises ValueError."""
    for type, data in events:
        if type == "match" and not isinstance(data.get("correct"), bool | int | float):
            raise ValueError(f"a match event says of correct: {str(data.get('correct'))[:40]!r}")
        if type in ("match", "metrics"):
            for name, value in data.items():
                if isinstance(value, int) and abs(value) >= 1 << 1023:
                    raise ValueError(f"{name[:40]!r} is too large a number")
    return events


def _lines(stream: BinaryIO, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, place and bytes of every line that is not empty."""
    begin = 0
    for number in count(1):
        line = stream.readline(LINE + 1)
        if not line:
            return
        if len(line) > LINE:
            raise EvalError(f"{path}, line {number} is longer than {LINE >> 20} MB, as no event is. Remove it.")
        if line.strip():
            yield number, begin, line
        begin += len(line)


class _Upstream:
    """What is where in a log of upstream, whose threads wrote their samples' events between each other's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec: dict[str, Any] | None = None
        self.report: dict[str, Any] | None = None
        self.torn = False
        self.begin, self.length, self.number, self.whose = array("q"), array("q"), array("q"), array("q")
        self.samples: dict[tuple[int, str], int] = {}
        self.seen: dict[str, int] = {}  # of own logs: how often a sample's events began anew, which is its epoch
        self.last = ""
        self.tokens, self.end = 0, ""
        with path.open("rb") as stream:
            for number, begin, line in _lines(stream, path):
                try:
                    row = parse(line, path, number)
                except EvalError:
                    if line.endswith(b"\n"):
                        raise
                    self.torn = True  # while it was written
                    break
                try:
                    self._take(row, number, begin, len(line))
                except ValueError as error:
                    raise EvalError(f"{path}, line {number}: {error}. Mend or remove the line.") from error
        if self.spec is None:
            raise EvalError(f"{path} has no spec; expected it in the first line. Copy the log again.")

    def _take(self, row: dict[str, Any], number: int, begin: int, length: int) -> None:
        if "spec" in row:
            if self.spec is not None:
                raise ValueError("another run begins here; give each a file of its own")
            self.spec = _checked(row["spec"])
        elif "final_report" in row:
            if not isinstance(row["final_report"], dict):
                raise ValueError(f"the final report is a {type(row['final_report']).__name__}, not an object")
            self.report = row["final_report"]
        else:
            id, (kind, data), when = _event(row)
            check([(kind, data)])
            self.end = max(self.end, when)
            if kind == "sampling" and isinstance(usage := data.get("usage"), dict):
                self.tokens += usage["total_tokens"] if isinstance(usage.get("total_tokens"), int) else 0
            if self.spec is not None and "foretell" in self.spec["run_config"] and id != self.last:
                self.seen[id] = self.seen.get(id, -1) + 1
            self.last = id
            whose = self.samples.setdefault((self.seen.get(id, 0), id), len(self.samples))
            for column, value in zip(
                (self.begin, self.length, self.number, self.whose), (begin, length, number, whose), strict=True
            ):
                column.append(value)

    def rows(self) -> Iterator[dict[str, Any]]:
        ordered = sorted(self.samples, key=lambda sample: (sample[0], natural(sample[1])))
        rank = np.empty(len(ordered), np.int64)
        rank[[self.samples[sample] for sample in ordered]] = np.arange(len(ordered))
        places = rank[np.array(self.whose, np.int64)] if ordered else rank
        by_sample = groupby(np.argsort(places, kind="stable").tolist(), key=lambda at: int(places[at]))
        with self.path.open("rb") as stream:
            for place, lines in by_sample:
                epoch, id = ordered[place]
                row: dict[str, Any] = {"place": place, "id": id, "epoch": epoch, "events": []}
                for at in lines:
                    stream.seek(self.begin[at])
                    raw = parse(stream.read(self.length[at]), self.path, self.number[at])
                    _, event, when = _event(raw)
                    row["events"].append(event)
                    row.setdefault("at", when)
                    if event[0] in ("match", "metrics") and isinstance(group := event[1].get("group"), str):
                        row["group"] = group
                yield row


def _upstream(path: Path) -> Brought:
    log = _Upstream(path)
    assert log.spec is not None
    last: dict[str, Any] = {"final_report": log.report or {}, "complete": log.report is not None}
    if log.report is None:
        torn = ", and its last line is half-written" if log.torn else ""
        last["note"] = f"The run was cut off: it has no final report{torn}. {len(log.samples)} samples are here."
    with suppress(ValueError, TypeError):  # a time is in no form of ours
        seconds = (utc(log.end) - utc(log.spec["created_at"])).total_seconds()
        last["cost"] = {"tokens": log.tokens or last["final_report"].get("usage_total_tokens"), "seconds": seconds}
    return Brought(log.spec, log.rows(), last)


def _checked(spec: Any) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise ValueError(f"the spec is a {type(spec).__name__}, not an object")
    for key in ("run_id", "eval_name"):
        if not isinstance(spec.get(key), str):
            raise ValueError(f"the spec's {key} is {str(spec.get(key))[:40]!r}, not a name")
    models = spec.get("completion_fns")
    if not isinstance(models, list) or not models:
        raise ValueError(f"the spec's completion_fns is {str(models)[:40]!r}, not a list of models")
    try:
        utc(spec.get("created_at", ""))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the spec's created_at is {str(spec.get('created_at'))[:40]!r}, not a time") from error
    return spec | {"run_config": spec["run_config"] if isinstance(spec.get("run_config"), dict) else {}}


def _event(row: Mapping[str, Any]) -> tuple[str, Recorded, str]:
    """Sample, event and time of a line."""
    type, data = row.get("type"), row.get("data", {})
    if not isinstance(type, str):
        raise ValueError("there is no type of event, nor a spec or final_report")
    if not isinstance(data, dict):
        if type in ("match", "metrics", "sampling"):
            raise ValueError(f"the data of the {type} event are {str(data)[:40]!r}, not an object")
        data = {"data": data}
    return sample_name(row.get("sample_id")), (type, data), str(row.get("created_at") or "")
