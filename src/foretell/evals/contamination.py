"""Scores with and without what stood in the training corpus, as the GPT-4 report tells them (appendices C and D).

The report discards contaminated items and runs the rest again. Scores here are kept sample by sample, so that the
score of the clean part is read off the same run: the same questions, the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any, Literal

from foretell.errors import EvalError
from foretell.evals.items import Items
from foretell.evals.log import RunLog
from foretell.evals.results import scores_of
from foretell.evals.scores import Scores, Summary
from foretell.measure.overlap import LENGTH, Flag
from foretell.measure.stats import Interval, independent_difference, independent_ratio

Kind = Literal["exam", "benchmark"]


@dataclass(frozen=True)
class Part:
    """The score of some of an eval's samples. value: the mean, None where none of them could be judged."""

    n: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Exposure:
    """How much of an eval stood in the corpus, and what that did to the score of a model.

    flags: of every item. note: of the items' origin. whole, clean, contaminated: the scores of all samples and of
    either part; None without a run. delta: clean − whole. degradation: clean / whole − 1, as the report has it; both
    with 95 % intervals, None where a part is empty (or, of the second, the whole score not above 0). reported: the
    lower of whole and clean (the higher where less is better).
    """

    eval: str
    kind: Kind
    flags: tuple[Flag, ...]
    note: str = ""
    model: str = ""
    metric: str = ""
    run: str = ""
    log: str = ""
    whole: Part | None = None
    clean: Part | None = None
    contaminated: Part | None = None
    delta: Interval | None = None
    degradation: Interval | None = None
    reported: float | None = None

    @property
    def flagged(self) -> int:
        return sum(flag.contaminated for flag in self.flags)

    @property
    def share(self) -> float:
        """Of the items, those that are contaminated."""
        return self.flagged / len(self.flags)

    @property
    def short(self) -> int:
        """Of the contaminated items, those of fewer letters and digits than a substring should have: "Inflation"
        stands in any textbook, and such a hit tells little."""
        return sum(flag.contaminated and flag.characters < LENGTH for flag in self.flags)


def exposure(eval: str, items: Items, flags: Sequence[Flag], kind: Kind = "benchmark") -> Exposure:
    """Of an eval without a run. Raises EvalError where it has no items."""
    if not flags:
        raise EvalError(f"{eval} has no samples that could be looked for. Check its data.")
    return Exposure(eval, kind, tuple(flags), items.note)


def exposure_of_run(log: RunLog, items: Items, flags: Sequence[Flag], kind: Kind = "benchmark") -> Exposure:
    """Of a finished run. items: of its samples, or of some of them, whose scores alone then count."""
    scores = scores_of(log)
    scores = replace(scores, values={id: v for id, v in scores.values.items() if id in items.texts})
    found = exposure(scores.eval, items, flags, kind)
    return replace(found, log=str(log.path), **split(scores, flags, items.higher_is_better))


def split(scores: Scores, flags: Sequence[Flag], higher_is_better: bool = True) -> dict[str, Any]:
    """The fields of `Exposure` that come of scores.

    Which items are contaminated is taken as given; what varies is how the model answers. clean − whole is the
    contaminated share of the difference between the two parts, and clean / whole a function of their ratio: the
    intervals follow from those of the parts, which are taken to be independent. Where groups reach into both parts
    they are not, and the intervals are then rather too wide.
    Raises EvalError for a sample without a flag.
    """
    known = {flag.id: flag.contaminated for flag in flags}
    if lacking := next((id for id in scores.values if id not in known), None):
        raise EvalError(f"Sample {lacking} of run {scores.run} was not looked for. Check the eval that the run is of.")
    dirty = replace(scores, values={id: v for id, v in scores.values.items() if known[id]})
    clean = replace(scores, values={id: v for id, v in scores.values.items() if not known[id]})
    all_, of_clean, of_dirty = (each.summary() if each.valid else None for each in (scores, clean, dirty))
    whole, left = _part(all_, scores), _part(of_clean, clean)
    delta = degradation = None
    if of_clean is not None and all_ is not None:
        share = len(dirty.valid) / len(scores.valid)
        delta = _delta(of_clean.interval, of_dirty, share)
        degradation = _degradation(of_clean.interval, of_dirty, share)
    values = [part.value for part in (whole, left) if part.value is not None]
    return {
        "model": scores.model,
        "metric": scores.metric,
        "run": scores.run,
        "whole": whole,
        "clean": left,
        "contaminated": _part(of_dirty, dirty),
        "delta": delta,
        "degradation": degradation,
        "reported": (min(values) if higher_is_better else max(values)) if values else None,
    }


def _part(summary: Summary | None, scores: Scores) -> Part:
    if summary is None:
        return Part(len(scores.values), None)
    low, high = (x if isfinite(x) else None for x in (summary.interval.low, summary.interval.high))
    return Part(len(scores.values), summary.estimate, low, high)


