"""What a run left behind, read into plain data. What is missing or damaged is named, not raised."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import RunError
from foretell.run import MANIFEST, PARTIAL, RECIPE
from foretell.train.log import read_log

Json = dict[str, Any]
STAGES = (
    *("data", "tokenizer", "pack", "ladder", "forecast", "pretrain", "outcome", "examine"),
    *("lessons", "sft-pack", "sft", "reward-pack", "reward", "grader", "ppo", "outcomes", "exams", "page", "card"),
)
TELLING = ("page", "card")
"""Stages that tell of the others; what they took is no part of a run's cost."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it.

    stages: manifest by stage, finished ones first in the order they ran; state "partial" marks one that is not
    finished. train, evals: log records in the order of steps, the last one where a step was done twice.
    events: every other record. problems: damaged files, one sentence each.
    """

    folder: Path
    name: str
    recipe: Json
    recipe_text: str
    stages: dict[str, Json]
    train: list[Json]
    evals: list[Json]
    events: list[Json]
    examine: Json | None
    problems: list[str]

    def metrics(self, stage: str) -> Json:
        """A stage's metrics; empty where it has none."""
        return mapping(self.stages.get(stage, {}).get("metrics"))


def mapping(value: object) -> Json:
    """The value if it is an object with text keys, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def records(value: object) -> list[Json]:
    """The objects of a list; of an object of objects, its items with their key as `name`."""
    if isinstance(value, Mapping):
        return [{"name": str(key), **mapping(item)} for key, item in value.items() if isinstance(item, Mapping)]
    return [mapping(item) for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def num(record: Mapping[str, Any] | None, key: str) -> float | None:
    """The finite number at `key`; None where there is none."""
    value = (record or {}).get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def words(record: Mapping[str, Any] | None, key: str) -> str:
    """The text at `key`; empty where there is none."""
    value = (record or {}).get(key)
    return value if isinstance(value, str) else "" if value is None else str(value)


def read_run(run_dir: Path) -> RunRecord:
    """Read a run directory.

    Raises RunError when it does not exist or holds neither a recipe nor a stage.
    """
    if not run_dir.is_dir():
        raise RunError(f"There is no run at {run_dir}. Start one with: foretell run RECIPE.")
    problems: list[str] = []
    recipe_text, recipe = _read_recipe(run_dir / RECIPE, problems)
    stages = _read_stages(run_dir, problems)
    if not stages and not recipe_text:
        raise RunError(f"{run_dir} holds no run: neither {RECIPE} nor a stage with {MANIFEST}. Give a run directory.")
    train, evals, events = _sort(read_log(run_dir / "pretrain" / "log.jsonl"))
    examine = _read_json(run_dir / "examine" / "examine.json", problems)
    name = words(recipe, "name") or run_dir.resolve().name
    return RunRecord(run_dir, name, recipe, recipe_text, stages, train, evals, events, examine, problems)


def read_stage_log(run_dir: Path, stage: str) -> tuple[list[Json], list[Json], list[Json]]:
    """Train, eval and other records of any stage that trains; empty where it has no log."""
    path = run_dir / stage / "log.jsonl"
    return _sort(read_log(path)) if path.is_file() else ([], [], [])


def _sort(lines: list[Json]) -> tuple[list[Json], list[Json], list[Json]]:
    """Train records, eval records, other records."""
    by_step: dict[str, dict[float, Json]] = {"train": {}, "eval": {}}
    for line in lines:
        if line["event"] in by_step and (step := num(line, "step")) is not None:
            by_step[line["event"]][step] = line
    train, evals = ([found[step] for step in sorted(found)] for found in by_step.values())
    return train, evals, [line for line in lines if line["event"] not in by_step]


def _read_json(path: Path, problems: list[str]) -> Json | None:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problems.append(f"{path.parent.name}/{path.name} could not be read and is left out.")
        return None
    return value


def _read_recipe(path: Path, problems: list[str]) -> tuple[str, Json]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", {}
    try:
        return text, mapping(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, ValueError):
        problems.append(f"{path.name} is not valid YAML.")
        return text, {}


def _read_stages(run_dir: Path, problems: list[str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    folders = sorted(path for path in run_dir.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        manifest = _read_json(folder / MANIFEST, problems)
        if manifest is None:
            partial = _read_json(folder / PARTIAL, problems)
            manifest = None if partial is None else {**partial, "state": "partial"}
        if manifest is not None:
            found[folder.name] = manifest
    place = {name: i for i, name in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda item: (place.get(item[0], len(place)), words(item[1], "started"))))


def place_of(folder: Path) -> str:
    """The run's folder as a reader would type it; never a path that names someone's home."""
    try:
        shown = folder.resolve().relative_to(Path.cwd().resolve())
    except (ValueError, OSError):
        shown = Path("runs") / folder.resolve().name
    return shown.as_posix() if os.fspath(shown) != "." else "."
