"""The run directory: stages with manifests, so that what is done is skipped and what was cut off is resumed.

A stage's key is the digest of its configuration, of what it reads from outside, and of the output hashes of
the stages before it. The code's version is recorded but not part of the key.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from foretell.errors import AlarmError, ForetellError, RunError
from foretell.files import describe_os_error, digest, sha256_file, write_json, write_text
from foretell.locks import LOCK, in_use, lock

MANIFEST = "manifest.json"
PARTIAL = "partial.json"
RECIPE = "recipe.yaml"
# Where the time and place of a run are written; two equal builds differ there, so a hash must not see them.
_UNHASHED = frozenset({MANIFEST, PARTIAL, "log.jsonl"})

State = Literal["done", "stale", "partial", "missing"]


class Report(Protocol):
    """Told how far a piece of work is. A total of 0 announces what must not be missed: `note`, named `task`."""

    def __call__(self, task: str, done: float, total: float | None = None, note: str = "") -> None: ...


def silent(task: str, done: float, total: float | None = None, note: str = "") -> None:
    """A Report that draws nothing."""


Build = Callable[[Mapping[str, Path], Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    config: the part of the recipe it uses, as JSON data: it alone decides a rebuild. build(inputs, out_dir):
    writes into out_dir, which holds what an interrupted build of the same key left there, and returns metrics.
    inputs: earlier stages whose folders it reads. outside: fingerprint of what is read from outside the run.
    scratch: a folder in out_dir that only serves resuming and is no part of the output.
    """

    name: str
    config: Mapping[str, Any]
    build: Build
    inputs: tuple[str, ...] = ()
    outside: Callable[[], Any] | None = None
    scratch: str = ""


@dataclass(frozen=True)
class StageStatus:
    """seconds: spent building, over all attempts. size: bytes of output. why: the reason for the state. ended: what the
    last attempt at a stage that is not finished said as it ended; empty while it runs, or where it was killed."""

    name: str
    state: State
    why: str
    inputs: tuple[str, ...] = ()
    started: str | None = None
    finished: str | None = None
    seconds: float = 0.0
    size: int = 0
    key: str = ""
    output: str = ""
    code: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ended: str = ""


def run_stages(
    run_dir: Path,
    stages: Sequence[Stage],
    *,
    recipe_text: str,
    name: str,
    seed: int,
    until: str | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Bring every stage up to date, in order, up to and including `until`; returns manifests by stage.

    Raises RunError when the directory belongs to another recipe or process, cannot be written, or the disk is full.
    """
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        raise RunError(f"There is no stage {until!r}; the stages are {', '.join(names)}.")
    _claim(run_dir, name)
    done: dict[str, dict[str, Any]] = {}
    with lock(run_dir):
        write_text(run_dir / RECIPE, recipe_text)
        for stage in stages:
            done[stage.name] = _bring_up(run_dir, stage, {n: done[n]["output"] for n in stage.inputs}, seed, report)
            if stage.name == until:
                break
    return done


def status(run_dir: Path, stages: Sequence[Stage]) -> list[StageStatus]:
    """The state of every stage, from the manifests alone; nothing is changed."""
    if not (run_dir / RECIPE).is_file():
        raise RunError(f"{run_dir} is not a run directory: it has no {RECIPE}. Start one with: foretell run RECIPE.")
    found: dict[str, StageStatus] = {}
    for stage in stages:
        found[stage.name] = _status(run_dir, stage, found)
    return list(found.values())


def written(run_dir: Path) -> list[StageStatus]:
    """The stages of a run as its folders tell them, in the order they were begun; what changed since is not told."""
    found = [_written(folder, (read_manifest(folder) or {}).get("inputs", ())) for folder in run_dir.iterdir()]
    return sorted((stage for stage in found if stage.started), key=lambda stage: stage.started or "")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A stage's manifest, or None where the stage is not finished or the file is damaged."""
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"key", "output", "files"} <= value.keys() else None


