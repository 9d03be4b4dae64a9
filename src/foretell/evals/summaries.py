"""What a run came to in a form that other tools read: `foretell.summary`, a JSON file beside the log.

An eval says what stands in it by its `details`. The file holds form, part (of a system card), title, note, model,
weights, run, eval, samples (the log's name) and rows of title, arm, estimate, low, high, n and form, and what else the
eval tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.log import RunLog
from foretell.evals.results import model_of, weights_of
from foretell.files import finite, write_json

FORM = "foretell.summary"
KEY = "summary"  # of the log's last line


def summary_path(log: Path) -> Path:
    return log.with_suffix(".summary.json")


def write_summary(log: RunLog) -> Path | None:
    """Write a run's summary; None where its eval tells none."""
    told = log.extra.get(KEY)
    if not isinstance(told, Mapping):
        return None
    path = summary_path(log.path)
    write_json(path, {**head(log), **told})
    return path


def head(log: RunLog) -> dict[str, Any]:
    """What every summary of a run begins with."""
    spec = log.spec
    told = {"form": FORM, "model": model_of(spec), "weights": weights_of(spec), "run": spec.get("run_id")}
    return told | {"eval": spec.get("eval_name"), "created": spec.get("created_at"), "samples": log.path.name}


def read_summary(path: Path) -> dict[str, Any]:
    """A summary. Raises EvalError for another file."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{path} is not JSON ({error}). Run the eval again.") from error
    if not isinstance(found, dict) or found.get("form") != FORM or not isinstance(found.get("rows"), list):
        raise EvalError(f"{path} is no summary of a run; expected form {FORM} and rows. Give a *.summary.json.")
    return dict(found)


def find_summaries(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of files and folders, oldest first. Raises EvalError where there is none, or one is damaged."""
    found: list[Path] = []
    for path in paths:
        here = sorted(path.rglob("*.summary.json")) if path.is_dir() else [path]
        if not here:
            raise EvalError(
                f"{path} holds no *.summary.json. Run an eval that writes one: foretell eval run MODEL nlvr"
            )
        found += here
    return sorted((read_summary(path) for path in dict.fromkeys(found)), key=lambda one: str(one.get("created")))


def row(
    title: str, interval: Sequence[float | None], n: int, *, arm: str | None = None, form: str = "share"
) -> dict[str, Any]:
    """A row: interval is (estimate, low, high). form: share, points (a difference of shares), number or count."""
    estimate, low, high = finite(list(interval))
    return {"title": title, "arm": arm, "estimate": estimate, "low": low, "high": high, "n": n, "form": form}
