"""Finished logs of a folder as the viewer's pages need them: a summary of each run, and its samples in pieces."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from foretell.errors import EvalError
from foretell.evals.base import BAD_SAMPLE
from foretell.evals.log import PART, RunLog, read_log
from foretell.evals.results import Cost, cost_of, model_of, scores_of, utc, version_of
from foretell.evals.scores import Scores, Summary

PAGE = 100  # samples a piece of the list
_KEY = re.compile(r"[A-Za-z0-9]{1,40}\Z")
_SHORT = 160  # characters of a text in the list


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


_decode = json.JSONDecoder(parse_constant=str, parse_float=_float).decode


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run. key: names it in addresses. name: its log's place in the folder."""

    key: str
    name: str
    log: RunLog

    @property
    def eval(self) -> str:
        return str(self.log.spec.get("eval_name", ""))

    @property
    def model(self) -> str:
        names = self.log.spec.get("completion_fns")
        return model_of(self.log.spec) if names else ""

    @cached_property
    def version(self) -> str:
        """What the endpoint called the model; empty where that is the run's own name for it."""
        try:
            told = version_of(self.log)
        except EvalError:  # what is wrong with the log is told where its samples are asked for
            return ""
        return "" if told == self.model else told

    @cached_property
    def date(self) -> datetime | None:
        try:
            return utc(self.log.spec["created_at"])
        except (KeyError, TypeError, ValueError):
            return None

    @cached_property
    def cost(self) -> Cost:
        return cost_of(self.log)

    @property
    def invalid(self) -> int:
        return int(np.count_nonzero(self.log.invalid))

    @property
    def scores(self) -> Scores:
        return scores_of(self.log)

    @cached_property
    def summed(self) -> tuple[str, Summary | None]:
        """The name of the samples' scores, and their mean with its error bar; None where no sample has one."""
        if not np.isfinite(self.log.score).any():
            return "", None
        try:
            scores = self.scores
        except EvalError:
            return "", None
        return scores.metric, scores.summary()

    @property
    def summary(self) -> Summary | None:
        return self.summed[1]

    @property
    def has_choices(self) -> bool:
        return any(name.startswith("counts/") for name in self.log.report)

    @property
    def ids(self) -> list[str]:
        return [id.decode("utf-8", "surrogatepass") for id in self.log.id.tolist()]

    def choices(self) -> dict[str, Any]:
        """What a grader chose: the names, and of each sample the name's place, -1 where it chose nothing."""
        names: dict[str, int] = {}
        codes = []
        for raw in self.raw(0, len(self.log)):
            code = -1
            for line in raw.split(b"\n"):
                if b'"choice"' in line and b'"metrics"' in line:
                    data = _data(parse(line))
                    if "choice" in data:
                        code = names.setdefault(str(data["choice"]), len(names))
            codes.append(code)
        return {"names": list(names), "codes": codes}

    def samples(self, start: int, stop: int) -> list[list[dict[str, Any]]]:
        """The events of samples."""
        return [_events(raw) for raw in self.raw(start, stop)]

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """The lines of samples."""
        with self.log.path.open("rb") as stream:
            for begin, length in zip(self.log.begin[start:stop], self.log.length[start:stop], strict=True):
                stream.seek(int(begin))
                yield stream.read(int(length))

    def search(self, terms: Sequence[str], start: int, seconds: float) -> tuple[list[int], int]:
        """Samples from `start` on in whose texts all terms occur, whatever their case, and where to go on.

        Stops after about so many seconds, or at the end.
        """
        words = [term.lower() for term in terms]
        needles = [json.dumps(word, ensure_ascii=False)[1:-1] for word in words]
        end, hits, number = time.monotonic() + seconds, [], start
        for number, raw in enumerate(self.raw(start, len(self.log)), start):
            # A line that holds no needle cannot hold its word, unless the line has escapes.
            line = raw.decode("utf-8", "replace").lower()
            if all(needle in line for needle in needles) or "\\u" in line:
                told = "\n".join(text for event in _events(raw) for text in texts(event)).lower()
                if all(word in told for word in words):
                    hits.append(number)
            if number % 256 == 0 and time.monotonic() > end:
                return hits, number + 1
        return hits, len(self.log)


