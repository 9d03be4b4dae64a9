"""From runs, evals and files of samples to what of them stood in a corpus, all looked for at once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from foretell.errors import EvalError
from foretell.evals.api import open_registry
from foretell.evals.classes import make_eval
from foretell.evals.contamination import Exposure, Kind, exposure, exposure_of_run
from foretell.evals.items import PARTS, Items, Part, items_of, items_of_log, shared_messages, text_of
from foretell.evals.log import RunLog, read_log
from foretell.evals.samples import read_samples
from foretell.measure.overlap import COUNT, LENGTH, Flag, Index, check
from foretell.run import Report, silent


@dataclass(frozen=True)
class _Target:
    """name: of the eval, or the file. log: where it is a run."""

    name: str
    items: Items
    log: RunLog | None = None


def check_contamination(
    targets: Sequence[str],
    index: Index,
    *,
    part: str = "question",
    count: int = COUNT,
    length: int = LENGTH,
    seed: int = 0,
    sample: int | None = None,
    exams: Sequence[str] = (),
    registries: Sequence[Path] = (),
    report: Report = silent,
) -> list[Exposure]:
    """Look for the items of runs (logs), evals and files of samples in a corpus.

    part: of an item that is looked for: "question" with its context, with its "options", or "all" with the answer.
    count, length, seed: of the substrings. sample: only so many items of each, drawn by the seed. exams: names or
    patterns of evals that are exams and no academic benchmarks. registries: where evals are defined.
    Raises EvalError for a target that is none of these, or whose items cannot be had.
    """
    chosen = next((each for each in PARTS if each == part), None)
    if chosen is None:
        raise EvalError(f"There is no part {part!r} of an item; choose from {', '.join(PARTS)}.")
    found = [_thinned(_target(name, chosen, registries), sample, seed) for name in targets]
    flags = _flags([target.items for target in found], index, count, length, seed, report)
    made = []
    for target, of in zip(found, flags, strict=True):
        kind: Kind = "exam" if any(fnmatch(target.name, pattern) for pattern in exams) else "benchmark"
        if target.log is None:
            made.append(exposure(target.name, target.items, of, kind))
        else:
            made.append(exposure_of_run(target.log, target.items, of, kind))
    return made


def _target(name: str, part: Part, registries: Sequence[Path]) -> _Target:
    path = Path(name)
    if path.is_file():
        if _is_log(path):
            log = read_log(path)
            return _Target(str(log.spec.get("eval_name")), items_of_log(log, registries, part), log)
        samples = read_samples(path)
        shared, ids = shared_messages(samples), (f"{path.name}:{row}" for row in range(1, len(samples) + 1))
        return _Target(name, Items({id: text_of(s, part, shared, id) for id, s in zip(ids, samples, strict=True)}))
    made = make_eval(open_registry(registries), name)
    return _Target(made.spec.name, items_of(made, part))


def _is_log(path: Path) -> bool:
    if path.suffix != ".jsonl":
        return False
    with path.open("rb") as stream:
        try:
            first = json.loads(stream.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and "spec" in first


def _thinned(target: _Target, sample: int | None, seed: int) -> _Target:
    texts = target.items.texts
    if sample is None or sample >= len(texts):
        return target
    drawn = random.Random(seed).sample(list(texts), sample)
    return replace(target, items=replace(target.items, texts={id: texts[id] for id in drawn}))


def _flags(
    found: Sequence[Items], index: Index, count: int, length: int, seed: int, report: Report
) -> list[list[Flag]]:
    """Of each target its flags. Items that several runs share are looked for once; a name with another text (an eval
    that was given other data) goes into a further round."""
    rounds: list[dict[str, str]] = [{} for _ in found]  # the last ones stay empty
    of: list[int] = []
    for items in found:
        fits = (all(held.get(id, text) == text for id, text in items.texts.items()) for held in rounds)
        of.append(list(fits).index(True))
        rounds[of[-1]].update(items.texts)
    done = [
        {flag.id: flag for flag in check(index, held, count=count, length=length, seed=seed, report=report)}
        for held in rounds
    ]
    return [[done[number][id] for id in items.texts] for number, items in zip(of, found, strict=True)]
