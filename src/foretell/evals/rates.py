"""The rates of a run whose eval grades replies in several ways: with intervals, by parts, and against another run.

A `Probe` records of every sample where it belongs (its task, and facets such as a category) and its grades by name.
From its log come rates, paired changes, and a summary in JSON, which names the run and the file of its samples.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from foretell.errors import EvalError
from foretell.evals.base import BAD_SAMPLE, Eval, Tally, Trial
from foretell.evals.classes import load_class
from foretell.evals.log import RunLog
from foretell.evals.registry import EvalSpec
from foretell.evals.results import model_of
from foretell.evals.samples import Sample
from foretell.evals.summaries import head, summary_path
from foretell.files import finite, write_json
from foretell.measure.rates import Change, Measure, Rate, change_of, rate_of

ABOUT = "about"  # type of the event that says where a sample belongs
_REASONS = 5  # that a summary tells of samples which could not be judged


class Probe(Eval):
    """An eval whose samples are graded in several ways. A subclass names its measures, the headline first.

    part: of a system card that it belongs to. facets: names of what its samples are told apart by; a measure is also
    told for each value of each. title: what it is called there. limits: measure → a limit of the card's table.
    """

    part: ClassVar[str] = "factuality"
    title: ClassVar[str] = ""
    measures: ClassVar[tuple[Measure, ...]] = ()
    facets: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def note(cls, args: Mapping[str, Any]) -> str:
        """What a reader of the rates has to know of how a run with these settings was judged."""
        return ""

    @classmethod
    def titled(cls, measure: Measure, args: Mapping[str, Any]) -> str:
        """What a measure of a run with these settings is called in its summary."""
        return measure.title

    def about(self, sample: Sample, trial: Trial) -> None:
        """Record where a sample belongs, before anything is asked: one that cannot be judged is known by it."""
        told = {name: sample[name] for name in self.facets if sample.get(name) is not None}
        trial.record(ABOUT, {"task": sample.get("task", ""), "group": sample.get("group"), "facets": told})

    def graded(self, trial: Trial, **grades: float | bool | None) -> None:
        """Record the grades of a reply by name; None for one that is not asked of it."""
        trial.metrics(**{name: None if value is None else float(value) for name, value in grades.items()})

    def report(self, tally: Tally) -> dict[str, Any]:
        return {name: tally.mean(name) for name in tally.metrics if not math.isnan(tally.mean(name))}


@dataclass(frozen=True)
class Graded:
    """A sample of a run. group: shared by samples that are not independent. reason: why it could not be judged."""

    id: str
    group: str
    task: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    grades: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def graded_of(log: RunLog) -> list[Graded]:
    """Every sample of a run and epoch, in the log's order."""
    return [_graded(log.events(number)) for number in range(len(log))]


def probe_of(log: RunLog) -> type[Probe]:
    """The class of a run's eval. Raises EvalError where that has no rates."""
    cls = str(log.eval_spec.get("cls", ""))
    found = load_class(EvalSpec(str(log.spec.get("eval_name")), cls, {}, Path())) if ":" in cls else Eval
    if not issubclass(found, Probe):
        raise EvalError(
            f"{log.path} is a run of {log.spec.get('eval_name')}, which has one score and no rates. See it with: "
            "foretell eval view"
        )
    return found


def rates_of(log: RunLog) -> list[Rate]:
    """Every measure of a run with its parts. A part without a sample that could be judged has n 0."""
    probe, samples = probe_of(log), graded_of(log)
    return [_rate(measure, some) for measure, some in _measured(probe, samples)]


def changes_of(before: RunLog, after: RunLog) -> list[Change]:
    """Every measure over the samples that both runs judged, paired by sample; epochs of one are taken together.

    Raises EvalError for runs of different evals, or without a sample in common.
    """
    if (first := before.spec.get("eval_name")) != (second := after.spec.get("eval_name")):
        raise EvalError(f"{before.path} is a run of {first}, {after.path} of {second}. Give two runs of one eval.")
    if _settings(before) != _settings(after):
        raise EvalError(
            f"{before.path} and {after.path} are runs with different settings of the eval or another seed, so that "
            "their samples are not the same. Run both alike."
        )
    known = {sample.id: sample for sample in _by_id(graded_of(before))}
    pairs = [(known[sample.id], sample) for sample in _by_id(graded_of(after)) if sample.id in known]
    if not pairs:
        raise EvalError(f"{before.path} and {after.path} have no sample in common. Run both with the same settings.")
    partner = {now.id: then for then, now in pairs}
    found = []
    for measure, some in _measured(probe_of(after), [now for _, now in pairs]):
        both = [(partner[now.id], now) for now in some]
        held = [(a, b) for a, b in both if measure.grade in a.grades and measure.grade in b.grades]
        if held:
            x, y = ([pair[side].grades[measure.grade] for pair in held] for side in (0, 1))
            found.append(change_of(measure, x, y, [b.group for _, b in held]))
    return found


