"""What a finished run came to: its scores sample by sample, and the one row of numbers that stands for it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import EvalError
from foretell.evals.log import RunLog
from foretell.evals.scores import Scores, Summary, summarize
from foretell.files import finite, sha256_file

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Cost:
    """What a run took. money: in the currency of the prices that were given, as seconds None where nobody knows."""

    tokens: int | None = None
    money: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Result:
    """A run as one row.

    run: its id. eval_digest: of the eval's class and arguments, settings_digest: of seed, limit, epochs and what else
    was set, so that a change of either shows. model_version: as the endpoint called itself. product: a tag of the
    user's, such as a product or an integration. value: the mean of `metric` with its standard error and 95 %
    interval, None where no sample is valid; n, invalid: samples with and without a value. created: UTC.
    complete: False for one that was cut off. report: the final report of the log.
    """

    run: str
    eval: str
    eval_digest: str
    model: str
    model_version: str
    product: str
    metric: str
    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    invalid: int
    seed: int | None
    settings_digest: str
    tokens: int | None
    money: float | None
    seconds: float | None
    created: datetime
    log_path: str
    log_sha256: str
    complete: bool
    report: Mapping[str, Any]


def scores_of(log: RunLog, metric: str | None = None, reducer: str | None = None) -> Scores:
    """The scores of a run, epochs reduced as `Scores.reduced` says, by default as the run was told.

    metric: "accuracy" for whether a sample is right, or a name that its metrics events carry; by default the one that
    the log's index holds, which takes no look at the events.
    Raises EvalError for a metric that no sample has, and for a log that is not as its index says.
    """
    indexed, wanted = _indexed_metric(log), None
    if metric not in (None, indexed):
        wanted = [_value(events, str(metric)) for events in _events(log)]
        if not any(map(math.isfinite, wanted)):
            raise EvalError(f"No sample of {log.path} has the metric {metric!r}. Its scores are of {indexed!r}.")
    draws: dict[str, list[float | None]] = {}
    groups: dict[str, str] = {}
    for id, value, group in samples_of(log, wanted):
        draws.setdefault(id, []).append(value)
        if group is not None:
            groups[id] = group
    reducer = reducer or str(log.extra.get("reducer", "mean"))
    run, eval = _text(log.spec, "run_id"), _text(log.spec, "eval_name")
    return Scores.reduced(run, model_of(log.spec), eval, metric or indexed, draws, reducer, groups)


def samples_of(log: RunLog, values: Iterable[float] | None = None) -> Iterator[tuple[str, float | None, str | None]]:
    """Id, score and group of every sample and epoch, in the log's order. values: others than the index has."""
    names = [name.decode("utf-8", "surrogatepass") for name in log.groups.tolist()]
    scores = map(float, log.score) if values is None else values
    for id, value, invalid, group in zip(log.id, scores, log.invalid, log.group, strict=True):
        valid = math.isfinite(value) and not invalid
        yield id.decode("utf-8", "surrogatepass"), value if valid else None, names[group] if group >= 0 else None


def summary_of(log: RunLog, reducer: str | None = None) -> Summary:
    """The mean of a run's scores with its error bar; read off the index where there is one epoch."""
    if log.epoch.any():
        return scores_of(log, None, reducer).summary()
    valid = np.isfinite(log.score) & (log.invalid == 0)
    group = log.group[valid]
    alone = -1 - np.arange(len(group))  # a group of its own
    labels = np.where(group < 0, alone, group).tolist() if (group >= 0).any() else []
    shared = labels if len(set(labels)) < len(labels) else None
    return summarize(log.score[valid], shared, len(log) - len(group))


def model_of(spec: Mapping[str, Any]) -> str:
    """The model that a run measures: the first, since others grade."""
    names = spec.get("completion_fns")
    if not isinstance(names, Sequence) or not names:
        raise EvalError(f"The log's spec names no model (completion_fns is {names!r}). Bring it in again.")
    return names if isinstance(names, str) else str(names[0])


def weights_of(spec: Mapping[str, Any]) -> str:
    """SHA-256 of the weights of the model that a run measures; "" where they are not known, as of an endpoint."""
    config = spec.get("run_config")
    found = config.get("weights") if isinstance(config, Mapping) else None
    return str(found[0]) if isinstance(found, Sequence) and found and found[0] else ""