class Shelf:
    """The runs in a folder, or of one log, read again where a log has changed.

    problems: (place, why) of what was found and cannot be shown.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            raise EvalError(f"There is no {folder}. Give a log, or the folder that `foretell eval run` writes to.")
        self.folder = folder
        self.problems: list[tuple[str, str]] = []
        self._known: dict[Path, tuple[tuple[int, int], Run | str]] = {}
        self._lock = Lock()

    def runs(self) -> dict[str, Run]:
        """By key; the latest first."""
        with self._lock:
            self.problems = []
            found: list[Run] = []
            indices = (path.with_suffix("") for path in sorted(self.folder.rglob("*.npz")))
            for log in [self.folder] if self.folder.is_file() else filter(Path.is_file, indices):
                run = self._read(log)
                if isinstance(run, Run):
                    found.append(run)
                else:
                    self.problems.append((self._name(log), run))
            for path in sorted(self.folder.rglob("*" + PART)):
                self.problems.append((self._name(path), "not finished: it runs, or was cut off; run it again to go on"))
        found.sort(key=lambda run: (run.date or datetime.min.replace(tzinfo=UTC), run.name), reverse=True)
        return {run.key: run for run in found}

    def run(self, key: str) -> Run | None:
        """One run, without a look at the others where it is known and as it was."""
        for path, (state, run) in list(self._known.items()):
            if isinstance(run, Run) and run.key == key and path.is_file() and _state(path) == state:
                return run
        return self.runs().get(key)

    def _name(self, path: Path) -> str:
        return path.name if path == self.folder else path.relative_to(self.folder).as_posix()

    def _read(self, path: Path) -> Run | str:
        state = _state(path)
        known = self._known.get(path)
        if known is None or known[0] != state:
            try:
                log = read_log(path)
                if not isinstance(log.spec, Mapping) or not isinstance(log.report, Mapping):
                    raise EvalError("its first or last line has another form")
                run: Run | str = Run(self._key(path, log), self._name(path), log)
            except EvalError as error:
                run = str(error)
            known = self._known[path] = (state, run)
        return known[1]

    def _key(self, path: Path, log: RunLog) -> str:
        """The run's own id; where another log has the same one, or it is odd, a digest of the log's place."""
        id = str(log.spec.get("run_id", ""))
        taken = {run.key for place, (_, run) in self._known.items() if isinstance(run, Run) and place != path}
        return (
            id
            if _KEY.match(id) and id not in taken
            else "x" + hashlib.sha256(os.fsencode(self._name(path))).hexdigest()[:16]
        )


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def parse(line: bytes) -> dict[str, Any]:
    """A line of a log; what JSON has no number for becomes a word, which any reader of JSON takes."""
    found = _decode(line.decode("utf-8", "surrogatepass"))
    return found if isinstance(found, dict) else {}


def _events(raw: bytes) -> list[dict[str, Any]]:
    return [parse(line) for line in raw.split(b"\n") if line]


def texts(value: Any) -> Iterator[str]:
    """Every text within an event's data; embedded images are none."""
    stack = [value["sample_id"], value.get("data")] if isinstance(value, dict) and "sample_id" in value else [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if not item.startswith("data:image/"):
                yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def row(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the list shows of a sample: question, answer, expected; the beginnings of each."""
    calls = [_data(event) for event in events if event.get("type") == "sampling"]
    match = next((_data(event) for event in events if event.get("type") == "match"), {})
    answer = plain(calls[0].get("sampled")) if calls else plain(match.get("picked"))
    for event in events:
        if event.get("type") == BAD_SAMPLE:
            answer = answer or plain(_data(event).get("message"))
    question = calls[0].get("prompt") if calls else ""
    if isinstance(question, list) and question:
        question = question[-1].get("content") if isinstance(question[-1], dict) else question[-1]
    return [_last_lines(plain(question)), _short(answer), _short(plain(match.get("expected")))]


def plain(value: Any) -> str:
    """A value as text: parts of a message one after another, several texts with bars between them."""
    if isinstance(value, str) or value is None:
        return value or ""
    if isinstance(value, list):
        parts = value[:20]
        if parts and all(isinstance(part, dict) for part in parts):
            return " ".join(str(part["text"]) if "text" in part else f"[{part.get('type', '?')}]" for part in parts)
        return " | ".join(map(str, parts))
    return str(value)


def _short(text: str) -> str:
    """The beginning, on one line."""
    line = " ".join(text[: 2 * _SHORT].split())
    return line if len(line) <= _SHORT and len(text) <= 2 * _SHORT else line[:_SHORT] + "…"


def _last_lines(text: str) -> str:
    """Of a long prompt the last lines, since worked samples and passages stand before the question."""
    text = text.rstrip()
    if len(text) <= _SHORT:
        return _short(text)
    start = text.find("\n", len(text) - _SHORT)
    return "…" + _short(text[start + 1 :]) if start > 0 else "…" + " ".join(text[-_SHORT:].split())


def _data(event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = event.get("data")
    return data if isinstance(data, Mapping) else {}