def summary_of_rates(log: RunLog, before: RunLog | None = None) -> dict[str, Any]:
    """What a system card reads: `summaries.head` and {part, title, asked, invalid, reasons, rows}.

    A row is a measure, or (by its arm) a part of one: {measure, title, form, estimate, low, high, n, groups, better};
    estimate and ends are None where they are no number. With the run of another model before, rows also have {before,
    difference}, each {estimate, low, high}, and paired, the number of samples that both judged. limit: of a card's
    table of limits that a row belongs to, where its probe says so.
    """
    probe, samples = probe_of(log), graded_of(log)
    reasons = Counter(sample.reason for sample in samples if sample.reason)
    value = head(log) | {
        "part": probe.part, "title": probe.title or str(log.spec.get("eval_name")), "asked": len(samples),
        "invalid": sum(reasons.values()), "reasons": dict(reasons.most_common(_REASONS)),
    }  # fmt: skip
    rows = [_row(_rate(measure, some), measure, probe, log.args) for measure, some in _measured(probe, samples)]
    if note := probe.note(log.args):
        value["note"] = note
    if before is not None:
        value |= {
            "against": {"model": model_of(before.spec), "run": before.spec.get("run_id"), "log": str(before.path)}
        }
        changes = f"Changes are from {model_of(before.spec)}, paired by sample."
        value["note"] = f"{note} {changes}" if note else changes
        by_name = {change.measure.name: change for change in changes_of(before, log)}
        for row in rows:
            if (change := by_name.get(row["measure"])) is not None:
                told = {"before": change.before, "difference": change.difference}
                row |= {name: finite(asdict(i)) for name, i in told.items()} | {"paired": change.n}
    return value | {"rows": rows}


def write_rates(log: RunLog, before: RunLog | None = None, out: Path | None = None) -> Path:
    """Write `summary_of_rates` beside the log, or where it is told."""
    path = out or summary_path(log.path)
    write_json(path, summary_of_rates(log, before))
    return path


def _settings(log: RunLog) -> Any:
    return json.dumps([dict(log.args), log.config.get("seed")], sort_keys=True, default=str)


def _graded(events: Sequence[Mapping[str, Any]]) -> Graded:
    id = str(events[0].get("sample_id", "")) if events else ""
    found = Graded(id, id)
    for event in events:
        data = event["data"]
        if event["type"] == ABOUT:
            facets = {str(k): str(v) for k, v in data.get("facets", {}).items()}
            found = replace(found, task=str(data.get("task", "")), group=str(data.get("group") or id), facets=facets)
        elif event["type"] == "metrics":
            told = {k: float(v) for k, v in data.items() if isinstance(v, int | float) and math.isfinite(v)}
            found = replace(found, grades={**found.grades, **told})
        elif event["type"] == BAD_SAMPLE:
            found = replace(found, reason=str(data.get("message") or "could not be judged"))
    return replace(found, grades={}) if found.reason else found


def _by_id(samples: Sequence[Graded]) -> Iterator[Graded]:
    """A sample for each id: the mean grades of its epochs."""
    together: dict[str, list[Graded]] = {}
    for sample in samples:
        if not sample.reason:
            together.setdefault(sample.id, []).append(sample)
    for epochs in together.values():
        names = {name for sample in epochs for name in sample.grades}
        values = {name: [s.grades[name] for s in epochs if name in s.grades] for name in names}
        yield replace(epochs[0], grades={name: math.fsum(v) / len(v) for name, v in values.items()})


def _measured(probe: type[Probe], samples: Sequence[Graded]) -> Iterator[tuple[Measure, list[Graded]]]:
    """Each measure with its samples, then for each value of each facet those of it."""
    for measure in probe.measures:
        own = [sample for sample in samples if measure.counts(sample.task)]
        if not own:
            continue
        yield measure, own
        for facet in probe.facets:
            values = list(dict.fromkeys(sample.facets[facet] for sample in own if facet in sample.facets))
            for value in sorted(values, key=_natural) if len(values) > 1 else ():
                some = [sample for sample in own if sample.facets.get(facet) == value]
                if any(measure.grade in sample.grades or sample.reason for sample in some):
                    yield replace(measure, name=f"{measure.name}/{value}", title=f"– {value}", detail=True), some


def _natural(value: str) -> str:
    """Names in the order of the numbers in them."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), value)


def _rate(measure: Measure, samples: Sequence[Graded]) -> Rate:
    held = [sample for sample in samples if measure.grade in sample.grades]
    return rate_of(measure, [sample.grades[measure.grade] for sample in held], [sample.group for sample in held])


def _row(rate: Rate, measure: Measure, probe: type[Probe], args: Mapping[str, Any]) -> dict[str, Any]:
    whole = measure.name.partition("/")[0]
    title = probe.titled(next(m for m in probe.measures if m.name == whole), args)
    row: dict[str, Any] = {"measure": measure.name, "title": title}
    if measure.detail:
        row["arm"] = measure.title.removeprefix("– ")
    shares = measure.share or (rate.value.low >= 0 and rate.value.high <= 1 and measure.better != "zero")
    row |= {"form": "share" if shares else "number"} | finite(asdict(rate.value))
    row |= {"n": rate.n, "groups": rate.keys, "better": measure.better}
    return row | ({"limit": probe.limits[measure.name]} if measure.name in probe.limits else {})