def _delta(clean: Interval, dirty: Summary | None, share: float) -> Interval:
    if dirty is None:
        return Interval(0.0, 0.0, 0.0)
    d = independent_difference(clean, dirty.interval)
    return Interval(share * d.estimate, share * d.low, share * d.high)


def _degradation(clean: Interval, dirty: Summary | None, share: float) -> Interval | None:
    if dirty is None:
        return Interval(0.0, 0.0, 0.0) if clean.estimate > 0 else None
    other = dirty.interval
    if min(clean.low, other.low) < 0 or not max(clean.estimate, other.estimate) > 0:
        return None

    def of(ratio: float) -> float:
        """clean / whole − 1, by contaminated / clean."""
        return -1.0 if ratio == inf else share * (1 - ratio) / (1 - share + share * ratio)

    if clean.estimate > 0:
        r = independent_ratio(other, clean)
        return Interval(of(r.estimate), of(r.high), of(r.low))
    r = independent_ratio(clean, other)
    inverse = [inf if x == 0 else 1 / x for x in (r.estimate, r.low, r.high)]
    return Interval(*map(of, inverse))


@dataclass(frozen=True)
class Table:
    """One of the report's tables. rows: texts, numbers, shares and None where there is nothing to tell."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def tables(found: Sequence[Exposure]) -> tuple[Table, Table, Table]:
    """The report's tables 9, 10 and 11: exams with the lower score of each model; every exam and benchmark in detail;
    academic benchmarks of all models. Rows of the first two go from the most contaminated to the least."""
    exams = [e for e in found if e.kind == "exam"]
    academic = [e for e in found if e.kind == "benchmark"]
    detail = tuple(
        (
            *(e.eval, e.model, len(e.flags), e.flagged, e.short, e.share),
            *map(_value, (e.whole, e.clean, e.contaminated)),
            *(e.delta, e.degradation, e.reported),
        )
        for e in sorted(found, key=lambda e: (-e.share, e.eval, e.model))
    )
    head = ("eval", "model", "items", "found", "short", "contaminated", "all", "clean", "found only")
    return (
        _by_model("Exams", sorted(exams, key=lambda e: -e.share), degradation=False),
        Table(
            "Every exam and benchmark",
            (*head, "clean − all", "degradation", "reported"),
            detail,
        ),
        _by_model("Academic benchmarks", academic, degradation=True),
    )


def _value(part: Part | None) -> float | None:
    return None if part is None else part.value


def _by_model(title: str, found: Sequence[Exposure], degradation: bool) -> Table:
    """A row an eval, and of each model its score, that of the clean part and, for academic benchmarks, the loss."""
    models = list(dict.fromkeys(e.model for e in found if e.whole is not None))
    head = ["eval", "contaminated"]
    for model in models:
        head += [model, f"{model}, clean", *([f"{model}, degradation"] if degradation else [])]
    rows = []
    for name in dict.fromkeys(e.eval for e in found):
        of = {e.model: e for e in found if e.eval == name}
        row: list[Any] = [name, next(iter(of.values())).share]
        for model in models:
            e = of.get(model)
            row += [None if e is None else _value(e.whole), None if e is None else _value(e.clean)]
            if degradation:
                row.append(None if e is None else e.degradation)
        rows.append(tuple(row))
    return Table(title, tuple(head), tuple(rows))


def plain(found: Sequence[Exposure], index: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of it as JSON. index: what index.json of the corpus holds. settings: of the search."""
    return {
        "format": 1,
        "index": {key: index[key] for key in ("key", "documents", "ignore_case", "files", "sources")},
        "settings": dict(settings),
        "evals": [_plain(e) for e in found],
        "tables": [
            {"title": t.title, "head": t.head, "rows": [[_cell(c) for c in row] for row in t.rows]}
            for t in tables(found)
        ],
    }


def _plain(e: Exposure) -> dict[str, Any]:
    parts = {name: getattr(e, name) for name in ("whole", "clean", "contaminated")}
    return {
        "eval": e.eval, "kind": e.kind, "model": e.model, "metric": e.metric, "run": e.run, "log": e.log,
        "note": e.note, "items": len(e.flags), "contaminated_items": e.flagged, "short_contaminated_items": e.short,
        "share": e.share,
        **{name: None if part is None else vars(part) for name, part in parts.items()},
        "delta": _cell(e.delta), "degradation": _cell(e.degradation), "reported": e.reported,
        "flagged": [{"id": f.id, "hit": f.hit, "where": str(f.where)} for f in e.flags if f.contaminated],
    }  # fmt: skip


def _cell(value: Any) -> Any:
    if isinstance(value, Interval):
        ends = [x if isfinite(x) else None for x in (value.estimate, value.low, value.high)]
        return dict(zip(("estimate", "low", "high"), ends, strict=True))
    return value