def code_version() -> str:
    """The git commit of the source tree, marked when changed since, or the installed package's version."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        try:
            described = ("git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= (changed)")
            done = subprocess.run(described, cwd=root, capture_output=True, text=True, check=True, timeout=10)
            return f"git {done.stdout.strip()}"
        except (OSError, subprocess.SubprocessError):
            pass
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"foretell {version('foretell')}"
    except PackageNotFoundError:
        return "unknown"


def place() -> tuple[int, int]:
    """(rank, world): which of the processes that torchrun started this is, and of how many; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _claim(run_dir: Path, name: str) -> None:
    """Create the directory, or check that it is a run of this recipe."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in run_dir.iterdir() if entry.name != LOCK]
    except OSError as error:
        raise RunError(describe_os_error(error, run_dir)) from error
    if not os.access(run_dir, os.W_OK | os.X_OK):
        raise RunError(f"No permission to write in {run_dir}. Choose another folder with --out.")
    if not entries:
        return
    if not (run_dir / RECIPE).is_file():
        raise RunError(f"{run_dir} is not empty and holds no run. Choose an empty or new folder with --out.")
    text = (run_dir / RECIPE).read_text(encoding="utf-8", errors="replace")
    first = [line for line in text.splitlines() if line.startswith("name:")]
    held = first[0].removeprefix("name:").strip().strip("'\"") if first else "?"
    if held != name:
        raise RunError(f"{run_dir} holds a run of recipe {held!r}, not {name!r}. Choose another folder with --out.")


def stage_key(stage: Stage, input_hashes: Mapping[str, str]) -> str:
    """Hex SHA-256 of everything that decides what the stage would write."""
    outside = stage.outside() if stage.outside else None
    return digest({"stage": stage.name, "config": stage.config, "inputs": dict(input_hashes), "outside": outside})


def _bring_up(
    run_dir: Path, stage: Stage, input_hashes: Mapping[str, str], seed: int, report: Report
) -> dict[str, Any]:
    folder, key = run_dir / stage.name, stage_key(stage, input_hashes)
    manifest = read_manifest(folder)
    if manifest and manifest["key"] == key and not _damaged(folder, manifest):
        report(stage.name, 1, 1, "done before")
        return manifest
    try:
        earlier = _enter(folder, key)
        started, clock = _utc(), time.perf_counter()
        try:
            metrics = dict(stage.build({name: run_dir / name for name in stage.inputs}, folder))
        except BaseException as error:
            earlier["ended"] = [_manner(error), str(error)]
            raise
        finally:
            spent = earlier["seconds"] + time.perf_counter() - clock
            if (folder / PARTIAL).exists():
                with suppress(RunError):  # the time spent must not hide what ended the stage
                    write_json(folder / PARTIAL, {**earlier, "seconds": spent})
        files = _list(folder, stage.scratch)
        manifest = {
            "stage": stage.name,
            "key": key,
            "config": dict(stage.config),
            "config_hash": digest(dict(stage.config)),
            "inputs": dict(input_hashes),
            "code": code_version(),
            "seed": seed,
            "started": earlier["started"] or started,
            "finished": _utc(),
            "seconds": round(spent, 3),
            "size": sum(file["size"] for file in files),
            "metrics": metrics,
            "output": digest([[f["path"], f["sha256"]] for f in files if Path(f["path"]).name not in _UNHASHED]),
            "files": files,
        }
        write_json(folder / MANIFEST, manifest)
        (folder / PARTIAL).unlink(missing_ok=True)
    except OSError as error:
        named = str(error.filename or "")  # removing a tree names what lies in a folder without the folder
        raise RunError(describe_os_error(error, Path(named if named.startswith(str(folder)) else folder))) from error
    report(stage.name, 1, 1, f"{spent:.0f} s")
    return manifest


def _enter(folder: Path, key: str) -> dict[str, Any]:
    """Make the stage's folder ready: keep what a build of the same key left, if it was cut off or some of its output is
    damaged; remove anything else."""
    partial, manifest = _partial(folder), read_manifest(folder)
    if not partial and manifest and manifest["key"] == key:
        for name in _damaged(folder, manifest):
            (folder / name).unlink(missing_ok=True)
        partial = {"key": key, "started": manifest["started"], "seconds": manifest["seconds"]}
        write_json(folder / PARTIAL, partial)
        (folder / MANIFEST).unlink()
    if partial.get("key") == key:
        for path in list(folder.rglob(".*")):  # what `files` was writing when the process was killed
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if partial.pop("ended", None):
            write_json(folder / PARTIAL, partial)
        return partial
    # The manifest goes first, so that a removal cut short can never look like a finished stage.
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    fresh = {"key": key, "started": _utc(), "seconds": 0.0}
    write_json(folder / PARTIAL, fresh)
    return fresh


def _manner(error: BaseException) -> str:
    """How a stage ended, in a word or two."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    return "ended by an alarm" if isinstance(error, AlarmError) else "failed"


def _partial(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / PARTIAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and {"key", "started", "seconds"} <= value.keys() else {}


def _list(folder: Path, scratch: str) -> list[dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PARTIAL)
    return [
        {"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in paths
        if path != folder / MANIFEST and not (scratch and path.is_relative_to(folder / scratch))
    ]


def _damaged(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with each file that is missing or of another size than the manifest says."""
    found = {}
    for file in manifest["files"]:
        try:
            size = (folder / file["path"]).stat().st_size
        except OSError:
            found[file["path"]] = "is missing"
        else:
            if size != file["size"]:
                found[file["path"]] = f"has {size} bytes, not {file['size']}"
    return found


def _size(folder: Path) -> int:
    """Bytes below a folder in which another process may be writing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118
    return total


def _written(folder: Path, inputs: Iterable[str]) -> StageStatus:
    """A stage as its folder tells it: stale only where its output is damaged."""
    manifest, partial, named = read_manifest(folder), _partial(folder), tuple(inputs)
    if manifest is not None:
        why = "; ".join(f"{name} {what}" for name, what in islice(_damaged(folder, manifest).items(), 1))
        known = ("started", "finished", "seconds", "size", "key", "output", "code", "metrics")
        told = {name: manifest[name] for name in known if name in manifest}
        return StageStatus(folder.name, "stale" if why else "done", why, named, **told)
    if partial:
        manner, said = partial.get("ended") or ("cut off", "")
        running = "ended" not in partial and in_use(folder.parent)
        why = "running" if running else f"{manner}; the same command resumes it"
        since, spent = partial["started"], partial["seconds"]
        return StageStatus(folder.name, "partial", why, named, since, None, spent, _size(folder), ended=said)
    return StageStatus(folder.name, "missing", "not built yet", named)


def _status(run_dir: Path, stage: Stage, earlier: Mapping[str, StageStatus]) -> StageStatus:
    found = _written(run_dir / stage.name, stage.inputs)
    if found.state in ("partial", "missing"):
        return found
    why = found.why
    waiting = [name for name in stage.inputs if earlier[name].state != "done"]
    if waiting:
        why = f"{waiting[0]} is {earlier[waiting[0]].state}"
    elif not why:
        try:
            key = stage_key(stage, {name: earlier[name].output for name in stage.inputs})
            why = "" if key == found.key else "its configuration or inputs changed"
        except ForetellError as error:  # such as material that is gone: the output is there all the same
            why = str(error)
    return replace(found, state="stale" if why else "done", why=why)


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
