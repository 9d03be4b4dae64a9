"""What the viewer's pages ask for, piece by piece, as plain JSON: alike from the local server and in an export."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from foretell.errors import EvalError
from foretell.evals.compare import compare
from foretell.evals.viewer.html import eval_page_name
from foretell.evals.viewer.runs import PAGE, Run, row
from foretell.files import finite

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,14})\Z")


def run_list(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The runs that may be chosen for a comparison."""
    return [
        {"key": run.key, "eval": run.eval, "model": run.model, "date": run.date.isoformat() if run.date else None}
        for run in runs
    ]


def head(run: Run) -> dict[str, Any]:
    """All of a run but its samples' texts: a number or two a sample."""
    epochs = run.log.epoch.tolist()
    score = np.round(run.log.score, 6)
    found = run.summary
    whole = np.where(np.isfinite(score), score, 0)
    numbers: list[float | None] = [int(v) if v == int(v) else v for v in whole.tolist()]
    for at in np.flatnonzero(~np.isfinite(score)).tolist():
        numbers[at] = None
    told = {
        **run_list([run])[0],
        "version": run.version,
        "name": run.name,
        "history": eval_page_name(run.eval),
        "others": [str(name) for name in _others(run)],
        "complete": run.log.extra.get("complete") is not False,
        "seconds": run.cost.seconds,
        "tokens": run.cost.tokens,
        "money": run.cost.money,
        "epochs": epochs if len(set(epochs)) > 1 else None,
        "graded": run.has_choices,
        "page": PAGE,
        "count": len(run.log),
        "mean": None,
        "metric": run.summed[0],
        "report": finite(run.log.report),
        "spec": finite(run.log.spec),
        "scores": numbers,
        "invalid": np.flatnonzero(run.log.invalid).tolist(),
        "ids": _packed(run.ids),
    }
    if found:
        low, high = finite([found.interval.low, found.interval.high])
        told["mean"] = {"estimate": found.estimate, "low": low, "high": high, "n": found.n, "method": found.method}
    return told


def rows(run: Run, page: int) -> list[list[str]]:
    """A piece of the list."""
    return [row(events) for events in run.samples(page * PAGE, min((page + 1) * PAGE, len(run.log)))]


def events(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A sample's events without what every line of a log repeats."""
    return [{name: event.get(name) for name in ("type", "data", "created_at")} for event in found]


@lru_cache(maxsize=64)
def difference(first: Run, second: Run) -> dict[str, Any]:
    """What the second of two runs scores beyond the first, on the samples of both; or why it cannot be told."""
    try:
        found = compare(second.scores, first.scores)
    except EvalError as error:
        return {"problem": str(error)}
    d = found.difference
    told = {"estimate": d.estimate, "low": d.low, "high": d.high, "p": found.p, "method": found.method}
    return {name: finite(value) for name, value in told.items()} | {"n": found.n}


def _others(run: Run) -> Sequence[Any]:
    """Models beside the one that is measured."""
    names = run.log.spec.get("completion_fns")
    return names[1:] if isinstance(names, list) else []


def _packed(ids: Sequence[str]) -> dict[str, Any]:
    """Ids that differ only in the number at their end are told once, and their numbers."""
    prefix = ids[0].rstrip("0123456789") if ids else ""
    ends = [id[len(prefix) :] for id in ids if id.startswith(prefix)]
    if ids and len(ends) == len(ids) and all(_NUMBER.match(end) for end in ends):
        return {"prefix": prefix, "numbers": list(map(int, ends))}
    return {"list": list(ids)}