def result_of(
    log: RunLog,
    scores: Scores | None = None,
    *,
    model: str | None = None,
    model_version: str | None = None,
    product: str = "",
    cost: Cost | None = None,
) -> Result:
    """The row of a run. scores: others than its own. model, model_version, cost: other than the log says.

    Raises EvalError for a spec without what a row needs.
    """
    spec, summary = log.spec, summary_of(log) if scores is None else scores.summary()
    left = {
        k: v
        for k, v in log.config.items()
        if k not in ("eval_spec", "completion_fns", "command", "foretell", "weights")
    }
    seed = log.config.get("seed")
    cost = cost or cost_of(log)
    return Result(
        run=_text(spec, "run_id"),
        eval=_text(spec, "eval_name"),
        eval_digest=_digest({"class": log.eval_spec.get("cls"), "args": log.eval_spec.get("args")}),
        model=model or model_of(spec),
        model_version=version_of(log) if model_version is None else model_version,
        product=product,
        metric=_indexed_metric(log) if scores is None else scores.metric,
        value=finite(summary.estimate),
        stderr=finite(summary.stderr),
        low=finite(summary.interval.low) if summary.n else None,
        high=finite(summary.interval.high) if summary.n else None,
        n=summary.n,
        invalid=summary.invalid,
        seed=seed if isinstance(seed, int) and abs(seed) < 1 << 63 else None,
        settings_digest=_digest(left),
        tokens=cost.tokens,
        money=cost.money,
        seconds=cost.seconds,
        created=_time(spec.get("created_at"), log.path),
        log_path=str(log.path.absolute()),
        log_sha256=sha256_file(log.path),
        complete=log.extra.get("complete") is not False,
        report=log.report,
    )


def cost_of(log: RunLog) -> Cost:
    """What a log says of its cost: "cost" of its last line, else the tokens of its report, and the time to its end."""
    told = {"tokens": log.report.get("usage_total_tokens"), "seconds": _span(log)}
    if isinstance(cost := log.extra.get("cost"), Mapping):
        told |= cost
    tokens, money, seconds = (
        value if isinstance(value, int | float) and 0 <= value < 1 << 53 else None
        for value in (told.get(name) for name in ("tokens", "money", "seconds"))
    )
    return Cost(None if tokens is None else int(tokens), money, seconds)


def _span(log: RunLog) -> float | None:
    """Seconds to the last sample, which in the run's order is about the last in time."""
    if not len(log):
        return None
    try:
        end = _time(log.events(len(log) - 1)[-1]["created_at"], log.path)
        return max(0.0, (end - _time(log.spec.get("created_at"), log.path)).total_seconds())
    except (EvalError, ValueError, KeyError, TypeError, IndexError):
        return None


def _events(log: RunLog, most: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """The events of every sample, or of the first ones."""
    with log.path.open("rb") as stream:
        for begin, length in zip(log.begin[:most], log.length[:most], strict=True):
            stream.seek(int(begin))
            try:
                events = [json.loads(line) for line in stream.read(int(length)).splitlines()]
                if not all(isinstance(event["type"], str) and isinstance(event["data"], dict) for event in events):
                    raise ValueError("no event")
            except (ValueError, KeyError, TypeError) as error:
                raise EvalError(
                    f"{log.path} is not as its index says, at byte {begin} ({error!r}): it was changed afterwards. "
                    "Bring it in again with: foretell eval import"
                ) from error
            yield events


def _indexed_metric(log: RunLog) -> str:
    """What the index of a log holds of every sample."""
    if isinstance(named := log.extra.get("metric"), str):
        return named
    for events, score in zip(_events(log), log.score, strict=True):
        if math.isfinite(score):
            if any(event["type"] == "match" for event in events):
                break
            metrics = (event["data"].items() for event in events if event["type"] == "metrics")
            return next((str(k) for items in metrics for k, v in items if isinstance(v, int | float)), ACCURACY)
    return ACCURACY


def _value(events: Sequence[Mapping[str, Any]], metric: str) -> float:
    for event in events:
        if event["type"] == "match" and metric == ACCURACY:
            return float(event["data"].get("correct", False))
        if event["type"] == "metrics" and isinstance(value := event["data"].get(metric), int | float):
            return float(value)
    return math.nan


def version_of(log: RunLog) -> str:
    """What the model called itself in its first answer."""
    told = (event["data"].get("model") for events in _events(log, 100) for event in events)
    return next((name for name in told if isinstance(name, str)), "")


def _text(spec: Mapping[str, Any], key: str) -> str:
    if not isinstance(spec.get(key), str):
        raise EvalError(f"The log's spec has no {key} (it is {spec.get(key)!r}). Bring the log in again.")
    return str(spec[key])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def utc(text: str) -> datetime:
    """A time in ISO form; where it names no zone it is UTC. Raises ValueError and TypeError."""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _time(text: Any, path: Path) -> datetime:
    try:
        return utc(text).replace(tzinfo=None)
    except (TypeError, ValueError) as error:
        raise EvalError(f"{path} is of {text!r}; expected a time such as 2026-01-31 12:00:00 (UTC).") from error
