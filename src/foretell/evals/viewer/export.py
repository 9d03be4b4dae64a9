"""The viewer as files: one folder that any web server serves, and that opens without one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.local import encode
from foretell.evals.viewer import html, pieces
from foretell.evals.viewer.runs import PAGE, Run, Shelf, row
from foretell.evals.viewer.server import PACKAGE
from foretell.files import atomic_folder
from foretell.pages.documents import static_files
from foretell.run import Report, silent

_CHUNK = 256_000  # bytes of samples a file
_MOST_PAIRS = 400  # comparisons that are worked out
_MARK = "foretell-viewer"
_IMPORT = re.compile(r'^import \{ (.+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_PICTURE = re.compile(rb'(?<!\\)"data:image/(png|jpeg|webp|gif);base64,([A-Za-z0-9+/]{200,}={0,2})"')


def export(logs: Path, out: Path, report: Report = silent) -> None:
    """Write pages and data of all runs under `logs` into the folder `out`, in place of an earlier export.

    Raises EvalError for a folder without runs, or an `out` that holds anything else; RunError where it cannot be
    written.
    """
    shelf = Shelf(logs)
    runs = shelf.runs()
    if not runs:
        why = f" Found {shelf.problems[0][0]}: {shelf.problems[0][1]}" if shelf.problems else ""
        raise EvalError(f"There is no finished run in {logs}.{why} Run one with: foretell eval run")
    if out.exists() and not (out / _MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise EvalError(f"{out} holds something else than an export. Choose a new folder.")
    if out.resolve() in logs.resolve().parents:
        raise EvalError(f"{logs} lies in {out}, which is written anew as a whole. Choose another folder.")
    with atomic_folder(out) as folder:
        (folder / _MARK).touch()
        _pages(folder, list(runs.values()), shelf.problems)
        total = sum(len(run.log) for run in runs.values())
        done = 0
        for run in runs.values():
            try:
                for written in _samples(folder, run):
                    report("export", done + written, total, run.name)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise EvalError(
                    f"{run.log.path} is not as its index says ({error!r}): it was changed afterwards. Bring it in "
                    "again with: foretell eval import"
                ) from error
            done += len(run.log)
        _data(folder, "runs", pieces.run_list(runs.values()))
        pairs = [(a, b) for a, b in combinations(runs.values(), 2) if a.eval == b.eval]
        for newer, older in pairs[:_MOST_PAIRS]:
            for first, second in ((older, newer), (newer, older)):
                _data(folder, f"compare-{first.key}-{second.key}", pieces.difference(first, second))


def bundle(files: dict[str, bytes]) -> str:
    """The modules as one script, since a page that is opened from a file may load no modules.

    Each becomes a function of its own; what it imports are variables, what it exports is kept by its name.
    """
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        source = files[name + ".js"].decode()
        for _, other in _IMPORT.findall(source):
            add(other)
        names = ", ".join(_EXPORT.findall(source))
        source = _IMPORT.sub(lambda m: f"const {{ {m[1].replace(' as ', ': ')} }} = modules.{m[2]};", source)
        source = _EXPORT.sub("", source)
        done[name] = f"modules.{name} = (() => {{\n{source}\nreturn {{ {names} }};\n}})();\n"

    add("main")
    return '"use strict";\n(() => {\nconst modules = {};\n' + "".join(done.values()) + "})();\n"


def _pages(folder: Path, runs: list[Run], problems: list[tuple[str, str]]) -> None:
    files = static_files(PACKAGE)
    texts = {"viewer.js": bundle(files).encode()} | {n: f for n, f in files.items() if n.endswith(".css")}
    texts["index.html"] = html.runs_page(runs, problems, live=False).encode()
    texts["view.html"] = html.view_page(live=False).encode()
    for eval in dict.fromkeys(run.eval for run in runs):
        of = [run for run in runs if run.eval == eval]
        texts[html.eval_page_name(eval)] = html.eval_page(of, live=False).encode()
    for name, text in texts.items():
        (folder / name).write_bytes(text)


def _samples(folder: Path, run: Run) -> Iterator[int]:
    """A run's data; yields how many samples are written."""
    starts: list[int] = []
    rows: list[list[str]] = []
    chunk: list[bytes] = []
    total, size = len(run.log), 0
    for number in range(total):
        events = run.samples(number, number + 1)[0]
        rows.append(row(events))
        chunk.append(_pictures(folder, encode(pieces.events(events))))
        size += len(chunk[-1])
        last = number == total - 1
        if len(rows) == PAGE or last:
            _data(folder, f"{run.key}/rows-{number // PAGE}", rows)
            rows = []
            yield number + 1
        if size > _CHUNK or len(chunk) == PAGE or last:
            _write(folder, f"{run.key}/samples-{len(starts)}", b"[" + b",".join(chunk) + b"]")
            starts.append(number + 1 - len(chunk))
            chunk, size = [], 0
    _data(folder, f"{run.key}/head", pieces.head(run) | {"starts": starts})
    if run.has_choices:
        _data(folder, f"{run.key}/choices", run.choices())


def _pictures(folder: Path, text: bytes) -> bytes:
    """With embedded pictures as files of their own, once each."""

    def put(match: re.Match[bytes]) -> bytes:
        try:
            data = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            return match[0]
        name = f"images/{hashlib.sha256(data).hexdigest()[:32]}.{match[1].decode()}"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
        return b'"' + name.encode() + b'"'

    return _PICTURE.sub(put, text)


def _data(folder: Path, name: str, value: Any) -> None:
    _write(folder, name, encode(value))


def _write(folder: Path, name: str, text: bytes) -> None:
    """JSON as a script that hands it over as a text, so that nothing in it can be taken for more."""
    path = folder / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    quoted = text.replace(b"\\", b"\\\\").replace(b"'", b"\\'")
    path.write_bytes(b"foretell(" + json.dumps(name).encode() + b",'" + quoted + b"');\n")
